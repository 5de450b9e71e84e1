/** `miro evaluate geneval`. Parses, calls, prints. */
import "./extensions.js";
import "../emoji/register-suite.js";
import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { z } from "zod";
import { InvalidInputError, invalid } from "../errors.js";
import { ColourClassifier, parseBackground } from "../evaluation/geneval/colours.js";
import { judgeFile } from "../evaluation/geneval/judge-file.js";
import { type PromptSet, readLongPrompts, readPromptSet } from "../evaluation/geneval/prompts.js";
import { type Rules, rulesSchema } from "../evaluation/geneval/rules.js";
import {
  counted,
  type EvaluationReport,
  type EvaluationRun,
  evaluateGeneval,
  STAGES,
  type Stage,
} from "../evaluation/geneval/run/evaluate.js";
import { readImageFolder } from "../evaluation/geneval/run/image-folder.js";
import { Resources } from "../evaluation/geneval/run/resources.js";
import { type Suite, suiteNames, suiteOf, weightsKey } from "../evaluation/geneval/run/suites.js";
import { type Sweep, type SweepReport, sweepTarget } from "../evaluation/geneval/run/sweep.js";
import { summaryText } from "../evaluation/geneval/summary.js";
import { scoreFolder, scoreFolderSchema } from "../evaluation/rewards/score-folder.js";
import { parseAxis } from "../evaluation/sweep/axis.js";
import { about, message, option } from "../message.js";
import { commaSeparated, declarationOf, field, flag, parseOptions } from "../options.js";
import { modelOrBundled } from "../pipeline/loading/bundled.js";
import { COMPUTE_DTYPES } from "../pipeline/loading/device.js";
import { loadSchema } from "../pipeline/loading/load-options.js";
import { isRun } from "../pipeline/loading/run-checkpoint.js";
import { pinnedModel } from "../pipeline/loading/run-model.js";
import { mergeOptions } from "../pipeline/requests/plan-pictures.js";
import { type PromptOptions, promptOptionsSchema } from "../pipeline/requests/prompt-file.js";
import { loadScorerSchema } from "../rewards/registry.js";
import { declare, type Given, refuseWithout } from "./add-options.js";
import { json } from "./common-options.js";
import type { CliContext, Register } from "./context.js";
import { dryRun } from "./evaluate-geneval-plan.js";
import { helpText } from "./help-text.js";
import { SAME_COMMAND, untilStopped } from "./interruption.js";
import { loadPipeline, modelSchema, optionsOf } from "./model-options.js";
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

const path = z.string().min(1).optional();
/** The options of `generate` that hold for all pictures. */
const settingsSchema = promptOptionsSchema.omit({ imagesPerPrompt: true });

const PUBLISHED: PromptOptions = { steps: 50, guidanceScale: 7, guidanceType: "constant", sampler: "euler" };
const PRESETS: Readonly<Record<"published-68" | "published-75", PromptOptions>> = {
  "published-68": PUBLISHED,
  "published-75": { ...PUBLISHED, rewardTargets: { aesthetic_score: 0.625 } },
};

