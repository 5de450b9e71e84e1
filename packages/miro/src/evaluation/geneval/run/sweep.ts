/**
 * An evaluation at several targets of one reward, as on MIRO's project page: what asking for more of it does to GenEval
 * and to scores of the pictures. Each target has a folder of its own; the noise is the same in all of them.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { InvalidInputError } from "../../../errors.js";
import { writeFileAtomic } from "../../../files/whole-files.js";
import { message, option } from "../../../message.js";
import { Chart, ticks } from "../../../pictures/chart.js";
import { mergeOptions } from "../../../pipeline/requests/plan-pictures.js";
import { sheetPng } from "../../../pipeline/settings.js";
import { scoreShared } from "../../shared-work.js";
import { PUBLISHED_SWEEP } from "../published.js";
import type { Summary } from "../summary.js";
import { evaluateGeneval, tryJudges } from "./evaluate.js";
import type { EvaluationReport, EvaluationRun } from "./evaluation-run.js";

/** What changes. */
export interface Sweep {
  /** Key of the reward. */
  reward: string;
  targets: readonly number[];
  /** Scores the pictures of a folder: the mean by scorer. */
  score?: ((folder: string) => Promise<Record<string, number | null>>) | undefined;
  /** Loads the scorers once, before anything is drawn. */
  tryScorers?: (() => Promise<void>) | undefined;
}

/** One target. */
export interface SweepPoint {
  target: number;
  /** Of its pictures. */
  folder: string;
  overall: number;
  overall_interval: Summary["overall_interval"];
  tasks: Record<string, number>;
  /** Mean of the pictures by scorer; null where none has a score. */
  scores: Record<string, number | null>;
}

/** What {@link sweepTarget} finds. */
export interface SweepReport {
  reward: string;
  points: SweepPoint[];
  files: { json: string; chart: string };
  problems: EvaluationReport["problems"];
}

/** The nine targets of the project page. */
const SWEEP_TARGETS: readonly number[] = Array.from({ length: 9 }, (_, i) => i / 8);

/** Evaluates at every target; draws first, so that the model is loaded once. */
export async function sweepTarget(
  run: EvaluationRun,
  { reward, targets, score, tryScorers }: Sweep,
): Promise<SweepReport> {
  const { draw, output } = run;
  if (draw === undefined || run.only !== undefined)
    throw new InvalidInputError(
      message`a sweep draws, finds and judges; leave out ${option("images")} and ${option("only")}`,
    );
  const runs = targets.map((target): [number, EvaluationRun] => {
    const folder = join(output, `${reward}-${target}`);
    const options = mergeOptions(draw.options, { rewardTargets: { [reward]: target } });
    return [target, { ...run, images: folder, output: folder, outfile: undefined, draw: { ...draw, options } }];
  });
  if (runs.some(([, one]) => !existsSync(join(one.output, "summary.json")))) {
    await tryJudges(run);
    await tryScorers?.();
  }
  for (const [, one] of runs) await evaluateGeneval({ ...one, only: "generate" });
  const points: SweepPoint[] = [];
  const problems: EvaluationReport["problems"] = [];
  for (const [target, one] of runs) {
    const report = await evaluateGeneval(one);
    const { overall, overall_interval, tasks } = report.summary as Summary;
    problems.push(
      ...report.problems.map((problem) => ({ ...problem, path: join(`${reward}-${target}`, problem.path) })),
    );
    points.push({
      target,
      folder: one.images,
      overall,
      overall_interval,
      tasks: Object.fromEntries(Object.entries(tasks).map(([tag, { accuracy }]) => [tag, accuracy])),
      scores: {},
    });
  }
  if (score) {
    await run.resources.dispose(); // scorers need the memory
    const scores = await scoreShared(
      points.map(({ folder }) => folder),
      score,
      run,
    );
    points.forEach((point, i) => {
      point.scores = scores[i]!;
    });
  }
  const files = { json: join(output, "sweep.json"), chart: join(output, "sweep.png") };
  const isPublished = run.compare && reward === "aesthetic_score" && String(targets) === String(SWEEP_TARGETS);
  const chart = sweepChart(reward, points, isPublished ? PUBLISHED_SWEEP : null);
  writeFileAtomic(files.chart, sheetPng(await chart.toImage(), `a sweep of ${reward}`), { overwrite: true });
  writeFileAtomic(files.json, `${JSON.stringify({ reward, points }, null, 2)}\n`, { overwrite: true });
  return { reward, points, files, problems };
}

