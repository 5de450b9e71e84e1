/**
 * Which samples a training run sees, decided by a sample's metadata, once for each shard.
 *
 * The rules are the published ones: a sample whose picture size is unknown passes, whatever its scores; a missing score
 * counts as 0; scores are those of the original caption.
 */
import { z } from "zod";
import { field } from "../../options.js";
import type { ShardTable } from "../shards/shard-table.js";

/** What a sample must have. */
export const filterOptionsSchema = z.strictObject({
  /** Smallest width and height of the original picture. Default: 256. */
  minImageSize: field(z.number().nonnegative().default(256), {
    expected: "a number of at least 0",
    help: "smallest width and height of the original picture",
  }),
  /** Smallest clip_score. Default: 0. */
  clipFilterThreshold: field(z.number().default(0), {
    expected: "a number",
    help: "smallest clip_score, of samples whose size is known",
  }),
  /** Smallest aesthetic_score. Default: 0. */
  aestheticThreshold: field(z.number().default(0), {
    expected: "a number",
    help: "smallest aesthetic_score, of samples whose size is known",
  }),
});

/** What a sample must have, every value given. */
export type FilterOptions = z.output<typeof filterOptionsSchema>;

/** Whether there is a filter: three zeros are none, as published, so that negative scores pass too. */
export function hasFilter({ minImageSize, clipFilterThreshold, aestheticThreshold }: FilterOptions): boolean {
  return minImageSize !== 0 || clipFilterThreshold !== 0 || aestheticThreshold !== 0;
}

/** Whether a sample of a shard passes. */
export function passesFilter(table: Pick<ShardTable, "value">, sample: number, options: FilterOptions): boolean {
  if (!hasFilter(options)) return true;
  const sides = [table.value(sample, "width"), table.value(sample, "height")];
  if (sides.some(Number.isNaN)) return true;
  const score = (name: string) => table.value(sample, name) || 0;
  return (
    sides.every((side) => side >= options.minImageSize) &&
    score("clip_score") >= options.clipFilterThreshold &&
    score("aesthetic_score") >= options.aestheticThreshold
  );
}
