/**
 * Scores of picture files, with the prompts that are stored in them. Pixels are what a viewer shows (see
 * decode-shown.ts), but for the published scorers, which judge the stored ones as their data sets have them
 * (decode.ts).
 */
import { existsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { z } from "zod";
import { InvalidInputError, invalid } from "../errors.js";
import { readBytes } from "../files/files.js";
import { linesOf, readTextFile } from "../files/text-file.js";
import { message, option } from "../message.js";
import { callback, field, type OptionsOf, parseOptions } from "../options.js";
import { decodeImage } from "../pictures/decode.js";
import { decodeShown } from "../pictures/decode-shown.js";
import { readPng } from "../pictures/png.js";
import type { RgbImage } from "../pictures/rgb.js";
import { textToSettings } from "../pipeline/settings.js";
import { DEFAULT_SCORER, loadScorer, loadScorerSchema, scorerSpec } from "./registry.js";
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
  /** More pictures, each with its text. */
  pairs: field(z.string().min(1).optional(), {
    expected: "a JSONL file",
    help: 'file with {"image", "prompt"} a line: more pictures, each with its text; paths are relative to the file',
    flag: "--pairs <file>",
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
  const { by, prompt, pairs, onScorer, onProgress, signal, ...load } = parseOptions(scoreFilesSchema, options);
  const asked: Asked[] = paths.map((path) => ({ path, prompt: prompt ?? null }));
  if (pairs !== undefined) asked.push(...readPairs(pairs));
  if (asked.length === 0) throw invalid("images", "at least one picture", paths);
  const scorers: { scorer: Scorer; pixels: Pixels }[] = [];
  try {
    for (const key of new Set(by)) {
      const scorer = await loadScorer(key, { ...load, signal });
      scorers.push({ scorer, pixels: scorerSpec(key).pixels ?? "shown" });
      onScorer?.(key, scorer.name);
    }
    const reader = scorers.find(({ scorer }) => scorer.usesText)?.scorer;
    const kinds = new Set(scorers.map(({ pixels }) => pixels));
    const rows: ScoredFile[] = [];
    for (let start = 0; start < asked.length; start += CHUNK) {
      const images: Record<Pixels, RgbImage[]> = { shown: [], stored: [] };
      const part: ScoredFile[] = [];
      for (const { path, prompt } of asked.slice(start, start + CHUNK)) {
        signal?.throwIfAborted();
        const bytes = readBytes(path);
        const text = prompt ?? storedPrompt(bytes, path);
        if (reader && text === null)
          throw new InvalidInputError(
            message`${path}: holds no prompt, which ${reader.key} needs; give one with ${option("prompt", "TEXT")}`,
          );
        for (const kind of kinds) images[kind].push(await decode(bytes, path, kind));
        part.push({ path, prompt: text, scores: {} });
      }
      const captions = part.map((row) => row.prompt ?? "");
      for (const { scorer, pixels } of scorers) {
        const values = await scorer.score(images[pixels], captions, { signal });
        part.forEach((row, i) => {
          row.scores[scorer.key] = values[i]!;
        });
      }
      rows.push(...part);
      onProgress?.(rows.length, asked.length);
    }
    return rows;
  } finally {
    for (const { scorer } of scorers) scorer.dispose();
  }
}

type Pixels = "shown" | "stored";

/** A picture, and the text to compare it with; null: the one that is stored in it. */
interface Asked {
  path: string;
  prompt: string | null;
}

const pairSchema = z.object({ image: z.string().min(1), prompt: z.string() });

/** Pictures and texts of a JSONL file. @throws InvalidInputError naming the line */
function readPairs(path: string): Asked[] {
  return linesOf(readTextFile(path)).flatMap((line, i) => {
    if (line.trim() === "") return [];
    let value: unknown = null;
    try {
      value = JSON.parse(line);
    } catch {
      // Refused below, as what is no object.
    }
    const pair = pairSchema.safeParse(value);
    if (!pair.success)
      throw new InvalidInputError(
        `${path}: line ${i + 1}: expected {"image": "a path", "prompt": "a text"}, found ${line.slice(0, 80)}`,
      );
    const { image, prompt } = pair.data;
    const beside = resolve(dirname(path), image);
    return [{ path: existsSync(beside) ? beside : image, prompt }];
  });
}

/** The prompt among the settings that this program stores in PNG files. */
function storedPrompt(bytes: Buffer, path: string): string | null {
  if (!bytes.subarray(0, 4).equals(PNG_SIGNATURE)) return null;
  const prompt = textToSettings(readPng(bytes, path).text)?.prompt;
  return typeof prompt === "string" ? prompt : null;
}

async function decode(bytes: Buffer, path: string, kind: Pixels): Promise<RgbImage> {
  try {
    return await (kind === "shown" ? decodeShown(bytes, MAX_PIXELS) : decodeImage(bytes, { maxPixels: MAX_PIXELS }));
  } catch (error) {
    throw new InvalidInputError(`${path}: cannot be read as a picture: ${(error as Error).message}`, { cause: error });
  }
}
