/** What `miro index` must be asked for, so that a training finds the bin edges of its rewards there. */
import type { IndexOptions } from "../../data/dataset/index-shards.js";
import { InvalidInputError } from "../../errors.js";
import { parseRinConfig } from "../../networks/config.js";
import { type ShardData, scoresOf } from "../batches/shard-data.js";
import { rootsOf } from "../batches/shard-roots.js";
import type { Recipe } from "../recipes/recipe.js";

/**
 * The folders, scores and bins of a recipe's data.
 * @throws InvalidInputError for data that are no shards
 */
export function recipeBins(recipe: Recipe): IndexOptions {
  if (recipe.data.kind !== "shards")
    throw new InvalidInputError(`recipe: ${recipe.name} has data.kind ${recipe.data.kind}; only shards are indexed`);
  const data = recipe.data as ShardData & { kind: string };
  const { coherenceKeys } = parseRinConfig(recipe.network);
  return {
    folders: rootsOf(data),
    scores: [...scoresOf(data, coherenceKeys)],
    syntheticProb: data.syntheticEmbeddingProb,
    scoreMode: data.scoreMode,
    numBins: data.numBins,
    strategy: data.binStrategy,
    refineLastNBins: data.refineLastNBins,
    refineFactor: data.refineFactor,
    distinct: data.distinct,
    maxSamples: data.maxSamplesBinEstimation,
    seed: data.binSeed,
    textEmbeddingName: data.textEmbeddingName,
    skipBrokenShards: data.skipBrokenShards,
  };
}
