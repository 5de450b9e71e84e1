/** The fields of samples' metadata that can be rewards: those that hold numbers. */
import { scorerSpecs } from "../../rewards/registry.js";
import type { ShardSet } from "../shards/shard-set.js";
import { syntheticName } from "./caption-source.js";

/** Fields that an error names. */
const NAMED = 12;

/** Names of the numeric fields in the order in which the shards have them, those of synthetic captions left out. */
export function numericFields(shards: Pick<ShardSet, "shards">): string[] {
  const names = new Set(shards.shards.flatMap(({ header }) => header.columns));
  return [...names].filter((name) => !name.startsWith(syntheticName("")));
}

/** Those of the fields that are scores: of a scorer, or called a score. */
export function scoreFields(fields: Iterable<string>): string[] {
  const measured = new Set(scorerSpecs().map(({ key }) => key));
  return [...fields].filter((name) => measured.has(name) || name.endsWith("_score"));
}

/** What there is instead of a field that is not there, for errors. */
export function foundFields(fields: readonly string[]): string {
  if (fields.length === 0) return "the samples' metadata have no numbers";
  const named = fields.slice(0, NAMED).join(", ");
  return `numbers are in ${named}${fields.length > NAMED ? ` and ${fields.length - NAMED} more` : ""}`;
}