const genevalSchema = z.strictObject({
  ...modelSchema.shape,
  checkpoint: field(path, {
    expected: "the folder of a training",
    help: "the model of a training, instead of --model: what it has exported, else its newest checkpoint",
    flag: "--checkpoint <run>",
  }),
  images: field(path, {
    expected: "a folder",
    help: "judge the pictures of a folder instead of drawing some",
    flag: "--images <dir>",
  }),
  prompts: field(z.string().default("geneval"), {
    expected: () => `one of ${suiteNames().join(", ")}`,
    help: () =>
      `what is asked for: ${suiteNames()
        .map((name) => `${name} (${suiteOf(name).summary})`)
        .join("; ")}`,
    flag: "--prompts <name>",
  }),
  metadataFile: field(path, {
    expected: "a file",
    help: "other prompts, in the form of GenEval's evaluation_metadata.jsonl",
    flag: "--metadata-file <file.jsonl>",
    otherwise: "those of --prompts",
  }),
  longPrompts: field(path, {
    expected: "a file",
    help: "longer texts for GenEval's prompts, such as upstream's evaluation_metadata_long.jsonl",
    flag: "--long-prompts <file.jsonl>",
  }),
  outdir: field(path, {
    expected: "a folder",
    help: "folder of the pictures and of everything that is found out",
    flag: "--outdir <dir>",
    writes: "folder",
    otherwise: "./geneval/MODEL, RUN/geneval_images, or the folder of --images",
  }),
  outfile: field(path, {
    expected: "a file",
    help: "verdicts, one picture a line",
    flag: "--outfile <file.jsonl>",
    writes: "file",
    otherwise: "results.jsonl in --outdir",
  }),
  samples: field(z.int().min(1).max(1000).optional(), {
    expected: "an integer from 1 to 1000",
    help: "pictures of each prompt",
    flag: "--n-samples <n>",
    otherwise: "4, of emoji 1",
  }),
  preset: field(z.enum(["published-68", "published-75"]).optional(), {
    expected: "published-68 or published-75",
    help: "settings of the published scores (below); other flags override them",
    flag: "--preset <name>",
  }),
  ...settingsSchema.shape,
  cfg: field(z.number().optional(), {
    expected: "a finite number",
    help: "the same as --guidance",
    flag: "--cfg <w>",
  }),
  batched: flag(
    "compute the pictures of a batch together: faster on a GPU, but the last bits then depend on the batch",
    "--batched",
  ),
  batchSize: field(z.int().min(1).max(4096).default(4), {
    expected: "an integer of at least 1",
    help: "with --batched: pictures computed together",
    flag: "--batch-size <n>",
  }),
  seed: field(z.int().min(0).default(42), {
    expected: "an integer of at least 0",
    help: "seed; the noise of a picture follows from it, the prompt and the picture's number alone",
    flag: "--seed <n>",
  }),
  tasks: field(z.array(z.string().min(1)).min(1).optional(), {
    expected: "tags of prompts, with commas between them",
    help: "prompts of these tasks only, such as counting,position",
    flag: "--tasks <list>",
    otherwise: "all",
    parse: commaSeparated,
  }),
  promptRange: field(z.tuple([z.int().min(0), z.int().min(0)]).optional(), {
    expected: "FIRST-LAST with 0 <= FIRST <= LAST",
    help: "prompts of these places only, counted from 0, the last included",
    flag: "--prompt-range <first-last>",
    otherwise: "all",
    parse: toRange,
  }),
  only: field(z.enum(STAGES).optional(), {
    expected: `one of ${STAGES.join(", ")}`,
    help: "one step alone",
    flag: "--only <step>",
    otherwise: "all",
  }),
  detector: field(path, {
    expected: "a file, a folder or a repository",
    help: "weights of Mask2Former with Swin-S (below)",
    flag: "--detector <file|dir>",
  }),
  detectorDtype: field(z.enum(COMPUTE_DTYPES).default("float32"), {
    expected: `one of ${COMPUTE_DTYPES.join(", ")}`,
    help: "what the detector's backbone computes in; verdicts turn on small differences of scores",
    flag: "--detector-dtype <dtype>",
  }),
  resizeU8: flag(
    "round pictures to whole grey levels before the detector sees them, as the first GenEval did",
    "--resize-u8",
  ),
  clip: field(path, {
    expected: "a folder or a repository",
    help: "OpenAI's CLIP ViT-L/14, which tells colours",
    flag: "--clip <dir>",
    otherwise: "openai/clip-vit-large-patch14",
  }),
  clipDtype: field(z.enum(COMPUTE_DTYPES).default("auto"), {
    expected: `one of ${COMPUTE_DTYPES.join(", ")}`,
    help: "what that CLIP computes in",
    flag: "--clip-dtype <dtype>",
  }),
  options: field(z.record(z.string(), z.union([z.number(), z.string()])).default({}), {
    expected: "key=value",
    help:
      "constant of the rules: threshold, counting_threshold, max_objects, max_overlap, position_threshold, " +
      "bgcolor, crop; repeatable",
    flag: "--options <key=value>",
    otherwise: "GenEval's",
  }),
  failures: field(z.int().min(0).max(500).default(36), {
    expected: "an integer from 0 to 500",
    help: "pictures on the sheet of failures",
    flag: "--failures <n>",
  }),
  sweep: field(z.string().min(1).optional(), {
    expected: "the key of a reward, or KEY=VALUES",
    help: "evaluate at several targets of a reward, each in a folder of its own: KEY (0 to 1 in steps of 0.125) or KEY=0,0.5,1",
    flag: "--sweep <reward>",
  }),
  scorers: field(scoreFolderSchema.shape.scorers, {
    ...declarationOf(scoreFolderSchema.shape.scorers),
    help: "with --sweep: score the pictures too, as miro evaluate rewards does; separated by commas",
    otherwise: "none",
  }),
  weights: loadScorerSchema.shape.weights,
  overwrite: flag("replace pictures of other settings", "--overwrite"),
  dryRun: flag("say what would be done, and how many hours that takes", "--dry-run"),
  judge: field(path, {
    expected: "a file",
    help: "judge the detections of a JSON file, without pictures",
    flag: "--judge <file.json>",
  }),
  json,
});