const PANEL = { width: 420, height: 300 };
const PLOT = { left: 56, right: 16, top: 44, bottom: 44 };
const INK = { axis: "#444444", grid: "#dddddd", own: "#1f5fbf", published: "#c26b00", band: "#9dbbe6" };

/** GenEval, with its intervals and the published curve, and a panel for each scorer. */
function sweepChart(reward: string, points: readonly SweepPoint[], published: readonly number[] | null): Chart {
  const scorers = Object.keys(points[0]?.scores ?? {});
  const panels = [
    {
      title: "GenEval",
      values: points.map(({ overall }) => overall),
      intervals: points.map(({ overall_interval }) => overall_interval),
      published,
    },
    ...scorers.map((name) => ({
      title: name,
      values: points.map(({ scores }) => scores[name] ?? Number.NaN),
      intervals: null,
      published: null,
    })),
  ];
  const chart = new Chart(panels.length * PANEL.width, PANEL.height);
  panels.forEach(({ title, values, intervals, published }, i) => {
    const targets = points.map(({ target }) => target);
    const all = [...values, ...(intervals ?? []).flatMap((one) => one ?? []), ...(published ?? [])];
    const finite = all.filter(Number.isFinite);
    const [low, high] = finite.length > 0 ? [Math.min(...finite), Math.max(...finite)] : [0, 1];
    const pad = (high - low) * 0.08 || 0.01;
    const [x0, x1] = [i * PANEL.width + PLOT.left, (i + 1) * PANEL.width - PLOT.right];
    const [y0, y1] = [PANEL.height - PLOT.bottom, PLOT.top];
    const [first, last] = [Math.min(...targets), Math.max(...targets)];
    const across = (target: number) => x0 + ((target - first) / (last - first || 1)) * (x1 - x0);
    const up = (value: number) => y0 - ((value - low + pad) / (high - low + 2 * pad)) * (y0 - y1);
    const small = { size: 10, colour: INK.axis };
    chart.words(title, (x0 + x1) / 2, 16, { size: 13, bold: true, align: "centre" });
    for (const value of ticks(low - pad, high + pad, 5)) {
      chart.line(
        [
          [x0, up(value)],
          [x1, up(value)],
        ],
        INK.grid,
      );
      chart.words(String(value), x0 - 6, up(value), { ...small, align: "right" });
    }
    for (const target of targets) chart.words(String(target), across(target), y0 + 12, { ...small, align: "centre" });
    chart.words(`target of ${reward}`, (x0 + x1) / 2, y0 + 30, { ...small, align: "centre" });
    chart.line(
      [
        [x0, y1],
        [x0, y0],
        [x1, y0],
      ],
      INK.axis,
    );
    intervals?.forEach((interval, k) => {
      if (interval === null) return;
      const [from, to] = interval;
      const x = across(targets[k]!);
      chart.line(
        [
          [x, up(from)],
          [x, up(to)],
        ],
        INK.band,
        3,
      );
    });
    if (published) {
      chart.line(
        published.map((value, k) => [across(targets[k]!), up(value)] as const),
        INK.published,
      );
      chart.words("published", x0 + 6, y1 - 12, { size: 10, colour: INK.published });
    }
    chart.line(
      values.map((value, k) => [across(targets[k]!), up(value)] as const),
      INK.own,
      2,
    );
    values.forEach((value, k) => {
      if (Number.isFinite(value)) chart.rectangle(across(targets[k]!) - 3, up(value) - 3, 6, 6, INK.own);
    });
  });
  return chart;
}
