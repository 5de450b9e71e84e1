/** What `miro evaluate geneval` is asked for, made of its options: an evaluation without its models. */
import { existsSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { InvalidInputError, invalid, MiroError } from "../errors.js";
import { parseBackground } from "../evaluation/geneval/colours.js";
import type { PromptMetadata } from "../evaluation/geneval/metadata.js";
import { type PromptSet, readLongPrompts, readPromptSet } from "../evaluation/geneval/prompts.js";
import { type Rules, rulesSchema } from "../evaluation/geneval/rules.js";
import type { EvaluationRun } from "../evaluation/geneval/run/evaluation-run.js";
import { readHparams } from "../evaluation/geneval/run/hparams.js";
import { type PromptFolder, readImageFolder } from "../evaluation/geneval/run/image-folder.js";
import { type Suite, suiteOf, weightsKey } from "../evaluation/geneval/run/suites.js";
import { about, message } from "../message.js";
import { nearest } from "../nearest.js";
import { parseOptions } from "../options.js";
import { modelOrBundled } from "../pipeline/loading/bundled.js";
import { loadSchema } from "../pipeline/loading/load-options.js";
import { isRun } from "../pipeline/loading/run-checkpoint.js";
import { pinnedModel } from "../pipeline/loading/run-model.js";
import { mergeOptions } from "../pipeline/requests/plan-pictures.js";
import type { PromptOptions } from "../pipeline/requests/prompt-file.js";
import type { Given } from "./add-options.js";
import { type GenevalOptions, type GivenGeneval, settingsSchema } from "./evaluate-geneval-options.js";
import { optionsOf } from "./model-options.js";

const PUBLISHED: PromptOptions = { steps: 50, guidanceScale: 7, guidanceType: "constant", sampler: "euler" };
const PRESETS: Readonly<Record<"published-68" | "published-75", PromptOptions>> = {
  "published-68": PUBLISHED,
  "published-75": { ...PUBLISHED, rewardTargets: { aesthetic_score: 0.625 } },
};

/** The rules' constants, and how objects are cut out for their colours. */
export function constantsOf({ bgcolor, crop, ...rules }: GenevalOptions["options"]): {
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

/** @throws InvalidInputError for a task that no prompt has: its part of the figures would be missing in silence */
function checkTasks(tasks: GenevalOptions["tasks"], prompts: readonly { metadata: PromptMetadata }[]): void {
  const known = [...new Set(prompts.map(({ metadata }) => metadata.tag))];
  const unknown = tasks?.find((task) => !known.includes(task));
  if (unknown !== undefined) throw invalid("tasks", `tasks of the prompts, ${known.join(", ")}`, unknown);
}

/** An evaluation without its models. */
export interface GenevalRequest {
  suite: Suite;
  /** Null where nothing is drawn. */
  model: string | null;
  loading: Given<typeof loadSchema>;
  run: Omit<EvaluationRun, "resources" | "signal" | "onProgress" | "onMessage">;
}

export async function requestOf(
  options: GenevalOptions,
  given: GivenGeneval,
  { rules, cut }: ReturnType<typeof constantsOf>,
  onMessage: (message: string) => void,
): Promise<GenevalRequest> {
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
  const summed = only === "summary" && named.length === 0 ? resultsFolder(options) : undefined;
  const name =
    summed !== undefined
      ? drawnBy(summed)
      : images !== undefined
        ? basename(resolve(images))
        : nameOf(model!, checkpoint);
  const detects = only === undefined || only === "detect";
  if (detects && suite.needsWeights && options.detector === undefined && !options.dryRun)
    throw invalid(
      "detector",
      "the weights of GenEval's detector, a file, folder or repository (see --help)",
      message`none`,
    );
  const folder = images ?? options.outdir ?? summed ?? defaultFolder(name, suite, options);
  const settings = settingsOf(options, given);
  const loading = optionsOf(loadSchema, given);
  const { threads: _, cacheDir: __, device: ___, ...decisive } = loading;
  const others = images === undefined || asked.isChosen ? undefined : promptsOfOthers(images, asked.set);
  const includes = (index: number, tag: string) =>
    (tasks === undefined || tasks.includes(tag)) &&
    (promptRange === undefined || (index >= promptRange[0] && index <= promptRange[1]));
  const records = others ?? asked.set.prompts.map((metadata, index) => ({ index, metadata }));
  if (summed === undefined) checkTasks(tasks, records);
  const judged = records.flatMap(({ index, metadata }) => (includes(index, metadata.tag) ? [metadata] : []));
  if (only !== "summary") tellUnknown(judged, suite.classes?.(options.detector), onMessage);
  return {
    suite,
    model: draws ? model : null,
    loading,
    run: {
      images: folder,
      output: options.outdir ?? folder,
      outfile: options.outfile,
      set: others ? undefined : asked.set,
      includes,
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
      compare: suite.compare && options.metadataFile === undefined && !others,
    },
  };
}

/** Unknown classes that are named. */
const MOST_TOLD = 10;

/** Says which objects are asked for that the detector cannot find: no picture of such a prompt is ever right. */
function tellUnknown(
  prompts: readonly PromptMetadata[],
  classes: readonly string[] | undefined,
  onMessage: (message: string) => void,
): void {
  if (classes === undefined) return;
  const known = new Set(classes);
  const names = new Set(prompts.flatMap(({ include }) => include.map((one) => one.class)));
  for (const name of [...names].filter((name) => !known.has(name)).slice(0, MOST_TOLD)) {
    const [meant] = nearest(name, classes);
    const question = meant === undefined ? "" : `; did you mean ${JSON.stringify(meant)}?`;
    onMessage(`warning: the detector knows no class ${JSON.stringify(name)} and never finds it${question}`);
  }
}

async function detectorKeyOf({ detector, detectorDtype, resizeU8 }: GenevalOptions, { name }: Suite): Promise<string> {
  const weights = detector === undefined ? "included" : await weightsKey(detector, "detector");
  const dtype = detectorDtype === "float32" ? "" : `, ${detectorDtype}`;
  return `${name}, weights ${weights}${dtype}${resizeU8 ? ", whole grey levels" : ""}`;
}

function promptsOf({ metadataFile, longPrompts }: GenevalOptions, suite: Suite): { set: PromptSet; isChosen: boolean } {
  if (metadataFile !== undefined && longPrompts !== undefined)
    throw invalid("longPrompts", "no --metadata-file with it", longPrompts);
  if (metadataFile !== undefined) return { set: readPromptSet(metadataFile), isChosen: true };
  if (longPrompts !== undefined) return { set: readLongPrompts(longPrompts), isChosen: true };
  return { set: suite.prompts(), isChosen: false };
}

/** Prompts of a folder that are others than those of a set, up to some that are wrong; they are taken as they are. */
function promptsOfOthers(images: string, set: PromptSet): PromptFolder[] | undefined {
  const { prompts } = readImageFolder(images);
  return 2 * readImageFolder(images, set).prompts.length > prompts.length ? undefined : prompts;
}

function modelOf({ model, checkpoint }: GenevalOptions, onMessage: (message: string) => void): string {
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

/** Where verdicts stand that are only summed up; undefined where the default folder of a model is meant. */
function resultsFolder({ outfile, outdir }: GenevalOptions): string | undefined {
  return outfile === undefined ? outdir : dirname(outfile);
}

/** The model that the pictures of a folder are recorded to be of, else the folder's name. */
function drawnBy(folder: string): string {
  try {
    const checkpoint = readHparams(folder)?.checkpoint;
    if (typeof checkpoint === "string" && checkpoint !== "") return basename(checkpoint);
  } catch (error) {
    if (!(error instanceof MiroError)) throw error; // a file that only gives a name
  }
  return basename(resolve(folder));
}

function resolveIfFolder(model: string): string {
  return existsSync(model) ? resolve(model) : model;
}

function defaultFolder(name: string, suite: Suite, { checkpoint }: GenevalOptions): string {
  if (checkpoint !== undefined) return join(checkpoint, "geneval_images");
  return join("geneval", suite.compare ? name : `${name}-${suite.name}`);
}

function settingsOf({ preset, cfg, guidanceScale }: GenevalOptions, given: GivenGeneval): PromptOptions {
  if (cfg !== undefined && guidanceScale !== undefined && cfg !== guidanceScale)
    throw invalid("cfg", `the same as --guidance ${guidanceScale}`, cfg);
  const chosen: PromptOptions = {
    ...optionsOf(settingsSchema, given),
    ...(cfg !== undefined && { guidanceScale: cfg }),
  };
  return preset === undefined ? chosen : mergeOptions(PRESETS[preset], chosen);
}
