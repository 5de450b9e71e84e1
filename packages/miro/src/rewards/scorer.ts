/**
 * What scores pictures: the interface between scorers and everything that uses them (preprocessing, best-of-N,
 * evaluation, the command line).
 *
 * A scorer is registered as a {@link ScorerSpec} under the key that is its column in a shard's CSV file (`sharpness`).
 * Loading it gives a {@link ScorerModel}, which does the arithmetic alone; {@link checkedScorer} puts around it what
 * all of them need: lengths and pixels are checked, pictures go in chunks, a call can be aborted between them (and
 * within, where the model looks at the signal), and a value that is not finite is no score: an error from `score`, null
 * from `scoreOrNull`.
 */
import type { DType } from "@miro-t2i/torch";
import type { Autoencoder } from "../autoencoder/index.js";
import { describe, invalid, MiroError } from "../errors.js";
import { message } from "../message.js";
import { counted } from "../numbers.js";
import type { RgbImage } from "../pictures/rgb.js";
import { breathe } from "../pipeline/interruption.js";
import type { ComputeDType } from "../pipeline/loading/device.js";
import type { DownloadProgress } from "../pipeline/loading/hub-repository.js";

/** How pictures are judged. */
export interface ScoreCall {
  /** Stops the call, within a batch too. */
  signal?: AbortSignal | undefined;
}

/** A loaded scorer. */
export interface Scorer {
  /** The key that it is registered under: a column of the CSV, `sharpness`. */
  readonly key: string;
  /** The model or measure in a few words, for provenance. */
  readonly name: string;
  /** Whether captions matter. A scorer that does not read them may be given none. */
  readonly usesText: boolean;
  /** What its networks compute in; absent where it has none. */
  readonly dtype?: DType | undefined;
  /** Whether the model reads only the beginning of a caption; absent where it reads all of it, or none. */
  truncates?(caption: string): boolean;
  /**
   * Judges pictures.
   *
   * @param images 8-bit RGB of any sizes
   * @param captions one text for each picture; may be empty when `usesText` is false
   * @returns one finite number for each picture, higher is better; what else is in the call changes its last digits at
   *   most
   * @throws InvalidInputError for counts and pictures that do not fit; MiroError naming the picture whose score is not
   *   finite; the signal's reason when it is aborted
   */
  score(images: readonly RgbImage[], captions: readonly string[], options?: ScoreCall): Promise<number[]>;
  /** Frees the weights; the scorer must not be used afterwards. */
  dispose(): void;
}

/** A scorer as {@link loadScorer} returns it. */
export interface LoadedScorer extends Scorer, Disposable {
  /**
   * As `score`, but a picture whose score is not finite has null instead, so that the others keep theirs: for work on
   * many pictures, which counts what is missing.
   */
  scoreOrNull(
    images: readonly RgbImage[],
    captions: readonly string[],
    options?: ScoreCall,
  ): Promise<(number | null)[]>;
}

/**
 * How a scorer rounds. `default`: heads, norms, products and scales in float32 or wider. `upstream`: the dtypes and
 * roundings that published values were made with, for comparison with them.
 */
export const SCORER_PRECISIONS = ["default", "upstream"] as const;
/** One of {@link SCORER_PRECISIONS}. */
export type ScorerPrecision = (typeof SCORER_PRECISIONS)[number];

