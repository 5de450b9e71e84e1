/**
 * What decides among candidates: scorers with weights. Scorers have different units, so that their values are
 * standardised before they are added: with s_k(i) the score of candidate i by scorer k among the N of one prompt,
 *
 *   total(i) = Σ_k w_k (s_k(i) − mean_k) / std_k
 *
 * std_k is that of the N values; where they are all equal the scorer decides nothing. A scorer that is alone decides by
 * its own values.
 */
import { InvalidInputError } from "../errors.js";
import { about, message } from "../message.js";
import type { MiroPipeline } from "../pipeline/pipeline.js";
import { DEFAULT_SCORER, scorerSpec } from "./registry.js";

/** A scorer and how much it counts. */
export interface WeightedKey {
  key: string;
  /** 0: it is recorded only. */
  weight: number;
}

/** What decides by default where the scorer of the bundled model has nothing to say. */
const PUBLISHED_DEFAULT = "image_reward_score";

/**
 * The scorer that decides where nobody says which: that of the emoji scenes for models that draw them, ImageReward for
 * all others, whose published gains from drawing more were measured by it.
 */
export function defaultScorer(pipe: MiroPipeline): string {
  return scorerSpec(DEFAULT_SCORER).refusal?.(pipe) ? PUBLISHED_DEFAULT : DEFAULT_SCORER;
}

/**
 * Reads `image_reward_score=1,aesthetic_score=0.5`; a scorer without a number has the weight 1.
 * @throws InvalidInputError for unknown scorers, for one that comes twice, and where none counts
 */
export function parseSelection(text: string): WeightedKey[] {
  const parts = text.split(",").map((part): WeightedKey => {
    const cut = part.indexOf("=");
    const key = (cut < 0 ? part : part.slice(0, cut)).trim();
    const weight = part.slice(cut + 1).trim();
    const value = cut < 0 ? 1 : weight === "" ? Number.NaN : Number(weight);
    if (key === "" || /\s/.test(key) || !Number.isFinite(value))
      throw new InvalidInputError(
        message`${about("scorer")}: expected scorers, each alone or with its weight (image_reward_score=1,aesthetic_score=0.5), received ${JSON.stringify(part)}`,
      );
    scorerSpec(key);
    return { key, weight: value };
  });
  checkSelection(parts);
  return parts;
}

/** @throws InvalidInputError for a scorer that comes twice, and where none counts */
export function checkSelection(parts: readonly WeightedKey[]): void {
  const twice = parts.find(({ key }, i) => parts.findIndex((other) => other.key === key) < i);
  const wrong = twice
    ? message`each scorer once, received ${twice.key} twice`
    : parts.every(({ weight }) => weight === 0)
      ? "a weight that is not 0, received none"
      : null;
  if (wrong !== null) throw new InvalidInputError(message`${about("scorer")}: expected ${wrong}`);
}

/** As {@link parseSelection} reads it; weights of 1 are not written. */
export function selectionText(parts: readonly WeightedKey[]): string {
  return parts.map(({ key, weight }) => (weight === 1 ? key : `${key}=${weight}`)).join(",");
}

/**
 * What decides, for each candidate.
 * @param columns the scores of all candidates, scorer by scorer
 */
export function selectionTotals(columns: readonly (readonly number[])[], weights: readonly number[]): number[] {
  const counting = columns.map((values, k) => ({ values, weight: weights[k]! })).filter(({ weight }) => weight !== 0);
  if (counting.length === 1) return counting[0]!.values.map((value) => counting[0]!.weight * value);
  const standardised = counting.map(({ values, weight }) => standardise(values).map((z) => weight * z));
  return columns[0]!.map((_, i) => standardised.reduce((sum, values) => sum + values[i]!, 0));
}

function standardise(values: readonly number[]): number[] {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const std = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
  return values.every((value) => value === values[0]) ? values.map(() => 0) : values.map((x) => (x - mean) / std);
}
