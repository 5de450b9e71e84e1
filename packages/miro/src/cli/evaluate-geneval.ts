/** `miro evaluate geneval`. Parses, calls, prints. */
import { counted } from "../numbers.js";
import "./extensions.js";
import "../emoji/register-suite.js";
import type { Interval } from "../evaluation/bootstrap.js";
import { ColourClassifier } from "../evaluation/geneval/colours.js";
import { judgeFile } from "../evaluation/geneval/judge-file.js";
import { evaluateGeneval } from "../evaluation/geneval/run/evaluate.js";
import {
  type EvaluationReport,
  type EvaluationRun,
  REPORTED,
  type Reported,
  type Stage,
} from "../evaluation/geneval/run/evaluation-run.js";
import { problemCounts } from "../evaluation/geneval/run/image-folder.js";
import { Resources } from "../evaluation/geneval/run/resources.js";
import { type Sweep, type SweepReport, sweepTarget } from "../evaluation/geneval/run/sweep.js";
import { summaryText } from "../evaluation/geneval/summary.js";
import { scoreFolder, tryScorers } from "../evaluation/rewards/score-folder.js";
import { parseAxis } from "../evaluation/sweep/axis.js";
import { option } from "../message.js";
import { declare, refuseWithout } from "./add-options.js";
import type { CliContext, Register } from "./context.js";
import { type GenevalOptions, type GivenGeneval, genevalSchema } from "./evaluate-geneval-options.js";
import { dryRun } from "./evaluate-geneval-plan.js";
import { constantsOf, type GenevalRequest, requestOf } from "./evaluate-geneval-request.js";
import { helpText } from "./help-text.js";
import { SAME_COMMAND, untilStopped } from "./interruption.js";
import { loadPipeline } from "./model-options.js";
import { Progress, tellerOf } from "./progress.js";

const EXAMPLES = `
Examples:
  miro evaluate geneval --prompts emoji                   the bundled model on its own world, two minutes
  miro evaluate geneval --model nicolas-dufour/miro --detector mask2former.pth --device cuda --preset published-68
  miro evaluate geneval --model nicolas-dufour/miro --detector mask2former.pth --reward aesthetic_score=0.625
  miro evaluate geneval --checkpoint runs/mine --detector mask2former.pth --tasks counting,position
  miro evaluate geneval --images pictures --detector mask2former.pth --clip openai/clip-vit-large-patch14
  miro evaluate geneval --prompts emoji --sweep sharpness=0,0.5,1 --scorers sharpness
  miro evaluate geneval --only summary --outfile results.jsonl        upstream's file or ours
  miro evaluate geneval --prompts emoji --dry-run
  miro evaluate geneval --judge detections.json --json

Everything is kept in --outdir, in the form of GenEval's own programs: 00000/metadata.jsonl, 00000/samples/0000.png,
hparams.json, results.jsonl; beside them detections/, colours/, summary.json, summary.md and failures.png. The same
command goes on where it was stopped. Several processes with the same command share the work, such as a SLURM array.

Presets: published-68 is 50 steps, guidance 7, all reward targets 1; published-75 is the same with aesthetic_score=0.625.
The detector is mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco_20220504_001756-c9d0c4f2.pth of OpenMMLab.

A file of detections: {"cases": [{"name": "a bench", "metadata": {"tag": "single_object", "include": [{"class": "bench",
"count": 1}], "prompt": "a photo of a bench"}, "detections": {"bench": [[40, 45, 80, 75, 0.8]]}, "colours": {}}]}. Boxes
are x1, y1, x2, y2 and a score; colours are those of the kept objects of a class, best first.
`;

export const register: Register = (command, context) => {
  declare(command, genevalSchema, (options, given, typed) => {
    if (options.sweep === undefined) refuseWithout(option("sweep"), typed, ["scorers", "weights"]);
    return geneval(options, given, context);
  }).addHelpText("after", helpText(EXAMPLES));
};

async function geneval(options: GenevalOptions, given: GivenGeneval, context: CliContext): Promise<void> {
  const constants = constantsOf(options.options);
  if (options.judge !== undefined) {
    judgeDetections(options.judge, options.options, options.json, context);
    return;
  }
  const progress = await Progress.for(context);
  const request = await requestOf(options, given, constants, tellerOf(context, progress));
  await using resources = new Resources({
    pipeline:
      request.model === null ? undefined : () => loadPipeline(request.model!, request.loading, context, progress),
    detector: () =>
      request.suite.loadDetector({
        source: options.detector,
        device: options.device,
        dtype: options.detectorDtype,
        resizeU8: options.resizeU8,
        cacheDir: options.cacheDir,
        signal: context.signal,
      }),
    colours: () =>
      ColourClassifier.load({
        clip: options.clip,
        device: options.device,
        dtype: options.clipDtype,
        cacheDir: options.cacheDir,
        signal: context.signal,
        ...constants.cut,
      }),
  });
  let at = "";
  const left = () => `${at}${SAME_COMMAND}`;
  try {
    const run: EvaluationRun = {
      ...request.run,
      resources,
      signal: context.signal,
      onProgress: (what, done, total) => {
        at = `${what}: ${done} of ${total}; `;
        progress.update(stageOf(what, request.run), done, total);
      },
      onMessage: tellerOf(context, progress),
    };
    if (options.dryRun) {
      const asked = { json: options.json, clip: options.clip !== undefined };
      context.stdout(await dryRun(run, request.suite, asked));
      return;
    }
    if (options.sweep !== undefined) {
      const sweep = sweepOf(options.sweep, options, context);
      const report = await untilStopped(context, left, () => sweepTarget(run, sweep));
      progress.stop();
      printSweep(report, options.json, context);
      return;
    }
    const report = await untilStopped(context, left, () => evaluateGeneval(run));
    progress.stop();
    print(report, run, options.json, context);
  } finally {
    progress.stop();
  }
}

