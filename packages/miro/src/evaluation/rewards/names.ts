/**
 * The names and units that the published evaluation gives to scorers. It divides the logits of CLIP models by 100, and
 * leaves the aesthetic score and ImageReward as they are, unlike the published preparation of data.
 */
import { checkWeightKeys, scorerSpecs, unknownScorer } from "../../rewards/registry.js";

/** A column of `rewards.jsonl`. */
export interface RewardColumn {
  name: string;
  /** Key of the scorer. */
  key: string;
  /** What its score is divided by. */
  divisor: number;
}

/** The six of the published evaluation in its order, and the two rewards that it lacks. */
const COLUMNS: readonly RewardColumn[] = [
  { name: "aesthetic", key: "aesthetic_score", divisor: 1 },
  { name: "pick_score", key: "pick_a_score_score", divisor: 100 },
  { name: "image_reward", key: "image_reward_score", divisor: 1 },
  { name: "hpsv2", key: "hpsv2_score", divisor: 1 },
  { name: "clip_jina", key: "clip_score", divisor: 100 },
  { name: "clip_openai", key: "clip_openai", divisor: 100 },
  { name: "vqa", key: "vqa_score", divisor: 1 },
  { name: "sciscore", key: "sciscore_score", divisor: 100 },
];
const PUBLISHED = COLUMNS.slice(0, 6);

/**
 * The column of a scorer, by the published name or by the scorer's key. @throws InvalidInputError naming all there are
 */
function rewardColumn(name: string, parameter: string): RewardColumn {
  const column = COLUMNS.find((one) => one.name === name || one.key === name);
  if (column) return column;
  if (scorerSpecs().some(({ key }) => key === name)) return { name, key: name, divisor: 1 };
  const others = scorerSpecs().filter(({ key }) => !COLUMNS.some((column) => column.key === key));
  throw unknownScorer(name, [...COLUMNS.map((one) => one.name), ...others.map(({ key }) => key)], parameter);
}

/**
 * The columns that are asked for. Without a choice: those whose weights are named, in the published order; where none
 * is named, the published six.
 */
export function rewardColumns(
  scorers: readonly string[] | undefined,
  weights: Readonly<Record<string, string>>,
): RewardColumn[] {
  if (scorers !== undefined) return [...new Map(scorers.map((name) => [name, rewardColumn(name, "scorers")])).values()];
  const named = COLUMNS.filter(({ key }) => Object.hasOwn(weights, key));
  return named.length > 0 ? named : [...PUBLISHED];
}

/**
 * Weights by scorer key; the published names are understood as well.
 * @throws InvalidInputError for a name that no scorer has
 */
export function weightsByKey(weights: Readonly<Record<string, string>>): Record<string, string> {
  const byKey = Object.fromEntries(
    Object.entries(weights).map(([name, folder]) => [COLUMNS.find((one) => one.name === name)?.key ?? name, folder]),
  );
  checkWeightKeys(byKey);
  return byKey;
}

/** The column of a key that scores were stored under. */
export function columnOfKey(key: string): RewardColumn {
  return COLUMNS.find((one) => one.key === key) ?? { name: key, key, divisor: 1 };
}
