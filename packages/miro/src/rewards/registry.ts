/** The scorers that exist, by key. */
import { z } from "zod";
import { checkText } from "../arguments.js";
import { InvalidInputError, invalid } from "../errors.js";
import { addModule, namesInThreads } from "../extension-modules.js";
import { about, message } from "../message.js";
import { editDistance } from "../nearest.js";
import { abortSignal, callback, field, flag, parseOptions } from "../options.js";
import { checkDevice } from "../pipeline/loading/device.js";
import { loadSchema } from "../pipeline/loading/load-options.js";
import type { MiroPipeline } from "../pipeline/pipeline.js";
import { type ColumnsScorer, columnScorers } from "./columns.js";
import { colorfulnessSpec, sharpnessSpec } from "./measured.js";
import { checkMemory } from "./memory.js";
import { publishedScorers } from "./published-scorers.js";
import {
  checkedScorer,
  checkSpec,
  type LoadedScorer,
  type LoadScorerOptions,
  type OwnScorer,
  ofScorer,
  type PictureOrigin,
  SCORER_PRECISIONS,
  type ScorerSpec,
} from "./scorer.js";

const specs = new Map<string, ScorerSpec>();
const versions = new Map<string, string>();
/** Columns of scorers that fill others than that of their key. */
const families = new Map<string, readonly string[]>();

/** The scorer that is used where nobody says which. */
export const DEFAULT_SCORER = "emoji_clip_score";

/** Options of {@link loadScorer}. */
export const loadScorerSchema = z.strictObject({
  /** Folder of the scorer's model. Default: the included one. */
  model: field(z.string().min(1).optional(), {
    expected: "a folder",
    help: "folder of the scorer's model instead of the included one",
    flag: "--model <dir>",
  }),
  /** Folders or Hub repositories of models by scorer key. Default: the published repositories. */
  weights: field(z.record(z.string(), z.string().min(1)).default({}), {
    expected: "scorers with folders or repositories",
    help: "folder or repository of a scorer's published weights; may be given several times",
    flag: "--weights <scorer=dir>",
  }),
  /** Which HPSv2; their scores are not comparable. Default: v2.1. */
  hpsVersion: field(z.enum(["v2.0", "v2.1"]).default("v2.1"), {
    expected: "one of v2.0, v2.1",
    help: "which HPSv2; their scores are not comparable",
    flag: "--hps-version <version>",
  }),
  /** HPSv2 sees the whole of a picture that is not square, as in its benchmark. */
  hpsLetterbox: flag(
    "HPSv2 sees all of a picture that is not square, with black beside it, as in its benchmark",
    "--hps-letterbox",
  ),
  /** `cpu`, `cuda`, `cuda:1`, … */
  device: loadSchema.shape.device,
  /** Precision of the networks; heads, norms and products are float32 all the same. */
  dtype: loadSchema.shape.dtype,
  /** How results are rounded; `upstream`: as published values were. */
  precision: field(z.enum(SCORER_PRECISIONS).default("default"), {
    expected: `one of ${SCORER_PRECISIONS.join(", ")}`,
    help: "upstream: the dtypes and roundings that published values were made with, for comparison with them",
    flag: "--precision <name>",
  }),
  /** Cache of downloads. */
  cacheDir: loadSchema.shape.cacheDir,
  /** Told what users of the weights should know, such as a licence that forbids commercial use. */
  onMessage: callback<(message: string) => void>("told what users of the weights should know"),
  /** Reports downloads. */
  onDownload: loadSchema.shape.onDownload,
  /** Stops loading. */
  signal: abortSignal("stops loading"),
});

