/**
 * GenEval from end to end in one folder: pictures are drawn, objects found, colours classified, verdicts given and
 * summed up.
 *
 * Every step keeps its results in files and does what is missing, so that an evaluation goes on where it was stopped.
 * Several processes with the same folder share the work: each takes prompts that nobody has taken, and the last step is
 * done by the one that comes to it first.
 */
import { existsSync, readFileSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isObject } from "../../../arguments.js";
import { InvalidInputError, MiroError } from "../../../errors.js";
import { readJson } from "../../../files/json-file.js";
import { makeFolder, removeIfEmpty } from "../../../files/make-folder.js";
import { pythonJson } from "../../../files/python-json.js";
import { sha256 } from "../../../files/sha256.js";
import { readText, removeKilledWrites, writeFileAtomic } from "../../../files/whole-files.js";
import { proveWritable } from "../../../files/writable.js";
import { groupBy } from "../../../group-by.js";
import { message, option } from "../../../message.js";
import { counted } from "../../../numbers.js";
import { encodePng } from "../../../pictures/png.js";
import { sheetText } from "../../../pipeline/settings.js";
import { version } from "../../../version.js";
import { SharedWork } from "../../shared-work.js";
import type { Colour, PromptMetadata } from "../metadata.js";
import type { PromptSet } from "../prompts.js";
import { markdownTable } from "../published.js";
import { judge, keepBest, type Rules } from "../rules.js";
import { type Result, readResults, type Summary, summarise } from "../summary.js";
import { ColourStage } from "./colour-stage.js";
import { Detection, nameOf, pictureHash } from "./detect.js";
import { type Failure, failureSheet } from "./failure-sheet.js";
import { type GenerateRun, Generation } from "./generate.js";
import { readHparams } from "./hparams.js";
import { missingSamples, type Problem, type PromptFolder, readImageFolder } from "./image-folder.js";
import { maskOf, promptFilePath, readPromptFile, type StoredDetection } from "./prompt-files.js";
import type { Resources } from "./resources.js";

/** Steps of an evaluation. */
export const STAGES = ["generate", "detect", "judge", "summary"] as const;
export type Stage = (typeof STAGES)[number];

/** What progress is reported of, in this order. */
export const REPORTED = ["drawing", "finding objects", "classifying colours"] as const;
export type Reported = (typeof REPORTED)[number];

/** What is evaluated and how. */
export interface EvaluationRun {
  /** Folder of the pictures. */
  images: string;
  /** Folder of everything else; mostly the same. */
  output: string;
  /** File of the verdicts. Default: `results.jsonl` in `output`. */
  outfile?: string | undefined;
  /** The prompts; where they are not known, those of the folder. */
  set?: PromptSet | undefined;
  /** Prompts that are evaluated, by their place. Default: all. */
  includes?: ((index: number, tag: string) => boolean) | undefined;
  /** What is drawn; absent where pictures are only judged. */
  draw?: Omit<GenerateRun, "folder" | "set" | "indices" | "signal" | "onPicture" | "onMessage"> | undefined;
  /** One step alone. */
  only?: Stage | undefined;
  rules: Rules;
  /** Which detector detections are of. */
  detectorKey: string;
  /** Which classifier colours are of. */
  colourKey: string;
  /** Pictures on the sheet of failures. */
  failures: number;
  /** What was measured, in the table. */
  name: string;
  /** Whether published scores stand beside one's own. */
  compare: boolean;
  resources: Resources;
  signal?: AbortSignal | undefined;
  onProgress?: ((what: Reported, done: number, total: number) => void) | undefined;
  onMessage?: ((message: string) => void) | undefined;
}

/** What an evaluation came to. */
export interface EvaluationReport {
  /** Pictures that were drawn by this call. */
  drawn: number;
  /** Pictures that were looked at by this call. */
  detected: number;
  /** Who found the objects, and who trained that. */
  detector?: string | undefined;
  problems: Problem[];
  /** Null where `only` ends before. */
  summary: Summary | null;
  /** Files of the last step, by what they are. */
  files: Partial<Record<"results" | "summary" | "table" | "failures", string>>;
}