/** A stage with its place among those that the evaluation goes through. */
function stageOf(what: Reported, { only, draw }: GenevalRequest["run"]): string {
  const stages = REPORTED.filter((stage) => draw || stage !== "drawing");
  return only === undefined ? `${stages.indexOf(what) + 1} of ${stages.length}: ${what}` : what;
}

/** `aesthetic_score`, or `aesthetic_score=0,0.5,1` */
function sweepOf(text: string, { scorers, weights, device, cacheDir }: GenevalOptions, { signal }: CliContext): Sweep {
  const [reward = "", values] = text.split(/=(.*)/s) as [string, string?];
  const { points } = parseAxis(`reward.${reward}=${values ?? "0:1:0.125"}`, "--sweep", []);
  const options = { scorers, weights, device, cacheDir, signal };
  const score = async (folder: string) => (await scoreFolder(folder, options)).summary.per_image_mean;
  const scoring = scorers && { score, tryScorers: () => tryScorers(options) };
  return { reward, targets: points.map(({ value }) => Number(value)), ...scoring };
}

function judgeDetections(path: string, options: GenevalOptions["options"], asJson: boolean, context: CliContext): void {
  const { bgcolor, crop, ...rules } = options;
  const verdicts = judgeFile(path, rules);
  if (asJson) {
    context.stdout(`${JSON.stringify({ verdicts })}\n`);
    return;
  }
  for (const { name, correct, reason } of verdicts) {
    const why = correct ? "" : `: ${reason.replaceAll("\n", "; ")}`;
    context.stdout(`${correct ? "correct" : "wrong  "}  ${name}${why}\n`);
  }
  context.stdout(`${verdicts.filter(({ correct }) => correct).length} of ${verdicts.length} correct\n`);
}

function printSweep({ reward, points, files, problems }: SweepReport, asJson: boolean, context: CliContext): void {
  warnOf(problems, context);
  if (asJson) {
    context.stdout(`${JSON.stringify({ reward, points, problems: problemCounts(problems), files })}\n`);
    return;
  }
  for (const { target, overall, overall_interval, scores } of points) {
    const means = Object.entries(scores).map(
      ([key, mean]) => `, ${key} ${mean === null ? "none" : mean.toPrecision(4)}`,
    );
    const interval = overall_interval && ` (${intervalText(overall_interval)})`;
    context.stdout(`${reward} ${target}: ${overall.toFixed(5)}${interval ?? ""}${means.join("")}\n`);
  }
  for (const file of Object.values(files)) context.stdout(`${file}\n`);
}

function intervalText(interval: Interval): string {
  return interval.map((bound) => bound.toFixed(5)).join(" to ");
}

function warnOf(problems: EvaluationReport["problems"], context: CliContext): void {
  for (const [kind, { count, first }] of Object.entries(problemCounts(problems))) {
    context.stderr(`warning: ${kind}, ${count}:\n${first.map((one) => `  ${one}\n`).join("")}`);
    if (count > first.length) context.stderr(`  and ${count - first.length} more\n`);
  }
}

function print(report: EvaluationReport, run: EvaluationRun, asJson: boolean, context: CliContext): void {
  const { drawn, detected, detector, problems, summary, files } = report;
  warnOf(problems, context);
  if (asJson) {
    const json = {
      folder: run.images,
      drawn,
      detected,
      detector,
      problems: problemCounts(problems),
      files,
      ...summary,
    };
    context.stdout(`${JSON.stringify(json)}\n`);
    return;
  }
  const does = (stage: Stage) => run.only === undefined || run.only === stage;
  if (run.draw && does("generate")) context.stdout(`${counted(drawn, "picture")} drawn\n`);
  if (does("detect")) context.stdout(`${counted(detected, "picture")} looked at\n`);
  if (summary) {
    const interval = summary.overall_interval
      ? intervalText(summary.overall_interval)
      : "none, since a task has one prompt alone";
    context.stdout(`\n${summaryText(summary)}95 % interval over prompts: ${interval}\n`);
    if (detector !== undefined) context.stdout(`detector: ${detector}\n`);
    context.stdout("\n");
  }
  for (const file of Object.values(files)) context.stdout(`${file}\n`);
}