/**
 * Makes a scorer known.
 *
 * @param key the column of score files that it fills, and its name in options. With `columns` these are what it fills:
 *   each is a scorer of its own, and one pass of the model gives the values of all of them
 * @throws InvalidInputError when the key or a column is taken or could not be a column's name
 *
 * @example
 * ```ts
 * import { registerScorer, scorerSpecs } from "miro-t2i";
 *
 * registerScorer("brightness", {
 *   name: "mean of all values",
 *   description: "how bright a picture is, 0 to 1",
 *   usesText: false,
 *   load: async () => ({
 *     name: "mean of all values",
 *     batchSize: 16,
 *     score: (images) => images.map(({ data }) => data.reduce((sum, value) => sum + value, 0) / data.length / 255),
 *     dispose() {},
 *   }),
 * });
 * console.log(scorerSpecs().map(({ key }) => key));
 * ```
 */
export function registerScorer(key: string, scorer: OwnScorer | ColumnsScorer): void;
/** The same for a scorer that holds its key, in full. */
export function registerScorer(spec: ScorerSpec | FullColumnsScorer): void;
export function registerScorer(given: string | ScorerSpec | FullColumnsScorer, own?: OwnScorer | ColumnsScorer): void {
  const spec = typeof given === "string" ? withKey(given, own) : given;
  checkSpec(spec);
  const isFamily = "columns" in spec && spec.columns !== undefined;
  const added = isFamily ? columnScorers(spec) : [spec as ScorerSpec];
  for (const key of [spec.key, ...added.map(({ key }) => key)])
    if (specs.has(key) || families.has(key)) throw invalid("key", "one that no scorer has", key);
  addModule(`${spec.key}.module`, spec.module);
  for (const one of added) specs.set(one.key, one);
  if (!specs.has(spec.key))
    families.set(
      spec.key,
      added.map(({ key }) => key),
    );
}

/** A scorer of several columns that holds its key, in full. */
type FullColumnsScorer = ColumnsScorer & Omit<ScorerSpec, "load">;

/** In full, with what it leaves out. */
function withKey(key: string, own: OwnScorer | ColumnsScorer | undefined): ScorerSpec | FullColumnsScorer {
  if (typeof own !== "object" || own === null) throw invalid(key, "a scorer { load, … }", own);
  const { name = key, description = name, stage = "rewards", usesText = true } = own;
  return { ...own, key, name, description, stage, usesText } as ScorerSpec | FullColumnsScorer;
}

/**
 * Says by what a scorer's values can be told from those of an earlier text of it: scores that a file holds are computed
 * again where they are of another version.
 */
export function setScorerVersion(key: string, version: string): void {
  versions.set(key, version);
}

/** The version of a scorer; undefined for those that come with the program, whose names say all. */
export function scorerVersion(key: string): string | undefined {
  return versions.get(key);
}

/**
 * All scorers, in the order in which they were registered.
 *
 * @example
 * ```ts
 * import { scorerSpecs } from "miro-t2i";
 *
 * for (const { key, description } of scorerSpecs()) console.log(key, description);
 * ```
 */
export function scorerSpecs(): readonly ScorerSpec[] {
  return [...specs.values()];
}

/**
 * The spec of a key.
 * @param parameter the option that holds the key, for the error
 * @throws InvalidInputError naming the keys that there are, the nearest first
 */
export function scorerSpec(key: string, parameter = "scorer"): ScorerSpec {
  const spec = specs.get(key);
  if (spec) return spec;
  checkText("parameter", parameter, "the name of the option that holds the key");
  if (typeof key !== "string") throw invalid(parameter, "the key of a scorer", key);
  const columns = families.get(key);
  if (columns !== undefined)
    throw new InvalidInputError(
      message`${about(parameter)}: ${key} fills the columns ${columns.join(", ")}; name these`,
    );
  const byDistance = [...specs.keys()]
    .map((name) => ({ name, distance: editDistance(key, name) }))
    .sort((a, b) => a.distance - b.distance);
  throw unknownScorer(
    key,
    byDistance.map(({ name }) => name),
    parameter,
  );
}

