/**
 * Which caption of a sample is trained with in an epoch, the original or the synthetic one, and which scores go with
 * it.
 *
 *   paired     the synthetic embedding always comes with the scores of the synthetic caption, `synthetic_<name>`; a
 *              sample that lacks one of them keeps its original caption
 *   original   the published code: the embedding is exchanged, the scores stay those of the original caption (it looks
 *              the synthetic ones up under names that no file has)
 */
import { uniformAt } from "../../random/philox.js";

/** Which scores go with a synthetic caption. */
export const SCORE_MODES = ["paired", "original"] as const;
/** One of {@link SCORE_MODES}. */
export type ScoreMode = (typeof SCORE_MODES)[number];

/** The name under which a score of the synthetic caption is stored. */
export function syntheticName(score: string): string {
  return `synthetic_${score}`;
}

/** A sample's scores, not finite where it has none, in the order of the configured names. */
export interface SampleScores {
  original: ArrayLike<number>;
  synthetic: ArrayLike<number>;
  hasSyntheticText: boolean;
}

/** Whether a sample can be trained with its synthetic caption. */
export function canBeSynthetic({ original, synthetic, hasSyntheticText }: SampleScores, mode: ScoreMode): boolean {
  if (!hasSyntheticText) return false;
  if (mode === "original") return true;
  for (let i = 0; i < original.length; i++)
    if (!Number.isFinite(synthetic[i]) && Number.isFinite(original[i])) return false;
  return true;
}

/**
 * Whether a sample's synthetic caption is drawn in an epoch: with the given probability, the same answer in every
 * process.
 * @param sample the sample's index in the data set, before filtering
 */
export function drawsSynthetic(probability: number, seed: number, epoch: number, sample: number): boolean {
  if (probability <= 0) return false;
  return uniformAt({ seed, epoch, sample, purpose: "caption" }) < probability;
}
