/**
 * The figures of a file of rewards: means over pictures, their spread, and means over prompts with intervals. One
 * object has the forms of both published tools: a mean for each scorer under its name, and the maps of means and
 * deviations.
 */
import { checkList, isObject, isText } from "../../arguments.js";
import { groupBy } from "../../group-by.js";
import { bootstrapIntervals, type Interval } from "../bootstrap.js";

/** A picture's rewards, by the names of columns. */
export interface RewardRow {
  /** Relative to the folder. */
  filename: string;
  prompt: string;
  /** null: the picture could not be read, or its score is not finite. */
  scores: Readonly<Record<string, number | null>>;
}

/** What several rows come to. */
export interface RewardFigures {
  n_images: number;
  /** Distinct prompts. */
  n_prompts: number;
  /** Pictures that have a score, which the figures of a scorer are of. */
  per_image_count: Record<string, number>;
  per_image_mean: Record<string, number | null>;
  /** Of a sample (n − 1); 0 for one picture. */
  per_image_std: Record<string, number | null>;
  /** The mean over prompts of the mean over each one's pictures. */
  per_prompt_mean: Record<string, number | null>;
  /** 95 %, of `per_prompt_mean`, when the prompts are drawn anew. */
  per_prompt_interval: Record<string, Interval | null>;
}

/** The figures of some rows; a column without a value has null. */
export function rewardFigures(rows: readonly RewardRow[], columns: readonly string[]): RewardFigures {
  checkList("rows", rows, "a list of rows", isObject);
  checkList("columns", columns, "a list of names", isText);
  const byPrompt = groupBy(rows, ({ prompt }) => prompt);
  const ofColumn = (list: readonly RewardRow[], name: string): number[] =>
    list.flatMap(({ scores }) => scores[name] ?? []);
  const values = columns.map((name) => ofColumn(rows, name));
  const prompts = columns.map((name) => [...byPrompt.values()].map((list) => meanOf(ofColumn(list, name))));
  const intervals = bootstrapIntervals(prompts);
  const named = <T>(value: (column: number) => T): Record<string, T> =>
    Object.fromEntries(columns.map((name, c) => [name, value(c)]));
  return {
    n_images: rows.length,
    n_prompts: byPrompt.size,
    per_image_count: named((c) => values[c]!.length),
    per_image_mean: named((c) => meanOf(values[c]!)),
    per_image_std: named((c) => deviationOf(values[c]!)),
    per_prompt_mean: named((c) => meanOf(prompts[c]!.filter((value) => value !== null))),
    per_prompt_interval: named((c) => intervals[c]!),
  };
}

function meanOf(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}

function deviationOf(values: readonly number[]): number | null {
  const mean = meanOf(values);
  if (mean === null) return null;
  if (values.length === 1) return 0;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
}
