/**
 * What scores pictures: the interface between scorers and everything that uses them (preprocessing, best-of-N,
 * evaluation, the command line).
 *
 * A scorer is registered as a {@link ScorerSpec} under the key that is its column in a shard's CSV file (`sharpness`).
 * Loading it gives a {@link ScorerModel}, which does the arithmetic alone; {@link checkedScorer} puts around it what
 * all of them need: lengths and pixels are checked, pictures go in chunks, a call can be aborted between them, and a
 * value that is not finite is an error instead of a score.
 */
import { invalid, MiroError } from "../errors.js";
import type { RgbImage } from "../pictures/rgb.js";
import type { ComputeDType } from "../pipeline/loading/device.js";
import type { MiroPipeline } from "../pipeline/pipeline.js";

/** A loaded scorer. */
export interface Scorer {
  /** The key that it is registered under: a column of the CSV, `sharpness`. */
  readonly key: string;
  /** The model or measure in a few words, for provenance. */
  readonly name: string;
  /** Whether captions matter. A scorer that does not read them may be given none. */
  readonly usesText: boolean;
  /**
   * Judges pictures.
   *
   * @param images 8-bit RGB of any sizes
   * @param captions one text for each picture; may be empty when `usesText` is false
   * @returns one finite number for each picture, higher is better; a value does not depend on what else is in the call
   * @throws InvalidInputError for counts and pictures that do not fit; the signal's reason when it is aborted
   */
  score(
    images: readonly RgbImage[],
    captions: readonly string[],
    options?: { signal?: AbortSignal | undefined },
  ): Promise<number[]>;
  /** Frees the weights; the scorer must not be used afterwards. */
  dispose(): void;
}

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
  signal?: AbortSignal | undefined;
}

/** What a spec's `load` returns: the arithmetic, for pictures and captions that were checked. */
export interface ScorerModel {
  /** As {@link Scorer.name}. */
  readonly name: string;
  /** Most pictures of one call of `score`. */
  readonly batchSize: number;
  score(images: readonly RgbImage[], captions: readonly string[]): number[] | Promise<number[]>;
  dispose(): void;
}

/** A scorer that can be loaded. */
export interface ScorerSpec {
  /** Column of the CSV file and name on the command line. */
  readonly key: string;
  /** What it measures, in a few words. */
  readonly name: string;
  /** One line of help: what is scored, and the range of the values. */
  readonly description: string;
  /** The preprocessing stage that runs it. */
  readonly stage: "rewards" | "vqa";
  /** Whether a score depends on the caption. */
  readonly usesText: boolean;
  /**
   * Why the scorer has nothing to say about what a model draws, in a sentence; null: it has. Absent: about all of them.
   */
  refusal?(pipe: MiroPipeline): string | null;
  /**
   * Which pixels of a file it judges: what a viewer shows (default), or the stored ones, as data sets are made with.
   */
  readonly pixels?: "shown" | "stored" | undefined;
  /** Its weights are gigabytes: preprocessing leaves it out unless it is named. Default false. */
  readonly onRequest?: boolean | undefined;
  /** What a score is divided by in the published data sets' CSV files; default 1. */
  readonly storedDivisor?: number | undefined;
  /** What is added to a score before it is divided there; default 0. ImageReward is stored as (r + 2) / 4. */
  readonly storedShift?: number | undefined;
  /** Reads the model. */
  load(options: LoadScorerOptions): Promise<ScorerModel>;
}

/** A score as the published data sets' CSV files have it. */
export function storedScore(
  spec: Pick<ScorerSpec, "storedDivisor" | "storedShift"> | undefined,
  score: number,
): number {
  return (score + (spec?.storedShift ?? 0)) / (spec?.storedDivisor ?? 1);
}

/** Puts checks, chunks and cancelling around a model. */
export function checkedScorer(spec: Pick<ScorerSpec, "key" | "usesText">, model: ScorerModel): Scorer & Disposable {
  const { key, usesText } = spec;
  return {
    key,
    usesText,
    name: model.name,
    async score(images, captions, { signal } = {}) {
      checkInput(images, captions, usesText);
      const values: number[] = [];
      for (let start = 0; start < images.length; start += model.batchSize) {
        signal?.throwIfAborted();
        const end = start + model.batchSize;
        const part = await model.score(images.slice(start, end), captions.slice(start, end));
        const expected = Math.min(model.batchSize, images.length - start);
        if (part.length !== expected)
          throw new MiroError(`${key}: the scorer returned ${part.length} values for ${expected} pictures`);
        part.forEach((value, i) => {
          if (!Number.isFinite(value))
            throw new MiroError(`${key}: the score of picture ${start + i} is ${value}; the model may be damaged`);
          values.push(value);
        });
      }
      return values;
    },
    dispose: () => model.dispose(),
    [Symbol.dispose]: () => model.dispose(),
  };
}

function checkInput(images: readonly RgbImage[], captions: readonly string[], usesText: boolean): void {
  if (captions.length !== images.length && (usesText || captions.length > 0))
    throw invalid("captions", `one for each of ${images.length} pictures`, `${captions.length}`);
  images.forEach(({ width, height, data }, i) => {
    const sides = [width, height].every((side) => Number.isInteger(side) && side >= 1);
    if (!sides) throw invalid(`images[${i}]`, "a width and a height of at least 1", `${width} x ${height}`);
    if (data.length !== width * height * 3)
      throw invalid(`images[${i}].data`, `${width * height * 3} bytes for ${width} x ${height} RGB`, `${data.length}`);
  });
  const other = captions.findIndex((caption) => typeof caption !== "string");
  if (other >= 0) throw invalid(`captions[${other}]`, "a text", captions[other]);
}
