/**
 * Scores of picture files, with the prompts that are stored in them. Pixels are what a viewer shows (see
 * decode-shown.ts), but for the published scorers, which judge the stored ones as their data sets have them
 * (decode.ts). Each picture is decoded once for all scorers, while the pictures before it are scored.
 *
 * A picture that cannot be read, or whose score is not finite, has null and does not keep the others from theirs. With
 * an output file the work goes on where it ended: only what is missing there is computed, and what was made from
 * another content of the file, or by another model.
 */
import { basename, dirname, relative } from "node:path";
import { z } from "zod";
import { InvalidInputError, invalid, MiroError } from "../errors.js";
import { FileLock, whenKnown } from "../files/file-lock.js";
import { sha256 } from "../files/sha256.js";
import { readBytes } from "../files/whole-files.js";
import { message, option } from "../message.js";
import { callback, field, type OptionsOf, parseOptions } from "../options.js";
import { decodeWithOrientation, type OrientedImage } from "../pictures/decode.js";
import { decodeShown } from "../pictures/decode-shown.js";
import { textsOf } from "../pictures/image-files.js";
import type { RgbImage } from "../pictures/rgb.js";
import { isSheet, textToSettings } from "../pipeline/settings.js";
import { checkMemory } from "./memory.js";
import { DEFAULT_SCORER, loadScorer, loadScorerSchema, scorerSpec } from "./registry.js";
import { type AskedPicture, askedPictures } from "./score-inputs.js";
import { ScoreModels } from "./score-models.js";
import { isOutputName, type OutputRow, readOutput, rowKey, type ScoreModel, writeOutput } from "./score-output.js";
import type { LoadedScorer, LoadScorerOptions, ScorerSpec } from "./scorer.js";

/** Larger pictures are refused before they are decoded: 400 MB as RGB bytes. */
const MAX_PIXELS = 2 ** 27;
/** Most pictures that are scored together; as many are decoded meanwhile. */
const CHUNK = 16;
/** Pictures that are decoded at a time: the threads that Node has for it. */
const DECODERS = 4;
/** Decoded pictures take about as much at most, those that are scored and those that are decoded meanwhile each. */
const DECODED_BYTES = 2 ** 28;
/** How often the output is written while the work goes on. */
const SAVE_MS = 30_000;

export const scoreFilesSchema = z.strictObject({
  /** Keys of the scorers. */
  by: field(z.array(z.string().min(1)).min(1).default([DEFAULT_SCORER]), {
    expected: "keys of scorers",
    help: "scorer to use, or several, separated by commas; may be given several times",
    flag: "--by <scorer>",
  }),
  /** What the pictures should show. Default: the prompt that is stored in each. */
  prompt: field(z.string().optional(), {
    expected: "a text",
    help: "what the pictures should show",
    flag: "--prompt <text>",
    otherwise: "the prompt that is stored in each",
  }),
  /** More pictures, each with its text. */
  pairs: field(z.string().min(1).optional(), {
    expected: "a JSONL, CSV or TSV file",
    help:
      'file of more pictures, each with its text: JSONL with {"image", "prompt"} a line, or CSV or TSV with these ' +
      "columns; paths are relative to the file",
    flag: "--pairs <file>",
  }),
  /** Where scores go: a CSV or JSONL file. What it has already is not computed again. */
  output: field(z.string().min(1).optional(), {
    expected: "a file that ends in .csv or .jsonl",
    help: "CSV or JSONL file for the scores; what it has already is not computed again",
    flag: "--output <file>",
    writes: "file",
  }),
  /** Folder that the paths in the output are relative to, so that they can be moved together. Default: as given. */
  root: field(z.string().min(1).optional(), {
    expected: "a folder",
    help: "folder that the paths in the output are relative to",
  }),
  ...loadScorerSchema.shape,
  /** Called with key and model of each scorer when it is loaded. */
  onScorer: callback<(key: string, name: string) => void>("called with key and model of each scorer when it is loaded"),
  /** Called with the number of pictures done and in all. */
  onProgress: callback<(done: number, total: number) => void>("called with the number of pictures done and in all"),
});