/** Where and what to load. */
export interface LoadScorerOptions {
  /** `cpu`, `cuda`, `cuda:1`, …; default `cpu`. */
  device?: string | undefined;
  /** What the networks compute in; heads, norms and products are float32 all the same. Default `auto`. */
  dtype?: ComputeDType | undefined;
  /** Cache of downloads; default: the one of Python's `huggingface_hub`. */
  cacheDir?: string | undefined;
  /** Folder of the model, for scorers that have one; default: the one that comes with the program. */
  model?: string | undefined;
  /** Folders or Hub repositories of models by scorer key; default: the published repositories. */
  weights?: Readonly<Record<string, string>> | undefined;
  /** Which HPSv2; their scores are not comparable. Default `v2.1`. */
  hpsVersion?: "v2.0" | "v2.1" | undefined;
  /** HPSv2 sees the whole of a picture that is not square, with black beside it, as in its benchmark. Default false. */
  hpsLetterbox?: boolean | undefined;
  /** How results are rounded; default `default`. */
  precision?: ScorerPrecision | undefined;
  /** Told once in a process what users of the weights should know, such as a licence that forbids commercial use. */
  onMessage?: ((message: string) => void) | undefined;
  /** Reports downloads. */
  onDownload?: ((progress: DownloadProgress) => void) | undefined;
  /** Stops loading. */
  signal?: AbortSignal | undefined;
}

/** The terms of published weights. */
export interface ScorerLicense {
  /** `MIT`, `CC-BY-NC-4.0`, … */
  name: string;
  /** Whether they forbid commercial use. It is said when they are loaded. */
  nonCommercial: boolean;
}

/** Where published weights come from. */
export interface ScorerRepository {
  /** `owner/name` on the Hugging Face Hub, or the address of a file elsewhere. */
  name: string;
  /** What the file of the weights, or their index, may be called; the first that is there is taken. */
  weights: readonly string[];
  /** Size of the download. */
  sizeBytes: number;
  /** Of a file elsewhere, in hexadecimal. */
  sha256?: string | undefined;
  /** The entry of `weights` that replaces it, of another scorer or its own; default: the scorer that has it. */
  givenAs?: string | undefined;
}

/** What a scorer needs in memory. */
export interface ScorerMemory {
  /**
   * Parameters of the published model by part, in the dtype that is asked for. Parts of one name are one: several
   * scorers that are loaded together share it.
   */
  parts: Readonly<Record<string, number>>;
  /** Most that a batch takes beside the weights, in float32. */
  workingBytes: number;
  /** Where memory is short its layers are read from the disk in turn, so that it is never refused. */
  streams?: boolean | undefined;
}

/** What a spec's `load` returns: the arithmetic, for pictures and captions that were checked. */
export interface ScorerModel {
  /** As {@link Scorer.name}. */
  readonly name: string;
  /** Most pictures of one call of `score`. */
  readonly batchSize: number;
  /** As {@link Scorer.dtype}. */
  readonly dtype?: DType | undefined;
  /** As {@link Scorer.truncates}. */
  truncates?(caption: string): boolean;
  /**
   * A value that is not finite says that the model could not judge that picture. One call follows another.
   *
   * @throws the signal's reason when it is aborted; a model that takes long looks at it between its layers
   */
  score(images: readonly RgbImage[], captions: readonly string[], options?: ScoreCall): number[] | Promise<number[]>;
  dispose(): void;
}

/** What is known of the model that draws, or has drawn, pictures. */
export interface PictureOrigin {
  /** As pictures store it: the last part of a folder, or a repository. */
  readonly name: string;
  /** What makes pictures of its latents; null where no more than the name is known, from a file. */
  readonly autoencoder: Autoencoder | null;
}

/** What is known of a scorer without loading it. */
export type ScorerFacts = Omit<ScorerSpec, "load">;

