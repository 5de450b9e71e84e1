/**
 * Scores of picture files, with the prompts that are stored in them. Pixels are what a viewer shows (see
 * decode-shown.ts).
 */
import { z } from "zod";
import { InvalidInputError, invalid } from "../errors.js";
import { readBytes } from "../files/files.js";
import { message, option } from "../message.js";
import { callback, field, type OptionsOf, parseOptions } from "../options.js";
import { decodeShown } from "../pictures/decode-shown.js";
import { readPng } from "../pictures/png.js";
import type { RgbImage } from "../pictures/rgb.js";
import { textToSettings } from "../pipeline/settings.js";
import { DEFAULT_SCORER, loadScorer, loadScorerSchema } from "./registry.js";
import type { Scorer } from "./scorer.js";

/** Larger pictures are refused before they are decoded: 400 MB as RGB bytes. */
const MAX_PIXELS = 2 ** 27;
/** Pictures that are in memory together. */
const CHUNK = 16;
const PNG_SIGNATURE = Buffer.of(0x89, 0x50, 0x4e, 0x47);

export const scoreFilesSchema = z.strictObject({
  /** Keys of the scorers. */
  by: field(z.array(z.string().min(1)).min(1).default([DEFAULT_SCORER]), {
    expected: "keys of scorers",
    help: "scorer to use; may be given several times",
    flag: "--by <scorer>",
  }),
  /** What the pictures should show. Default: the prompt that is stored in each. */
  prompt: field(z.string().optional(), {
    expected: "a text",
    help: "what the pictures should show",
    flag: "--prompt <text>",
    otherwise: "the prompt that is stored in each",
  }),
  ...loadScorerSchema.shape,
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
  /** By scorer key. */
  scores: Record<string, number>;
}

/**
 * Scores picture files (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF), in order.
 *
 * @throws InvalidInputError for a file that is no picture, and for one without a prompt where a scorer needs it
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
  const { by, prompt, onProgress, signal, ...load } = parseOptions(scoreFilesSchema, options);
  if (paths.length === 0) throw invalid("images", "at least one picture", paths);
  const scorers: Scorer[] = [];
  try {
    for (const key of new Set(by)) scorers.push(await loadScorer(key, { ...load, signal }));
    const reader = scorers.find(({ usesText }) => usesText);
    const rows: ScoredFile[] = [];
    for (let start = 0; start < paths.length; start += CHUNK) {
      const images: RgbImage[] = [];
      const part: ScoredFile[] = [];
      for (const path of paths.slice(start, start + CHUNK)) {
        signal?.throwIfAborted();
        const bytes = readBytes(path);
        const text = prompt ?? storedPrompt(bytes, path);
        if (reader && text === null)
          throw new InvalidInputError(
            message`${path}: holds no prompt, which ${reader.key} needs; give one with ${option("prompt", "TEXT")}`,
          );
        images.push(await decode(bytes, path));
        part.push({ path, prompt: text, scores: {} });
      }
      const captions = part.map((row) => row.prompt ?? "");
      for (const scorer of scorers) {
        const values = await scorer.score(images, captions, { signal });
        part.forEach((row, i) => {
          row.scores[scorer.key] = values[i]!;
        });
      }
      rows.push(...part);
      onProgress?.(rows.length, paths.length);
    }
    return rows;
  } finally {
    for (const scorer of scorers) scorer.dispose();
  }
}

/** The prompt among the settings that this program stores in PNG files. */
function storedPrompt(bytes: Buffer, path: string): string | null {
  if (!bytes.subarray(0, 4).equals(PNG_SIGNATURE)) return null;
  const prompt = textToSettings(readPng(bytes, path).text)?.prompt;
  return typeof prompt === "string" ? prompt : null;
}

async function decode(bytes: Buffer, path: string): Promise<RgbImage> {
  try {
    return await decodeShown(bytes, MAX_PIXELS);
  } catch (error) {
    throw new InvalidInputError(`${path}: cannot be read as a picture: ${(error as Error).message}`, { cause: error });
  }
}
