/**
 * GenEval from end to end in one folder: pictures are drawn, objects found, colours classified, verdicts given and
 * summed up.
 *
 * Every step keeps its results in files and does what is missing, so that an evaluation goes on where it was stopped.
 * Several processes with the same folder share the work: each takes prompts that nobody has taken, and the last step is
 * done by the one that comes to it first.
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { InvalidInputError, MiroError } from "../../../errors.js";
import { makeFolder, removeIfEmpty } from "../../../files/make-folder.js";
import { removeKilledWrites } from "../../../files/whole-files.js";
import { proveWritable } from "../../../files/writable.js";
import { counted } from "../../../numbers.js";
import { SharedWork } from "../../shared-work.js";
import type { PromptMetadata } from "../metadata.js";
import { ColourStage } from "./colour-stage.js";
import { conclude, summariseFolder } from "./conclude.js";
import { Detection } from "./detect.js";
import type { EvaluationReport, EvaluationRun, Stage } from "./evaluation-run.js";
import { Generation } from "./generate.js";
import { readHparams } from "./hparams.js";
import { type ImageFolder, missingSamples, type Problem, type PromptFolder, readImageFolder } from "./image-folder.js";

/** How often the work of others is looked at. */
const POLL_MS = 250;
/**
 * Evaluates a folder. What `only` leaves out is not done.
 * @throws InvalidInputError for contradictions and for pictures of other settings
 */
export async function evaluateGeneval(run: EvaluationRun): Promise<EvaluationReport> {
  const { only, output } = run;
  const report: EvaluationReport = { drawn: 0, detected: 0, problems: [], summary: null, files: {} };
  if (only === "summary") return { ...report, ...summariseFolder(run) };
  proveWritable(output, "folder", "outdir");
  const made = makeFolder(output);
  try {
    await evaluateStages(run, report);
  } catch (error) {
    removeIfEmpty(output, made);
    throw error;
  }
  return report;
}

/** Draws, finds and judges until nothing is left, and adds up in the report what was done. */
async function evaluateStages(run: EvaluationRun, report: EvaluationReport): Promise<void> {
  const { only, output, signal, onMessage } = run;
  const does = (stage: Stage) => only === undefined || only === stage;
  for (const folder of [output, join(output, "detections"), join(output, "colours")]) removeKilledWrites(folder);
  using work = new SharedWork(output, { signal, onWait: onMessage });
  await work.tidy();
  const generation = run.draw && does("generate") ? generationOf(run, run.draw) : null;
  if (only === undefined && generation && generation.missing().length > 0) await tryJudges(run);
  let told = false;
  for (;;) {
    signal?.throwIfAborted();
    if (generation) report.drawn += await generation.drawMissing(run.resources, work);
    let left = generation?.missing().length ?? 0;
    const folder = only === "generate" ? null : present(run);
    if (folder !== null) {
      const stages = stagesOf(run, folder.prompts);
      if (does("detect")) {
        const ready = generation ? folder.prompts.filter(({ index }) => generation.isComplete(index)) : folder.prompts;
        const { detection, colours } = stagesOf(run, ready);
        report.detected += await detection.detectMissing(run.resources, work);
        if (does("judge")) await colours.classifyMissing(run.resources, work);
      } else await stages.colours.classifyMissing(run.resources, work);
      if (does("detect")) left += stages.detection.missing().length;
      if (does("judge")) left += stages.colours.missing().length;
      report.problems = folder.problems;
    }
    if (left === 0 && (folder === null || !does("judge") || (await conclude(run, folder, work, report)))) break;
    const what = left === 0 ? "the verdicts" : counted(left, "prompt");
    if (!told) onMessage?.(`waiting for another process, which works on ${what}`);
    told = true;
    await sleep(POLL_MS, undefined, signal ? { signal } : {});
  }
}

/**
 * Loads what judges the pictures, once, before they are drawn: that weights are missing or damaged is not found out
 * after hours of drawing.
 */
export async function tryJudges({ set, includes = () => true, resources }: EvaluationRun): Promise<void> {
  const asked = set?.prompts.filter(({ tag }, index) => includes(index, tag)) ?? [];
  await resources.get("detector");
  if (asked.some(({ include }) => include.some(({ color }) => color !== undefined))) await resources.get("colours");
}