/** Options of {@link scoreFiles}. */
export type ScoreFilesOptions = OptionsOf<typeof scoreFilesSchema>;

/** One picture's scores. */
export interface ScoredFile {
  /** As it was given. */
  path: string;
  /** The text that the picture was compared with; null where none was needed and none is stored. */
  prompt: string | null;
  /** By scorer key; null where the picture could not be read or the score is not finite. */
  scores: Record<string, number | null>;
  /** Why the picture could not be read. */
  error?: string;
}

/** What {@link scoreFilesWithReport} finds. */
export interface ScoreReport {
  /** One for each picture, in order. */
  images: ScoredFile[];
  /** What the scores were made with, by scorer key. */
  models: Record<string, ScoreModel>;
  /** Pictures that could not be read. */
  unreadable: number;
  /** Pictures whose score is not finite, by scorer key. */
  notFinite: Record<string, number>;
  /** Prompts of which a scorer read only the beginning, by scorer key. Those of earlier runs do not count. */
  truncated: Record<string, number>;
  /** Pictures whose EXIF orientation the scorers that judge stored pixels did not follow. */
  unturned: number;
  /** Scores that were in the output already. */
  reused: number;
  /** Files that show several pictures, as this program puts them beside its pictures; they are not scored. */
  sheets: string[];
}

/**
 * Scores picture files (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF), in order. A folder stands for the pictures in it.
 *
 * A picture that cannot be read has `error` and null scores, and so has null what is not finite. Sheets that this
 * program has written, such as the one of a sweep, are left out.
 *
 * @throws InvalidInputError for a picture without a prompt where a scorer needs it, before anything is scored; the
 *   first picture's error when none can be read; MiroError when the scorers do not fit in memory
 *
 * @example
 * ```ts
 * import { MiroPipeline, scoreFiles } from "miro-t2i";
 *
 * await using pipe = await MiroPipeline.fromPretrained();
 * const { images } = await pipe.generate("a whale", { steps: 4 });
 * await images[0].save("whale.png");
 * const [{ scores }] = await scoreFiles(["whale.png"], { by: ["sharpness"] });
 * console.log(scores.sharpness);
 * ```
 */
export async function scoreFiles(paths: readonly string[], options: ScoreFilesOptions = {}): Promise<ScoredFile[]> {
  return (await scoreFilesWithReport(paths, options)).images;
}

/**
 * As {@link scoreFiles}, with what happened on the way.
 * @param held the lock of the output, where the caller has it
 */
export async function scoreFilesWithReport(
  paths: readonly string[],
  options: ScoreFilesOptions = {},
  held?: FileLock,
): Promise<ScoreReport> {
  if (!Array.isArray(paths) || !paths.every((path) => typeof path === "string"))
    throw invalid("paths", "a list of files and folders", paths);
  const { by, prompt, pairs, output, root, model, ...rest } = parseOptions(scoreFilesSchema, options);
  const keys = [...new Set(by)];
  const specs = keys.map((key) => scorerSpec(key, "by"));
  if (model !== undefined && keys.length > 1)
    throw invalid("model", "one scorer, since it is the folder of that scorer's model", by);
  if (output !== undefined && !isOutputName(output))
    throw invalid("output", "a file that ends in .csv or .jsonl", output);
  const asked = askedPictures(paths, { prompt, pairs });
  if (asked.length === 0) throw invalid("images", "at least one picture", paths);
  const weights = model === undefined ? rest.weights : { ...rest.weights, [keys[0]!]: model };
  const lock = output === undefined || held !== undefined ? null : await lockOutput(output, rest);
  try {
    return await new Scoring(specs, { ...rest, weights }, output, root).run(asked);
  } finally {
    lock?.release();
  }
}

/**
 * Takes the lock of an output; waits while nothing is known of a process that had it.
 * @throws MiroError when another process writes to it
 */
