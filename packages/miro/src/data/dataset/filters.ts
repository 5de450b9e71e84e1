/**
 * Which samples a training run sees, decided by a sample's metadata, once for each shard.
 *
 * The rules are the published ones: a sample whose picture size is unknown passes, whatever its scores; a missing score
 * counts as 0; scores are those of the original caption.
 */
import { z } from "zod";
import { field } from "../../options.js";

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

/** What the filter reads of a sample; NaN where the metadata have no number. */
export interface FilteredFields {
  width: number;
  height: number;
  clipScore: number;
  aestheticScore: number;
}

/** Whether a sample passes. */
export function passesFilter(sample: FilteredFields, options: FilterOptions): boolean {
  const { width, height } = sample;
  if (Number.isNaN(width) || Number.isNaN(height)) return true;
  const known = (score: number) => (Number.isNaN(score) ? 0 : score);
  return (
    width >= options.minImageSize &&
    height >= options.minImageSize &&
    known(sample.clipScore) >= options.clipFilterThreshold &&
    known(sample.aestheticScore) >= options.aestheticThreshold
  );
}

/** Whether there is a filter: three zeros are none, as published, so that negative scores pass too. */
export function hasFilter({ minImageSize, clipFilterThreshold, aestheticThreshold }: FilterOptions): boolean {
  return minImageSize !== 0 || clipFilterThreshold !== 0 || aestheticThreshold !== 0;
}