/** A scorer that can be loaded. */
export interface ScorerSpec {
  /** Column of the CSV file and name on the command line. */
  readonly key: string;
  /** What it measures, in a few words. */
  readonly name: string;
  /** As {@link ScorerModel.name}, where options choose the model or what it sees; default: `name`. */
  modelName?(options: LoadScorerOptions): string;
  /** One line of help: what is scored, and the range of the values. */
  readonly description: string;
  /** The preprocessing stage that runs it. */
  readonly stage: "rewards" | "vqa";
  /** Whether a score depends on the caption. */
  readonly usesText: boolean;
  /**
   * Why the scorer has nothing to say about what a model draws, in a sentence; null: it has, or nothing speaks against
   * it. Absent: about all of them.
   */
  refusal?(origin: PictureOrigin): string | null;
  /**
   * Which pixels of a file it judges: what a viewer shows (default), or the stored ones, as data sets are made with.
   */
  readonly pixels?: "shown" | "stored" | undefined;
  /** Its weights are gigabytes: preprocessing leaves it out unless it is named. Default false. */
  readonly onRequest?: boolean | undefined;
  /** How scores stand in the published data sets' CSV files: (score + offset) / divisor. Absent: as they are. */
  readonly stored?: { divisor: number; offset: number } | undefined;
  /** Which of two synthetic captions it scores in the published data sets; default `long`, the one that is embedded. */
  readonly syntheticCaption?: "short" | "long" | undefined;
  /** The terms of the published weights; absent where there are none. */
  readonly license?: ScorerLicense | undefined;
  /** Where the published weights come from; absent where there are none. */
  readonly repositories?: readonly ScorerRepository[] | undefined;
  /** What it needs in memory; absent where that is little. */
  readonly memory?: ScorerMemory | undefined;
  /**
   * The module that registers it, as `import.meta.url`: threads and further processes that score load it too. It is a
   * file of its own, not the program.
   */
  readonly module?: string | URL | undefined;
  /** Reads the model. */
  load(options: LoadScorerOptions): Promise<ScorerModel>;
}

/** What of a {@link ScorerSpec} need not be said. */
type ScorerDefaults = Pick<ScorerSpec, "name" | "description" | "stage" | "usesText">;

/**
 * A scorer without its key. By default `name` is the key, `description` the name, `stage` `rewards`, and `usesText`
 * true.
 */
export type OwnScorer = Omit<ScorerSpec, "key" | keyof ScorerDefaults> &
  Partial<ScorerDefaults> & { columns?: undefined };

/** Whether a scorer may have such a key: it is the name of a column. */
export function isColumn(key: unknown): key is string {
  return typeof key === "string" && /^[a-z][a-z0-9_]*$/.test(key);
}

/**
 * Checks what is registered; types do not reach JavaScript.
 * @throws InvalidInputError naming what of it is wrong
 */
export function checkSpec(spec: Omit<ScorerSpec, "load"> & { load: unknown }): void {
  if (typeof spec !== "object" || spec === null)
    throw invalid("scorer", "an object { key, name, description, stage, usesText, load }", spec);
  const { key, name, description, stage, usesText, pixels, load } = spec;
  if (!isColumn(key)) throw invalid("key", "lower-case letters, digits and _", key);
  if (typeof name !== "string" || name === "")
    throw invalid(`${key}.name`, "the model or measure in a few words", name);
  if (typeof description !== "string") throw invalid(`${key}.description`, "a line of help", description);
  if (!["rewards", "vqa"].includes(stage)) throw invalid(`${key}.stage`, '"rewards" or "vqa"', stage);
  if (typeof usesText !== "boolean") throw invalid(`${key}.usesText`, "true or false", usesText);
  if (![undefined, "shown", "stored"].includes(pixels)) throw invalid(`${key}.pixels`, '"shown" or "stored"', pixels);
  if (typeof load !== "function") throw invalid(`${key}.load`, "a function that gives the model", load);
}

/** @throws InvalidInputError naming what is wrong with what a scorer's `load` gives */
export function checkModel(key: string, model: Omit<ScorerModel, "score"> & { score: unknown }): void {
  const what = `${key}.load()`;
  if (typeof model !== "object" || model === null)
    throw invalid(what, "an object { name, batchSize, score, dispose }", model);
  const { name, batchSize, score, dispose } = model;
  if (typeof name !== "string") throw invalid(`${what}.name`, "the model or measure in a few words", name);
  if (!Number.isInteger(batchSize) || batchSize < 1)
    throw invalid(`${what}.batchSize`, "an integer of at least 1", batchSize);
  if (typeof score !== "function") throw invalid(`${what}.score`, "a function of pictures and captions", score);
  if (typeof dispose !== "function") throw invalid(`${what}.dispose`, "a function that frees the model", dispose);
}