/** The error about a scorer that is not registered. @param known the names that there are */
export function unknownScorer(name: string, known: readonly string[], parameter: string): InvalidInputError {
  const there = `there are ${known.join(", ")}`;
  const own = "scorers of your own come with registerScorer, or --scorer-module FILE.mjs";
  return new InvalidInputError(message`${about(parameter)}: ${JSON.stringify(name)} is not known; ${there}; ${own}`);
}

/** The entries of `weights` that a scorer reads. */
export function weightKeys({ key, repositories = [] }: ScorerSpec): string[] {
  return [...new Set([key, ...repositories.map(({ givenAs = key }) => givenAs)])];
}

/** @throws InvalidInputError for an entry of `weights` that no scorer reads */
export function checkWeightKeys(weights: Readonly<Record<string, string>>): void {
  const known = new Set(scorerSpecs().flatMap(weightKeys));
  for (const key of Object.keys(weights)) if (!known.has(key)) scorerSpec(key, "weights");
}

/**
 * Loads a scorer. The caller disposes of it, or declares it with `using`.
 *
 * @throws InvalidInputError for an unknown key or device; MiroError naming the file that is missing or broken
 *
 * @example
 * ```ts
 * import { loadScorer, MiroPipeline } from "miro-t2i";
 *
 * await using pipe = await MiroPipeline.fromPretrained();
 * using scorer = await loadScorer("sharpness");
 * const { images } = await pipe.generate("a cactus", { steps: 4, imagesPerPrompt: 2 });
 * console.log(await scorer.score(images, ["a cactus", "a cactus"])); // two numbers
 * ```
 */
export async function loadScorer(key: string, options: LoadScorerOptions = {}): Promise<LoadedScorer> {
  const spec = scorerSpec(key);
  const { model, weights, ...given } = parseOptions(loadScorerSchema, options);
  given.signal?.throwIfAborted();
  checkWeightKeys(weights);
  const device = checkDevice(given.device);
  const own = model === undefined ? weights : { ...weights, [key]: model };
  checkMemory([spec], { ...given, device, weights: own });
  reportTerms(spec, given.onMessage);
  return checkedScorer(
    spec,
    await ofScorer(key, () => spec.load({ ...given, device, model: own[key], weights: own }), given.signal),
  );
}

/** Scorers whose terms were told. */
const told = new Set<string>();

/** Says once in a process that weights are not for commercial use. */
function reportTerms({ key, license }: ScorerSpec, onMessage: ((message: string) => void) | undefined): void {
  if (!license?.nonCommercial || onMessage === undefined || told.has(key)) return;
  told.add(key);
  onMessage(`${key}: its weights are not for commercial use (${license.name})`);
}

/**
 * Refuses a scorer that has nothing to say about what a model draws; one that is not registered judges anything.
 * @param parameter the option that holds the key, for the error
 * @throws InvalidInputError
 */
export function checkScorerFor(origin: PictureOrigin, key: string, parameter = "scorer"): void {
  const refusal = specs.get(key)?.refusal?.(origin) ?? null;
  if (refusal !== null) throw new InvalidInputError(message`${about(parameter)}: ${refusal}`);
}

/**
 * Loads a scorer for the pictures of a model, on its device.
 *
 * @throws InvalidInputError as {@link loadScorer}, and when the scorer has nothing to say about what the model draws
 */
export async function loadScorerFor(
  pipe: MiroPipeline,
  key: string,
  options: Omit<LoadScorerOptions, "device" | "model"> = {},
): Promise<LoadedScorer> {
  scorerSpec(key);
  checkScorerFor(pipe, key);
  return loadScorer(key, { ...options, device: pipe.device });
}

for (const spec of [sharpnessSpec, colorfulnessSpec, ...publishedScorers]) registerScorer(spec);
const builtIn: readonly string[] = [...specs.keys()];

/** Keys of the scorers that threads can score with. */
export function scorersInThreads(): string[] {
  return namesInThreads(specs, builtIn);
}
