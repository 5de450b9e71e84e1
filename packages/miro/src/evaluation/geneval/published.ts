/** Published GenEval scores, for comparison, and the table that shows them beside one's own. */
import { pythonFixed } from "../../files/python-number.js";
import { TASKS } from "./metadata.js";
import type { Summary } from "./summary.js";

type Task = (typeof TASKS)[number];

/** Scores from 0 to 1; what was not published is absent. */
interface Row {
  model: string;
  overall: number;
  tasks?: Readonly<Partial<Record<Task, number>>>;
}

/** Right pictures of 320, 396, 320, 376, 400 and 400, in the order of {@link TASKS}. */
function counted(model: string, correct: readonly number[]): Row {
  const shares = correct.map((count, i) => count / IMAGES[i]!);
  return {
    model,
    overall: shares.reduce((sum, one) => sum + one, 0) / shares.length,
    tasks: Object.fromEntries(TASKS.map((task, i) => [task, shares[i]!])),
  };
}

const IMAGES = [320, 396, 320, 376, 400, 400];

/** MIRO's project page, four pictures a prompt: right pictures of each task, in the order of {@link TASKS}. */
export const PUBLISHED_COUNTS: Readonly<Record<string, readonly number[]>> = {
  Baseline: [301, 219, 157, 256, 72, 114],
  MIRO: [295, 268, 177, 260, 76, 150],
  "Baseline, synthetic captions": [296, 232, 141, 278, 118, 173],
  "MIRO, synthetic captions": [311, 289, 196, 288, 184, 208],
};

/** GenEval of MIRO with synthetic captions by its aesthetic target, 0 to 1 in steps of 1/8; other targets 1. */
export const PUBLISHED_SWEEP: readonly number[] = [
  71.30206, 72.1594, 71.60527, 71.45029, 72.93493, 74.87373, 71.10696, 68.69082, 67.66884,
].map((percent) => percent / 100);

const paper = (
  model: string,
  overall: number,
  [single, two, count, colors, position, attr]: readonly number[],
): Row => ({
  model,
  overall,
  tasks: {
    single_object: single!,
    two_object: two!,
    counting: count!,
    colors: colors!,
    position: position!,
    color_attr: attr!,
  },
});

const ROWS: readonly Row[] = [
  ...Object.entries(PUBLISHED_COUNTS).map(([name, correct]) => counted(name, correct)),
  { model: "MIRO, synthetic captions, aesthetic target 0.625", overall: PUBLISHED_SWEEP[5]! },
  paper("SD v1.5", 0.43, [0.97, 0.38, 0.35, 0.76, 0.04, 0.06]),
  paper("SD v2.1", 0.5, [0.98, 0.51, 0.44, 0.85, 0.07, 0.17]),
  paper("SDXL", 0.55, [0.98, 0.74, 0.39, 0.85, 0.15, 0.23]),
  paper("IF-XL", 0.61, [0.97, 0.74, 0.66, 0.81, 0.13, 0.35]),
  { model: "PixArt-α", overall: 0.48 },
  { model: "PixArt-Σ", overall: 0.52 },
  { model: "CAD", overall: 0.5 },
  { model: "Sana-0.6B", overall: 0.64 },
  { model: "Sana-1.6B", overall: 0.66 },
  { model: "SD3-medium", overall: 0.62 },
  { model: "FLUX-dev", overall: 0.67 },
];

/**
 * A table in Markdown: one's own row, with its interval, and the published ones below it where the tasks are GenEval's.
 *
 * @param model name of what was measured
 * @param compare whether the prompts are GenEval's, so that the published rows may stand beside
 */
export function markdownTable(model: string, summary: Summary, compare: boolean): string {
  const tags = Object.keys(summary.tasks);
  const beside = compare && tags.every((tag) => (TASKS as readonly string[]).includes(tag));
  const columns = beside ? TASKS : tags;
  const percent = (value: number | undefined) => (value === undefined ? "" : pythonFixed(100 * value, 2));
  const interval = summary.overall_interval?.map(percent).join(" to ");
  const own = [
    model,
    `${percent(summary.overall)}${interval === undefined ? "" : ` (${interval})`}`,
    ...columns.map((tag) => percent(summary.tasks[tag]?.accuracy)),
  ];
  const rows = beside
    ? ROWS.map(({ model, overall, tasks }) => [
        model,
        percent(overall),
        ...columns.map((tag) => percent(tasks?.[tag as Task])),
      ])
    : [];
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [
    line(["model", "overall, %", ...columns]),
    line(["---", ...Array(columns.length + 1).fill("---:")]),
    ...[own, ...rows].map(line),
    "",
  ].join("\n");
}