/**
 * Does a scorer's own work. What a programming error in it says gets the key of the scorer in front; errors that are
 * meant to be read stay as they are.
 */
export async function ofScorer<T>(key: string, work: () => T | Promise<T>, signal?: AbortSignal): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const readable = error instanceof Error && ("syscall" in error || /^(?:Torch|Format)Error$/.test(error.name));
    if (error instanceof MiroError || readable || signal?.aborted) throw error;
    throw new Error(`${key}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

/** A score as the published data sets' CSV files have it. */
export function storedScore(spec: Pick<ScorerSpec, "stored"> | undefined, score: number): number {
  if (typeof score !== "number") throw invalid("score", "a number", score);
  const stored = spec?.stored;
  return stored === undefined ? score : (score + stored.offset) / stored.divisor;
}

/** Puts checks, chunks and cancelling around a model. */
export function checkedScorer(spec: Pick<ScorerSpec, "key" | "usesText">, model: ScorerModel): LoadedScorer {
  const { key, usesText } = spec;
  checkModel(key, model);
  const judge: Scorer["score"] = async (images, captions, { signal } = {}) => {
    checkInput(images, captions, usesText);
    const values: number[] = [];
    for (let start = 0; start < images.length; start += model.batchSize) {
      await breathe(signal);
      const end = start + model.batchSize;
      const batch = [images.slice(start, end), captions.slice(start, end)] as const;
      const part = await ofScorer(key, () => model.score(...batch, { signal }), signal);
      const expected = Math.min(model.batchSize, images.length - start);
      const numbers = listedResults(key, part, expected);
      const other = numbers.findIndex((value) => typeof value !== "number");
      if (other >= 0)
        throw new MiroError(`${key}: the scorer returned ${describe(numbers[other])}, which is no number`);
      values.push(...(numbers as number[]));
    }
    return values;
  };
  return {
    key,
    usesText,
    name: model.name,
    dtype: model.dtype,
    ...(model.truncates && { truncates: (caption) => model.truncates!(caption) }),
    async score(images, captions, options) {
      const values = await judge(images, captions, options);
      const bad = values.findIndex((value) => !Number.isFinite(value));
      if (bad >= 0)
        throw new MiroError(`${key}: the score of picture ${bad} is ${values[bad]}; the model may be damaged`);
      return values;
    },
    scoreOrNull: async (images, captions, options) =>
      (await judge(images, captions, options)).map((value) => (Number.isFinite(value) ? value : null)),
    dispose: () => model.dispose(),
    [Symbol.dispose]: () => model.dispose(),
  };
}

/** What a model returns, one for each picture. @throws MiroError for another number, or what is no list */
export function listedResults(key: string, results: unknown, expected: number): unknown[] {
  const pictures = counted(expected, "picture");
  if (typeof results !== "object" || results === null || !(Symbol.iterator in results))
    throw new MiroError(`${key}: the scorer returned ${describe(results)} for ${pictures}, not their numbers`);
  const list = [...(results as Iterable<unknown>)];
  if (list.length !== expected)
    throw new MiroError(`${key}: the scorer returned ${list.length} values for ${pictures}`);
  return list;
}

function checkInput(images: readonly RgbImage[], captions: readonly string[], usesText: boolean): void {
  if (captions.length !== images.length && (usesText || captions.length > 0))
    throw invalid("captions", `one for each of ${counted(images.length, "picture")}`, captions.length);
  images.forEach(({ width, height, data }, i) => {
    const sides = [width, height].every((side) => Number.isInteger(side) && side >= 1);
    if (!sides) throw invalid(`images[${i}]`, "a width and a height of at least 1", message`${width} x ${height}`);
    if (data.length !== width * height * 3)
      throw invalid(`images[${i}].data`, `${width * height * 3} bytes for ${width} x ${height} RGB`, data.length);
  });
  const other = captions.findIndex((caption) => typeof caption !== "string");
  if (other >= 0) throw invalid(`captions[${other}]`, "a text", captions[other]);
}
