/**
 * GenEval's figures from the verdicts on single pictures. The score is the mean over tasks of the share of right
 * pictures, as the published program computes it; intervals come from drawing prompts anew (Efron 1979), since the
 * pictures of one prompt are not independent.
 */
import { z } from "zod";
import { checkName } from "../../arguments.js";
import { InvalidInputError } from "../../errors.js";
import { checkContent } from "../../expectations.js";
import { pythonFixed } from "../../files/python-number.js";
import { linesOf, readTextFile } from "../../files/text-file.js";
import { groupBy } from "../../group-by.js";
import { philox4x32 } from "../../random/philox.js";
import { type Interval, middleOf } from "../bootstrap.js";
import { parseMetadata } from "./prompts.js";

/** A line of `results.jsonl`, as GenEval's own evaluator writes it too; more fields may follow. */
const resultSchema = z.looseObject({
  filename: z.string(),
  tag: z.string(),
  prompt: z.string(),
  correct: z.boolean(),
  reason: z.string(),
  metadata: z.string(),
  details: z.string().default("{}"),
});

/** The verdict on a picture. */
export type Result = z.output<typeof resultSchema>;

/** Share of right pictures. */
export interface Share {
  images: number;
  correct: number;
  accuracy: number;
}

/** Share of right pictures of a task. */
export interface TaskShare extends Share {
  prompts: number;
  /** 95 %; null: of one prompt nothing tells how another would differ. */
  interval: Interval | null;
}

/** What {@link summarise} finds. */
export interface Summary {
  images: number;
  prompts: number;
  /** Share of right pictures. */
  correct_images: number;
  /** Share of prompts with a right picture. */
  correct_prompts: number;
  /** In the order of their first picture. */
  tasks: Record<string, TaskShare>;
  /** Mean accuracy of the tasks. */
  overall: number;
  /** 95 %; null where a task has one prompt alone. */
  overall_interval: Interval | null;
  /** How often each fault stands among the reasons, by task. */
  faults: Record<string, Record<string, number>>;
  /** By class: pictures that asked for it, and of these the ones without a fault that names it. */
  classes: Record<string, Share>;
}

/** Drawings of prompts for an interval. */
const RESAMPLES = 1000;

/** Faults of reasons, in the words of the summary, with the class that they name. */
const FAULTS: readonly (readonly [name: string, pattern: RegExp])[] = [
  ["wrong colour", /^expected \S+ (.+)>=\d+, found \d+ \S+; and /],
  ["too few", /^expected (.+)>=\d+, found \d+$/],
  ["too many", /^expected (.+)<\d+, found \d+$/],
  ["no target", /^no target for (.+) to be /],
  ["wrong position", /^expected (.+) (?:left of|right of|above|below) target, found /],
];

/** The figures of some verdicts. @throws InvalidInputError when there are none */
export function summarise(results: readonly Result[]): Summary {
  if (results.length === 0) throw new InvalidInputError("there are no verdicts to summarise");
  const byTask = groupBy(results, ({ tag }) => tag);
  const byPrompt = groupBy(results, ({ metadata }) => metadata);
  /** Of each task, right pictures and pictures of each prompt. */
  const counts = [...byTask.values()].map((list) =>
    [...groupBy(list, ({ metadata }) => metadata).values()].map((pictures): [correct: number, images: number] => [
      pictures.filter(({ correct }) => correct).length,
      pictures.length,
    ]),
  );
  const drawn = resample(counts);
  const varies = counts.map((prompts) => prompts.length > 1);
  const tasks = Object.fromEntries(
    [...byTask].map(([tag, list], i): [string, TaskShare] => [
      tag,
      {
        ...share(list),
        prompts: counts[i]!.length,
        interval: varies[i] ? middleOf(drawn.map((accuracies) => accuracies[i]!)) : null,
      },
    ]),
  );
  return {
    images: results.length,
    prompts: byPrompt.size,
    correct_images: share(results).accuracy,
    correct_prompts: share([...byPrompt.values()].map((list) => ({ correct: list.some(({ correct }) => correct) })))
      .accuracy,
    tasks,
    overall: mean(Object.values(tasks).map(({ accuracy }) => accuracy)),
    overall_interval: varies.every(Boolean) ? middleOf(drawn.map(mean)) : null,
    faults: Object.fromEntries([...byTask].map(([tag, list]) => [tag, faultsOf(list)])),
    classes: classShares(results),
  };
}