export async function lockOutput(
  output: string,
  { signal, onMessage }: Pick<LoadScorerOptions, "signal" | "onMessage">,
): Promise<FileLock> {
  const lock = await whenKnown(() => FileLock.acquire(dirname(output), basename(output)), {
    signal,
    onWait: ({ text }) => onMessage?.(`${output}: waiting for a sign of life of ${text}, which wrote to it`),
  });
  if (lock instanceof FileLock) return lock;
  throw new MiroError(`${output}: ${lock.text} is writing to it; wait until it is done, or choose another file`);
}

/** How {@link Scoring} works. */
interface ScoringOptions extends LoadScorerOptions {
  onScorer?: ((key: string, name: string) => void) | undefined;
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/** A picture on its way. */
interface Task {
  path: string;
  prompt: string | null;
  /** What goes to the output. */
  row: OutputRow;
  /** Scorers that have not judged it. */
  missing: Set<string>;
  /** Its EXIF orientation was not followed for the scorers that judge stored pixels. */
  unturned?: boolean;
  /** Why it cannot be read. */
  failure?: MiroError;
}

type Pixels = "shown" | "stored";
type Decoded = Record<Pixels, RgbImage | undefined>;

class Scoring {
  readonly #specs: readonly ScorerSpec[];
  readonly #options: ScoringOptions;
  readonly #output: string | undefined;
  readonly #root: string | undefined;
  readonly #rows: Map<string, OutputRow>;
  readonly #truncated = new Map<string, Map<string, boolean>>();
  readonly #sheets: string[] = [];
  readonly #models: ScoreModels;
  #savedMs = performance.now();
  #reused = 0;
  /** Bytes of the largest picture that was decoded. */
  #largest = 0;

  constructor(
    specs: readonly ScorerSpec[],
    options: ScoringOptions,
    output: string | undefined,
    root: string | undefined,
  ) {
    this.#specs = specs;
    this.#options = options;
    this.#output = output;
    this.#root = root;
    this.#models = new ScoreModels(options);
    this.#rows = output === undefined ? new Map() : readOutput(output);
  }