/** How often the work of others is looked at. */
const POLL_MS = 250;
/** Detections below it are kept by no rule that is not lower itself. */
const USUAL_MIN_SCORE = 0.3;

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
function present({ images, outfile, set, includes = () => true, draw }: EvaluationRun): {
  prompts: PromptFolder[];
  problems: Problem[];
} {
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

/** In the key of detections, before the score that those have which were kept. */
const SCORES_ABOVE = ", scores above ";

/** What detections have to be kept for some rules. */
function minScoreOf({ threshold, counting_threshold }: Rules): number {
  return Math.min(USUAL_MIN_SCORE, threshold, counting_threshold);
}

/** @throws InvalidInputError where objects were left out that would count now, which `only` leaves so */
function checkKept(key: string, rules: Rules, path: string): void {
  const kept = Number(key.slice(key.lastIndexOf(SCORES_ABOVE) + SCORES_ABOVE.length));
  if (kept <= minScoreOf(rules)) return;
  const found = message`${path}: holds objects with scores above ${kept} alone, and lower thresholds ask for more`;
  const remedy = message`run without ${option("only", "judge")}, which looks at the pictures again`;
  throw new InvalidInputError(message`${found}; ${remedy}`);
}

function stagesOf(
  run: EvaluationRun,
  prompts: readonly PromptFolder[],
): { detection: Detection; colours: ColourStage } {
  const { images, output, rules, detectorKey, colourKey, signal, onProgress } = run;
  const minScore = minScoreOf(rules);
  return {
    detection: new Detection({
      images,
      output,
      prompts,
      minScore,
      key: `${detectorKey}${SCORES_ABOVE}${minScore}`,
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

/** Files of the last step. */
function pathsOf({ output, outfile = join(output, "results.jsonl") }: EvaluationRun) {
  return {
    results: outfile,
    summary: join(output, "summary.json"),
    table: join(output, "summary.md"),
    failures: join(output, "failures.png"),
  };
}

/** Sums up verdicts that stand in a file, this program's or GenEval's own. */
function summariseFolder(run: EvaluationRun): Pick<EvaluationReport, "summary" | "files"> {
  const { results, summary: path, table } = pathsOf(run);
  const summary = summarise(readResults(results));
  writeSummary(run, summary, {});
  return { summary, files: { results, summary: path, table } };
}

function writeSummary(run: EvaluationRun, summary: Summary, more: Record<string, unknown>): void {
  const { summary: path, table } = pathsOf(run);
  const note = more.found_by === undefined ? "" : `\nDetector: ${more.found_by}\n`;
  writeFileAtomic(table, markdownTable(run.name, summary, run.compare) + note, { overwrite: true });
  // Last, since its key says that the other files are there.
  const json = { name: run.name, ...summary, ...more };
  writeFileAtomic(path, `${JSON.stringify(json, null, 2)}\n`, { overwrite: true });
}

/** The last step, unless another process does it. @returns whether it is done */
async function conclude(
  run: EvaluationRun,
  folder: { prompts: PromptFolder[]; problems: Problem[] },
  work: SharedWork,
  report: EvaluationReport,
): Promise<boolean> {
  const paths = pathsOf(run);
  const key = inputsKey(run, folder);
  const { results, failures, problems } = verdicts(run, folder);
  report.problems = problems;
  if (results.length === 0) {
    const reason = problems[0] ? `: ${problems[0].path} ${problems[0].reason}` : "";
    throw new InvalidInputError(`${run.images}: holds no picture that can be judged${reason}`);
  }
  report.summary = summarise(results);
  report.detector = [...new Set(results.map(({ detector }) => detector))].join(", ");
  const text = results.map((row) => `${JSON.stringify(row)}\n`).join("");
  const isDone = () =>
    run.only === undefined &&
    storedKey(paths.summary) === key &&
    existsSync(paths.table) &&
    existsSync(paths.results) &&
    readText(paths.results) === text;
  if (!isDone()) {
    const [taken] = await work.take("conclude", [0], isDone, 1);
    if (taken === undefined && !isDone()) return false;
    if (taken !== undefined) {
      removeKilledWrites(dirname(paths.results));
      writeFileAtomic(paths.results, text, { overwrite: true });
      const sheet = await failureSheet(run.images, failures, run.failures, `${run.name}: pictures that failed`);
      if (sheet) {
        const png = encodePng(sheet.data, sheet.width, sheet.height, [sheetText("pictures that failed")]);
        writeFileAtomic(paths.failures, png, { overwrite: true });
      } else rmSync(paths.failures, { force: true }); // of an earlier evaluation
      if (run.only === undefined)
        writeSummary(run, report.summary, {
          found_by: report.detector,
          ...provenance(run),
          problems: problemCounts(problems),
          key,
        });
    }
  }
  report.files = { results: paths.results };
  if (run.only === undefined) Object.assign(report.files, { summary: paths.summary, table: paths.table });
  if (failures.length > 0 && run.failures > 0) report.files.failures = paths.failures;
  return true;
}

function storedKey(path: string): unknown {
  try {
    const content = readJson(path);
    return isObject(content) ? content.key : undefined;
  } catch (error) {
    if (error instanceof MiroError) return undefined;
    throw error;
  }
}

/** Changes with everything that the last step makes files from. */
function inputsKey(
  run: EvaluationRun,
  { prompts, problems }: { prompts: PromptFolder[]; problems: Problem[] },
): string {
  const hash = (path: string) => (existsSync(path) ? sha256(readFileSync(path)) : null);
  const files = prompts.map(({ index }) => [
    index,
    hash(promptFilePath(run.output, "detections", index)),
    hash(promptFilePath(run.output, "colours", index)),
  ]);
  const { rules, name, failures, detectorKey, colourKey, outfile } = run;
  return sha256(JSON.stringify([version(), rules, name, failures, detectorKey, colourKey, outfile, files, problems]));
}

function provenance({ set, rules, detectorKey, colourKey, images }: EvaluationRun): Record<string, unknown> {
  const hparams = join(images, "hparams.json");
  return {
    metadata_sha256: set?.sha256 ?? null,
    hparams_sha256: existsSync(hparams) ? sha256(readFileSync(hparams)) : null,
    rules,
    detector: detectorKey,
    colours: colourKey,
    versions: { miro: version() },
  };
}

/** Problems by kind, with the first of each. */
export function problemCounts(problems: readonly Problem[]): Record<string, { count: number; first: string[] }> {
  const counts: Record<string, { count: number; first: string[] }> = {};
  for (const { kind, path, reason } of problems) {
    counts[kind] ??= { count: 0, first: [] };
    const one = counts[kind];
    one.count++;
    if (one.first.length < 5) one.first.push(`${path}: ${reason}`);
  }
  return counts;
}

/** A line of `results.jsonl`: GenEval's fields, behind them ours. */
type Row = Result & { prompt_index: number; sample_index: number; colors: string; detector: string };

function verdicts(
  run: EvaluationRun,
  folder: { prompts: PromptFolder[]; problems: Problem[] },
): { results: Row[]; failures: Failure[]; problems: Problem[] } {
  const results: Row[] = [];
  const failures: Failure[] = [];
  const problems = [...folder.problems];
  for (const { index, metadata, samples } of folder.prompts) {
    const file = readPromptFile(run.output, "detections", index);
    const colours = readPromptFile(run.output, "colours", index);
    if (file) checkKept(file.key, run.rules, promptFilePath(run.output, "detections", index));
    for (const { index: sample, path } of samples) {
      const name = nameOf(path);
      const picture = file?.pictures[name];
      if (picture === undefined || picture.error !== undefined) {
        const reason = picture?.error ?? "has not been looked at; detect first";
        problems.push({ kind: picture ? "damaged picture" : "missing picture", path, reason });
        continue;
      }
      if (run.only === "judge" && picture.sha256 !== pictureHash(join(run.images, path))) {
        problems.push({ kind: "missing picture", path, reason: "has changed since it was looked at; detect again" });
        continue;
      }
      const found = groupBy(picture.detections, (one) => one.class);
      const classified = colours?.pictures[name] ?? {};
      const { correct, reason, kept } = judge(
        metadata,
        found,
        (className, objects) => coloursFor(classified, className, objects.length, path),
        run.rules,
      );
      results.push({
        filename: path,
        tag: metadata.tag,
        prompt: metadata.prompt,
        correct,
        reason,
        metadata: pythonJson(metadata),
        details: pythonJson(
          Object.fromEntries([...kept].map(([name, list]) => [name, list.map(({ box, score }) => [...box, score])])),
        ),
        prompt_index: index,
        sample_index: sample,
        colors: pythonJson(classified),
        detector: file!.detector ?? "",
      });
      if (correct) continue;
      const own = promptFilePath(run.output, "detections", index);
      const objects = shownObjects(metadata, found, run.rules);
      failures.push({
        path,
        tag: metadata.tag,
        prompt: metadata.prompt,
        reason,
        objects: objects.map((one) => ({
          className: one.class,
          score: one.score,
          box: one.box,
          mask: maskOf(one, picture, own),
        })),
      });
    }
  }
  return { results, failures, problems };
}

/** What counts of the classes that were asked for, and behind it what else was found, each place once. */
function shownObjects(
  { tag, include }: PromptMetadata,
  found: ReadonlyMap<string, readonly StoredDetection[]>,
  rules: Rules,
): StoredDetection[] {
  const named = new Set(include.map((one) => one.class));
  const best = (name: string) => keepBest(found.get(name) ?? [], tag, rules);
  const asked = [...named].flatMap(best);
  const places = new Set(asked.map(({ box }) => String(box)));
  const others = [...found.keys()].filter((name) => !named.has(name)).flatMap(best);
  const besides = others
    .sort((a, b) => b.score - a.score)
    .filter(({ box }) => !places.has(String(box)) && places.add(String(box)));
  return [...asked, ...besides];
}

function coloursFor(classified: Record<string, Colour[]>, className: string, count: number, path: string): Colour[] {
  const answers = classified[className] ?? [];
  if (answers.length < count)
    throw new MiroError(
      message`${path}: the colours of ${className} have not been classified; run without ${option("only", "summary")}`,
    );
  return answers.slice(0, count);
}