function share(list: readonly { correct: boolean }[]): Share {
  const correct = list.filter((one) => one.correct).length;
  return { images: list.length, correct, accuracy: correct / list.length };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Accuracies of the tasks when the prompts of each are drawn anew. */
function resample(tasks: readonly (readonly [number, number][])[]): number[][] {
  return Array.from({ length: RESAMPLES }, (_, resample) =>
    tasks.map((prompts, task) => {
      let [correct, images] = [0, 0];
      for (let first = 0; first < prompts.length; first += 4) {
        const words = philox4x32([first, resample, task, 0], [0, 0]);
        for (const word of words.slice(0, prompts.length - first)) {
          const [right, all] = prompts[Math.floor((word / 2 ** 32) * prompts.length)]!;
          correct += right;
          images += all;
        }
      }
      return correct / images;
    }),
  );
}

/** Faults of a reason with the class that each names. */
export function faultsIn(reason: string): { fault: string; className: string }[] {
  if (reason === "") return [];
  return reason.split("\n").map((line) => {
    for (const [fault, pattern] of FAULTS) {
      const className = pattern.exec(line)?.[1];
      if (className !== undefined) return { fault, className };
    }
    return { fault: "other", className: "" };
  });
}

function faultsOf(results: readonly Result[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { fault } of results.flatMap(({ reason }) => faultsIn(reason))) counts[fault] = (counts[fault] ?? 0) + 1;
  return counts;
}

function classShares(results: readonly Result[]): Record<string, Share> {
  const shares = new Map<string, { images: number; correct: number }>();
  const asked = new Map<string, Set<string>>();
  for (const { metadata, reason, filename } of results) {
    if (!asked.has(metadata))
      asked.set(metadata, new Set(parseMetadata(metadata, filename).include.map((one) => one.class)));
    const faulty = new Set(faultsIn(reason).map(({ className }) => className));
    for (const name of asked.get(metadata)!) {
      const counts = shares.get(name) ?? { images: 0, correct: 0 };
      counts.images++;
      if (!faulty.has(name)) counts.correct++;
      shares.set(name, counts);
    }
  }
  const sorted = [...shares].sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(sorted.map(([name, one]) => [name, { ...one, accuracy: one.correct / one.images }]));
}

/**
 * Reads the results of this program or of GenEval's own evaluator.
 *
 * @throws InvalidInputError naming file, line and field of what is wrong; MiroError when the file cannot be read
 */
export function readResults(path: string): Result[] {
  checkName("path", path, "the name of a file");
  const lines = linesOf(readTextFile(path)).map((text, i) => ({ text, where: `${path}, line ${i + 1}` }));
  const results = lines
    .filter(({ text }) => text.trim() !== "")
    .map(({ text, where }) => {
      let value: unknown;
      try {
        value = JSON.parse(text);
      } catch (error) {
        throw new InvalidInputError(`${where}: not valid JSON: ${(error as Error).message.split("\n")[0]}`);
      }
      return checkContent(resultSchema, value, where);
    });
  if (results.length === 0) throw new InvalidInputError(`${path}: holds no results`);
  return results;
}

/** The figures as GenEval's own program prints them. */
export function summaryText({ images, prompts, correct_images, correct_prompts, tasks, overall }: Summary): string {
  const percent = (value: number) => `${pythonFixed(100 * value, 2)}%`;
  const lines = Object.entries(tasks).map(
    ([tag, task]) => `${tag.padEnd(16)} = ${percent(task.accuracy)} (${task.correct} / ${task.images})`,
  );
  return [
    "Summary",
    "=======",
    `Total images: ${images}`,
    `Total prompts: ${prompts}`,
    `% correct images: ${percent(correct_images)}`,
    `% correct prompts: ${percent(correct_prompts)}`,
    "",
    "Task breakdown",
    "==============",
    ...lines,
    "",
    `Overall score (avg. over tasks): ${pythonFixed(overall, 5)}`,
    "",
  ].join("\n");
}