function generationOf(run: EvaluationRun, draw: NonNullable<EvaluationRun["draw"]>): Generation {
  const { set, includes = () => true, images, signal, onMessage, onProgress } = run;
  if (set === undefined) throw new InvalidInputError("pictures are drawn from prompts that are known");
  const indices = set.prompts.flatMap(({ tag }, index) => (includes(index, tag) ? [index] : []));
  if (indices.length === 0) throw new InvalidInputError("no prompt is left: choose other tasks or a wider range");
  return new Generation({
    ...draw,
    folder: images,
    set,
    indices,
    signal,
    onMessage,
    onPicture: (done, total) => onProgress?.("drawing", done, total),
  });
}

/** What is in the folder of those prompts that are evaluated. */
function present({ images, outfile, set, includes = () => true, draw }: EvaluationRun): ImageFolder {
  const folder = readImageFolder(images, set);
  const prompts = folder.prompts.filter(({ index, metadata }) => includes(index, metadata.tag));
  const isMeant = ({ path }: Problem) => {
    const index = Number.parseInt(path, 10);
    const tag = set?.prompts[index]?.tag;
    return Number.isNaN(index) || tag === undefined || includes(index, tag);
  };
  const isOwn = ({ path }: Problem) => outfile !== undefined && resolve(images, path) === resolve(outfile);
  const problems = folder.problems.filter((problem) => isMeant(problem) && !isOwn(problem));
  const samples = draw?.samples ?? samplesOf(images, prompts);
  return {
    prompts: draw
      ? prompts.map((one) => ({ ...one, samples: one.samples.filter(({ index }) => index < samples) }))
      : prompts,
    problems: [...problems, ...missingSamples(prompts, samples)],
  };
}

/** How far an evaluation is with one prompt. */
export interface PromptState {
  metadata: PromptMetadata;
  /** Pictures that are asked for; where none are drawn, those that are there. */
  pictures: number;
  /** Pictures that are there. */
  present: number;
  /** Whether the pictures, all of them, have been looked at. */
  isDetected: boolean;
  /** Whether the colours of their objects have been classified, where the prompt gives some. */
  isClassified: boolean;
}

/** How far an evaluation is, told without its models: pictures that are there count as those that are asked for. */
export function promptStates(run: EvaluationRun): PromptState[] {
  const { set, includes = () => true, draw, images } = run;
  const there = draw && !existsSync(images) ? [] : present(run).prompts;
  const whole = there.filter(({ samples }) => draw === undefined || samples.length === draw.samples);
  const { detection, colours } = stagesOf(run, whole);
  const isDetected = new Set(whole.flatMap(({ index }) => (detection.isComplete(index) ? [index] : [])));
  const unclassified = new Set(colours.missing());
  const counts = new Map(there.map(({ index, samples }) => [index, samples.length]));
  const asked = draw
    ? set!.prompts.flatMap((metadata, index) => (includes(index, metadata.tag) ? [{ index, metadata }] : []))
    : there;
  return asked.map(({ index, metadata }) => {
    const found = counts.get(index) ?? 0;
    return {
      metadata,
      pictures: draw?.samples ?? found,
      present: found,
      isDetected: isDetected.has(index),
      isClassified: isDetected.has(index) && !unclassified.has(index),
    };
  });
}

/** Pictures that each prompt should have: what the generator says it made, else the most that one has. */
function samplesOf(folder: string, prompts: readonly PromptFolder[]): number {
  let said: unknown;
  try {
    said = readHparams(folder)?.n_samples;
  } catch (error) {
    if (!(error instanceof MiroError)) throw error; // a file that nobody needs here
  }
  if (Number.isInteger(said)) return Number(said);
  return Math.max(0, ...prompts.map(({ samples }) => (samples.at(-1)?.index ?? -1) + 1));
}

function stagesOf(
  run: EvaluationRun,
  prompts: readonly PromptFolder[],
): { detection: Detection; colours: ColourStage } {
  const { images, output, rules, detectorKey, colourKey, signal, onProgress } = run;
  return {
    detection: new Detection({
      images,
      output,
      prompts,
      detectorKey,
      rules,
      signal,
      onPicture: (done, total) => onProgress?.("finding objects", done, total),
    }),
    colours: new ColourStage({
      images,
      output,
      prompts,
      rules,
      key: colourKey,
      signal,
      onPrompt: (done, total) => onProgress?.("classifying colours", done, total),
    }),
  };
}