type Options = z.output<typeof genevalSchema>;

export const register: Register = (command, context) => {
  declare(command, genevalSchema, (options, given, typed) => {
    if (options.sweep === undefined) refuseWithout(option("sweep"), typed, ["scorers", "weights"]);
    return geneval(options, given, context);
  }).addHelpText("after", helpText(EXAMPLES));
};

async function geneval(options: Options, given: Given<typeof genevalSchema>, context: CliContext): Promise<void> {
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
function stageOf(what: string, { only, draw }: Request["run"]): string {
  const stages = [...(draw ? ["drawing"] : []), "finding objects", "telling colours"];
  return only === undefined ? `${stages.indexOf(what) + 1} of ${stages.length}: ${what}` : what;
}

/** `aesthetic_score`, or `aesthetic_score=0,0.5,1` */
function sweepOf(text: string, { scorers, weights, device, cacheDir }: Options, { signal }: CliContext): Sweep {
  const [reward = "", values] = text.split(/=(.*)/s) as [string, string?];
  const { points } = parseAxis(`reward.${reward}=${values ?? "0:1:0.125"}`, "--sweep", []);
  const score = async (folder: string) => {
    const { summary } = await scoreFolder(folder, { scorers, weights, device, cacheDir, signal });
    return summary.per_image_mean;
  };
  return { reward, targets: points.map(({ value }) => Number(value)), ...(scorers && { score }) };
}

/** `3-17` */
function toRange(text: string): [number, number] | undefined {
  const match = /^(\d+)-(\d+)$/.exec(text.trim());
  return match && Number(match[1]) <= Number(match[2]) ? [Number(match[1]), Number(match[2])] : undefined;
}

/** The rules' constants, and how objects are cut out for their colours. */
function constantsOf({ bgcolor, crop, ...rules }: Options["options"]): {
  rules: Rules;
  cut: { background?: string; crop?: boolean };
} {
  for (const [key, flag] of [
    ["model", "--detector"],
    ["clip_model", "--clip"],
  ] as const)
    if (key in rules) throw invalid(`options.${key}`, `the weights by ${flag}`, rules[key]);
  if (crop !== undefined && crop !== 0 && crop !== 1) throw invalid("options.crop", "0 or 1", crop);
  if (bgcolor !== undefined) parseBackground(String(bgcolor));
  return {
    rules: parseOptions(rulesSchema, rules, "options"),
    cut: {
      ...(bgcolor !== undefined && { background: String(bgcolor) }),
      ...(crop !== undefined && { crop: crop === 1 }),
    },
  };
}

function judgeDetections(path: string, options: Options["options"], asJson: boolean, context: CliContext): void {
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

/** An evaluation without its models. */
interface Request {
  suite: Suite;
  /** Null where nothing is drawn. */
  model: string | null;
  loading: Given<typeof loadSchema>;
  run: Omit<EvaluationRun, "resources" | "signal" | "onProgress" | "onMessage">;
}

async function requestOf(
  options: Options,
  given: Given<typeof genevalSchema>,
  { rules, cut }: ReturnType<typeof constantsOf>,
  onMessage: (message: string) => void,
): Promise<Request> {
  const { only, images, checkpoint, tasks, promptRange } = options;
  const named = (["model", "checkpoint", "images"] as const).filter((key) => options[key] !== undefined);
  if (named.length > 1) throw invalid(named[1]!, `no --${named[0]} with it`, options[named[1]!]);
  const suite = suiteOf(options.prompts);
  if (!suite.needsWeights && options.detectorDtype !== "float32")
    throw invalid(
      "detectorDtype",
      `float32 with --prompts ${suite.name}, whose detector is small`,
      options.detectorDtype,
    );
  const asked = promptsOf(options, suite);
  const draws = images === undefined && (only === undefined || only === "generate");
  const model = images !== undefined ? null : modelOf(options, onMessage);
  const name = images !== undefined ? basename(resolve(images)) : nameOf(model!, checkpoint);
  const detects = only === undefined || only === "detect";
  if (detects && suite.needsWeights && options.detector === undefined && !options.dryRun)
    throw new InvalidInputError(
      message`${about("detector")}: expected the weights of GenEval's detector, a file, folder or repository (see --help); received none`,
    );
  const folder = images ?? options.outdir ?? defaultFolder(name, suite, options);
  const settings = settingsOf(options, given);
  const loading = optionsOf(loadSchema, given);
  const { threads: _, cacheDir: __, device: ___, ...decisive } = loading;
  const isOther = images !== undefined && !asked.isChosen && !isMostlyOf(images, asked.set);
  return {
    suite,
    model: draws ? model : null,
    loading,
    run: {
      images: folder,
      output: options.outdir ?? folder,
      outfile: options.outfile,
      set: isOther ? undefined : asked.set,
      includes: (index, tag) =>
        (tasks === undefined || tasks.includes(tag)) &&
        (promptRange === undefined || (index >= promptRange[0] && index <= promptRange[1])),
      ...(draws && {
        draw: {
          samples: options.samples ?? suite.samples,
          seed: options.seed,
          options: settings,
          batchSize: options.batched ? options.batchSize : undefined,
          overwrite: options.overwrite,
          model: { model: resolveIfFolder(model!), ...decisive },
        },
      }),
      only,
      rules,
      detectorKey: await detectorKeyOf(options, suite),
      colourKey: JSON.stringify({
        clip: await weightsKey(options.clip ?? "openai/clip-vit-large-patch14", "clip"),
        ...cut,
        ...(options.clipDtype !== "auto" && { dtype: options.clipDtype }),
      }),
      failures: options.failures,
      name,
      compare: suite.compare && options.metadataFile === undefined,
    },
  };
}

async function detectorKeyOf({ detector, detectorDtype, resizeU8 }: Options, { name }: Suite): Promise<string> {
  const weights = detector === undefined ? "included" : await weightsKey(detector, "detector");
  const dtype = detectorDtype === "float32" ? "" : `, ${detectorDtype}`;
  return `${name}, weights ${weights}${dtype}${resizeU8 ? ", whole grey levels" : ""}`;
}

function promptsOf({ metadataFile, longPrompts }: Options, suite: Suite): { set: PromptSet; isChosen: boolean } {
  if (metadataFile !== undefined && longPrompts !== undefined)
    throw invalid("longPrompts", "no --metadata-file with it", longPrompts);
  if (metadataFile !== undefined) return { set: readPromptSet(metadataFile), isChosen: true };
  if (longPrompts !== undefined) return { set: readLongPrompts(longPrompts), isChosen: true };
  return { set: suite.prompts(), isChosen: false };
}

/** Whether the folder's prompts are those of a set, up to some that are wrong. Others are taken as they are. */
function isMostlyOf(images: string, set: PromptSet): boolean {
  return 2 * readImageFolder(images, set).prompts.length > readImageFolder(images).prompts.length;
}

function modelOf({ model, checkpoint }: Options, onMessage: (message: string) => void): string {
  if (checkpoint === undefined) {
    return pinnedModel(modelOrBundled(model), onMessage);
  }
  const folders = [join(checkpoint, "export"), checkpoint];
  const found = folders.find((folder) => existsSync(join(folder, "config.json")));
  if (found !== undefined) return found;
  if (isRun(checkpoint)) return pinnedModel(checkpoint, onMessage);
  throw new InvalidInputError(
    message`${about("checkpoint")}: ${checkpoint} holds no model: neither checkpoints of a run, nor export/config.json, which a training writes at its end, nor config.json`,
  );
}

function nameOf(model: string, checkpoint: string | undefined): string {
  // A checkpoint of a run: RUN/checkpoints/step-…
  if (isRun(model)) return `${basename(resolve(model, "../.."))}-${basename(model)}`;
  return basename(resolve(checkpoint ?? model));
}

function resolveIfFolder(model: string): string {
  return existsSync(model) ? resolve(model) : model;
}

function defaultFolder(name: string, suite: Suite, { checkpoint }: Options): string {
  if (checkpoint !== undefined) return join(checkpoint, "geneval_images");
  return join("geneval", suite.compare ? name : `${name}-${suite.name}`);
}

function settingsOf({ preset, cfg, guidanceScale }: Options, given: Given<typeof genevalSchema>): PromptOptions {
  if (cfg !== undefined && guidanceScale !== undefined && cfg !== guidanceScale)
    throw invalid("cfg", `the same as --guidance ${guidanceScale}`, cfg);
  const chosen: PromptOptions = {
    ...optionsOf(settingsSchema, given),
    ...(cfg !== undefined && { guidanceScale: cfg }),
  };
  return preset === undefined ? chosen : mergeOptions(PRESETS[preset], chosen);
}

function printSweep({ reward, points, files, problems }: SweepReport, asJson: boolean, context: CliContext): void {
  warnOf(problems, context);
  if (asJson) {
    context.stdout(`${JSON.stringify({ reward, points, problems: counted(problems), files })}\n`);
    return;
  }
  for (const {
    target,
    overall,
    overall_interval: [low, high],
    scores,
  } of points) {
    const means = Object.entries(scores).map(
      ([key, mean]) => `, ${key} ${mean === null ? "none" : mean.toPrecision(4)}`,
    );
    const score = `${overall.toFixed(5)} (${low.toFixed(5)} to ${high.toFixed(5)})`;
    context.stdout(`${reward} ${target}: ${score}${means.join("")}\n`);
  }
  for (const file of Object.values(files)) context.stdout(`${file}\n`);
}

function warnOf(problems: EvaluationReport["problems"], context: CliContext): void {
  for (const [kind, { count, first }] of Object.entries(counted(problems))) {
    context.stderr(`warning: ${kind}, ${count}:\n${first.map((one) => `  ${one}\n`).join("")}`);
    if (count > first.length) context.stderr(`  and ${count - first.length} more\n`);
  }
}

function print(report: EvaluationReport, run: EvaluationRun, asJson: boolean, context: CliContext): void {
  const { drawn, detected, detector, problems, summary, files } = report;
  warnOf(problems, context);
  if (asJson) {
    const json = { folder: run.images, drawn, detected, detector, problems: counted(problems), files, ...summary };
    context.stdout(`${JSON.stringify(json)}\n`);
    return;
  }
  const does = (stage: Stage) => run.only === undefined || run.only === stage;
  if (run.draw && does("generate")) context.stdout(`${drawn} pictures drawn\n`);
  if (does("detect")) context.stdout(`${detected} pictures looked at\n`);
  if (summary) {
    const [low, high] = summary.overall_interval;
    context.stdout(`\n${summaryText(summary)}95 % interval over prompts: ${low.toFixed(5)} to ${high.toFixed(5)}\n`);
    if (detector !== undefined) context.stdout(`detector: ${detector}\n`);
    context.stdout("\n");
  }
  for (const file of Object.values(files)) context.stdout(`${file}\n`);
}