  async run(asked: readonly AskedPicture[]): Promise<ScoreReport> {
    const { signal, onScorer, onProgress } = this.#options;
    if (this.#output !== undefined) await this.#models.hash(this.#specs);
    const tasks: Task[] = [];
    for (const picture of asked) {
      signal?.throwIfAborted();
      const task = await this.#plan(picture);
      if (task) tasks.push(task);
    }
    if (tasks.length === 0)
      throw new InvalidInputError(
        `${this.#sheets[0]}: is a sheet that shows several pictures, and there is no other picture to be scored`,
      );
    const open = tasks.filter(({ missing, failure }) => missing.size > 0 && !failure);
    const needed = this.#specs.filter(({ key }) => open.some(({ missing }) => missing.has(key)));
    checkMemory(needed, this.#options);
    const scorers: LoadedScorer[] = [];
    try {
      for (const { key } of needed) {
        const { onScorer: _, onProgress: __, ...load } = this.#options;
        const scorer = await loadScorer(key, load);
        scorers.push(scorer);
        onScorer?.(key, scorer.name);
      }
      const before = tasks.length - open.length;
      let done = 0;
      let decoding = this.#decodeFrom(open, done);
      while (done < open.length) {
        const pictures = await decoding;
        const chunk = open.slice(done, done + pictures.length);
        done += chunk.length;
        decoding = this.#decodeFrom(open, done);
        for (const scorer of scorers) await this.#judge(scorer, chunk, pictures);
        onProgress?.(before + done, tasks.length);
        if (performance.now() - this.#savedMs > SAVE_MS) this.#save();
      }
    } finally {
      for (const scorer of scorers) scorer.dispose();
      if (open.length > 0 || tasks.some(({ failure }) => failure)) this.#save();
    }
    const failed = tasks.filter(({ failure }) => failure);
    if (failed.length === tasks.length) throw failed[0]!.failure!;
    return this.#report(tasks);
  }

  /** What is to be done for a picture; null for a sheet. Its file is read only where its texts or hash are needed. */
  async #plan({ path, prompt, unlessSheet }: AskedPicture): Promise<Task | null> {
    const missing = new Set(this.#specs.map(({ key }) => key));
    const image = this.#root === undefined ? path : relative(this.#root, path);
    const row: OutputRow = { image, prompt, sha256: null, scores: {}, models: {} };
    const task: Task = { path, prompt, row, missing };
    try {
      const asksModel = this.#specs.some(({ refusal }) => refusal !== undefined);
      let bytes = prompt === null || asksModel || unlessSheet ? readBytes(path) : null;
      if (bytes !== null) {
        // Where the prompt is given, what is wrong with a picture is said when it is decoded.
        const text = await textsOf(bytes, path).catch((error: unknown) => {
          if (prompt === null) throw error;
          return [];
        });
        if (unlessSheet && isSheet(text)) {
          this.#sheets.push(path);
          return null;
        }
        const settings = textToSettings(text);
        if (prompt === null && typeof settings?.prompt === "string") task.prompt = row.prompt = settings.prompt;
        if (typeof settings?.model === "string") this.#checkModel(path, settings.model);
      }
      const reader = this.#specs.find(({ usesText }) => usesText);
      if (reader && task.prompt === null) {
        const [forAll, each] = [option("prompt", "TEXT"), option("pairs", "FILE")];
        const remedy = message`give one for all with ${forAll}, or each its own with ${each}`;
        throw new WrongCall(message`${path}: holds no prompt, which ${reader.key} needs; ${remedy}`);
      }
      const earlier = this.#rows.get(rowKey(row));
      if (earlier) {
        bytes ??= readBytes(path);
        row.sha256 = sha256(bytes);
        if (row.sha256 === earlier.sha256) this.#keep(task, earlier);
      }
    } catch (error) {
      if (error instanceof WrongCall) throw error;
      this.#fail(task, error);
    }
    this.#rows.set(rowKey(row), row);
    return task;
  }

  /** @throws WrongCall when a scorer has nothing to say about the pictures of a model */
  #checkModel(path: string, model: string): void {
    for (const { refusal } of this.#specs) {
      const reason = refusal?.({ name: model, autoencoder: null }) ?? null;
      if (reason !== null) throw new WrongCall(message`${path}: ${reason}`);
    }
  }

  /** Takes over what an earlier run computed with the same models. */
  #keep({ row, missing }: Task, { scores, models }: OutputRow): void {
    for (const [key, score] of Object.entries(scores)) {
      const spec = this.#specs.find((spec) => spec.key === key);
      if (spec && !this.#models.wouldMake(models[key], spec)) continue;
      row.scores[key] = score;
      if (models[key]) row.models[key] = models[key];
      if (missing.delete(key)) this.#reused++;
    }
  }

  #fail(task: Task, error: unknown): void {
    if (!(error instanceof MiroError)) throw error;
    task.failure = error;
    task.row.scores = {};
    task.row.models = {};
    task.row.error = error.message;
  }

  /** Pictures that are scored together next, fewer where they are large; undefined for those that cannot be read. */
  async #decodeFrom(open: readonly Task[], first: number): Promise<(Decoded | undefined)[]> {
    const pictures: (Decoded | undefined)[] = [];
    let left = DECODED_BYTES;
    while (pictures.length === 0 || (pictures.length < CHUNK && left >= this.#largest)) {
      // How large a picture is turns out when it is decoded: they are taken to be like the largest before them.
      const fit = Math.floor(left / Math.max(this.#largest, left / DECODERS));
      const start = first + pictures.length;
      const some = open.slice(start, start + Math.min(Math.max(fit, 1), CHUNK - pictures.length));
      if (some.length === 0) break;
      const decoded = await Promise.all(some.map((task) => this.#decode(task)));
      for (const { shown, stored } of decoded.filter((one) => one !== undefined)) {
        const bytes = (shown?.data.length ?? 0) + (stored?.data.length ?? 0);
        this.#largest = Math.max(this.#largest, bytes);
        left -= bytes;
      }
      pictures.push(...decoded);
    }
    return pictures;
  }

  async #decode(task: Task): Promise<Decoded | undefined> {
    try {
      const bytes = readBytes(task.path);
      if (this.#output !== undefined) task.row.sha256 = sha256(bytes);
      const decoded: Decoded = { shown: undefined, stored: undefined };
      const kinds = [...new Set(this.#specs.map(({ pixels }) => pixels ?? "shown"))];
      await Promise.all(
        kinds.map(async (kind) => {
          const { image, orientation } = await decode(bytes, task.path, kind);
          decoded[kind] = image;
          if (orientation > 1) task.unturned = true;
        }),
      );
      return decoded;
    } catch (error) {
      this.#fail(task, error);
      return undefined;
    }
  }

  async #judge(scorer: LoadedScorer, chunk: readonly Task[], pictures: readonly (Decoded | undefined)[]) {
    const { signal } = this.#options;
    const { key } = scorer;
    const kind = scorerSpec(key).pixels ?? "shown";
    const todo = chunk.flatMap((task, i) =>
      pictures[i] && task.missing.has(key) ? [{ task, image: pictures[i][kind]! }] : [],
    );
    const prompts = todo.map(({ task }) => task.prompt ?? "");
    const images = todo.map(({ image }) => image);
    const scores = await scorer.scoreOrNull(images, prompts, { signal });
    const model = this.#models.of(scorer);
    todo.forEach(({ task }, i) => {
      task.row.scores[key] = scores[i]!;
      task.row.models[key] = model;
      task.missing.delete(key);
    });
    this.#countTruncated(scorer, prompts);
  }

  #countTruncated(scorer: LoadedScorer, prompts: readonly string[]): void {
    if (!scorer.truncates) return;
    const known = this.#truncated.get(scorer.key) ?? new Map<string, boolean>();
    this.#truncated.set(scorer.key, known);
    for (const prompt of prompts) if (!known.has(prompt)) known.set(prompt, scorer.truncates(prompt));
  }

  #save(): void {
    if (this.#output !== undefined) writeOutput(this.#output, this.#rows.values());
    this.#savedMs = performance.now();
  }

  #report(tasks: readonly Task[]): ScoreReport {
    const keys = this.#specs.map(({ key }) => key);
    const count = (predicate: (task: Task, key: string) => boolean): Record<string, number> =>
      Object.fromEntries(
        keys
          .map((key) => [key, tasks.filter((task) => predicate(task, key)).length] as const)
          .filter(([, found]) => found > 0),
      );
    const models = keys.flatMap((key) => {
      const model = tasks.find(({ row }) => row.models[key])?.row.models[key];
      return model ? [[key, model] as const] : [];
    });
    const truncated = [...this.#truncated]
      .map(([key, known]) => [key, [...known.values()].filter((cut) => cut).length] as const)
      .filter(([, cut]) => cut > 0);
    return {
      images: tasks.map(({ path, prompt, row, failure }) => ({
        path,
        prompt,
        scores: Object.fromEntries(keys.map((key) => [key, row.scores[key] ?? null])),
        ...(failure && { error: failure.message }),
      })),
      models: Object.fromEntries(models),
      unreadable: tasks.filter(({ failure }) => failure).length,
      notFinite: count(({ row, failure }, key) => !failure && row.scores[key] === null),
      truncated: Object.fromEntries(truncated),
      unturned: tasks.filter(({ unturned }) => unturned).length,
      reused: this.#reused,
      sheets: this.#sheets,
    };
  }
}

/** A picture without the text that a scorer needs, or that it cannot judge: the call is wrong, not the picture. */
class WrongCall extends InvalidInputError {
  override name = "InvalidInputError";
}

async function decode(bytes: Buffer, path: string, kind: Pixels): Promise<OrientedImage> {
  try {
    if (kind === "stored") return await decodeWithOrientation(bytes, { maxPixels: MAX_PIXELS });
    return { image: await decodeShown(bytes, MAX_PIXELS), orientation: 1 };
  } catch (error) {
    throw new InvalidInputError(`${path}: cannot be read as a picture: ${(error as Error).message}`, { cause: error });
  }
}
