/** What `miro index --recipe` takes from a recipe. */
import type { IndexOptions } from "../../data/dataset/index-shards.js";
import { InvalidInputError } from "../../errors.js";
import { parseRinConfig } from "../../networks/config.js";
import { indexOptionsOf } from "../batches/shard-bins.js";
import type { ShardData } from "../batches/shard-data.js";
import type { Recipe } from "../recipes/recipe.js";

/**
 * The folders, scores and bins of a recipe's data.
 * @throws InvalidInputError for data that are no shards
 */
export function recipeBins(recipe: Recipe): IndexOptions {
  if (recipe.data.kind !== "shards")
    throw new InvalidInputError(`recipe: ${recipe.name} has data.kind ${recipe.data.kind}; only shards are indexed`);
  const data = recipe.data as ShardData & { kind: string };
  return indexOptionsOf(data, parseRinConfig(recipe.network).coherenceKeys);
}
