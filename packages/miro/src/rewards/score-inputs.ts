/**
 * The pictures that are to be scored, and what each should show. They are named as
 *
 *   files          the text is given for all, or stands in the picture
 *   a folder       all picture files in it, in the order of their numbers
 *   GenEval's      `NNNNN/metadata.jsonl` with the prompt of the pictures in `NNNNN/samples`
 *   pairs          a JSONL file with {"image", "prompt"} a line, or a CSV or TSV file with columns of these names
 *
 * The sheets that this program puts beside its pictures are none of them.
 */
import { existsSync, readdirSync, statSync } from "node:fs";
import { basename, dirname, extname, isAbsolute, join } from "node:path";
import { z } from "zod";
import { InvalidInputError, MiroError, systemReason } from "../errors.js";
import { isFolder } from "../files/make-folder.js";
import { filledLines, parseJsonLine, parseTable } from "../files/table-file.js";
import { readTextFile } from "../files/text-file.js";
import { IMAGE_EXTENSIONS } from "../pictures/decode.js";

/** A picture, and the text to compare it with; null: the one that is stored in it. */
export interface AskedPicture {
  path: string;
  prompt: string | null;
  /** Whether it is left out when it turns out to be a sheet that shows several pictures. */
  unlessSheet: boolean;
}

/** What the pictures and files of an option stand for. */
export interface AskedOptions {
  /** For all pictures that no file of pairs gives a text to. */
  prompt?: string | undefined;
  /** A file of pairs. */
  pairs?: string | undefined;
}

/**
 * All pictures that are asked for, in order.
 * @throws InvalidInputError for a folder without pictures, and naming the line of a pair that is none
 */
export function askedPictures(paths: readonly string[], { prompt, pairs }: AskedOptions): AskedPicture[] {
  const asked = paths.flatMap((path): AskedPicture[] =>
    isFolder(path)
      ? picturesOf(path).map((picture) => ({ ...picture, prompt: prompt ?? picture.prompt }))
      : [{ path, prompt: prompt ?? null, unlessSheet: true }],
  );
  return pairs === undefined ? asked : asked.concat(readPairs(pairs));
}

/** Numbers in names are compared as numbers, so that `9.png` is before `10.png`. */
const byNumber = new Intl.Collator("en", { numeric: true }).compare;

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort((a, b) => byNumber(a, b) || (a < b ? -1 : 1));
  } catch (error) {
    throw new MiroError(`${folder}: cannot be read: ${systemReason(error)}`, { cause: error });
  }
}

function picturesOf(folder: string): AskedPicture[] {
  const prompts = genevalFolders(folder);
  if (prompts.length > 0) return prompts.flatMap(promptPictures);
  const files = pictureFiles(folder);
  if (files.length === 0)
    throw new InvalidInputError(
      `${folder}: holds no pictures, neither in the folder itself nor as NNNNN/samples beside NNNNN/metadata.jsonl`,
    );
  return files.map((path) => ({ path, prompt: null, unlessSheet: true }));
}

/** The folders of prompts in a folder of GenEval's form, or the folder itself when it is one; else none. */
export function genevalFolders(folder: string): string[] {
  const isPrompt = (path: string) => existsSync(join(path, "metadata.jsonl")) && existsSync(join(path, "samples"));
  if (isPrompt(folder)) return [folder];
  return namesIn(folder)
    .map((name) => join(folder, name))
    .filter(isPrompt);
}

/** The picture files in a folder, in the order of their numbers; those in sub-folders do not count. */
function pictureFiles(folder: string): string[] {
  return namesIn(folder)
    .filter((name) => (IMAGE_EXTENSIONS as readonly string[]).includes(extname(name).slice(1).toLowerCase()))
    .map((name) => join(folder, name))
    .filter((path) => statSync(path, { throwIfNoEntry: false })?.isFile());
}

/** The pictures of a folder of one prompt; its first line says the prompt. */
function promptPictures(folder: string): AskedPicture[] {
  const path = join(folder, "metadata.jsonl");
  const [line] = filledLines(readTextFile(path));
  const { prompt } = readRecord(
    line?.text ?? "",
    promptSchema,
    `${path}: line ${line?.number ?? 1}`,
    '{"prompt": "a text"}',
  );
  return pictureFiles(join(folder, "samples")).map((picture) => ({
    path: picture,
    prompt,
    unlessSheet: !/^\d+\./.test(basename(picture)), // samples have numbers; there may be a million of them
  }));
}

const promptSchema = z.object({ prompt: z.string() });
const pairSchema = z.object({ image: z.string().min(1), prompt: z.string() });
const PAIR = '{"image": "a path", "prompt": "a text"}';

function readRecord<S extends z.ZodType>(text: string, schema: S, where: string, expected: string): z.output<S> {
  let value: unknown = null;
  let why = "";
  try {
    value = parseJsonLine(text);
  } catch (error) {
    why = `: ${(error as Error).message}`;
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new InvalidInputError(`${where}: expected ${expected}, found ${text.slice(0, 80)}${why}`);
  return parsed.data;
}

/** Pictures and texts of a file. Paths are relative to it, or to where the program runs. */
function readPairs(path: string): AskedPicture[] {
  const text = readTextFile(path);
  const pairs = /\.[ct]sv$/i.test(path)
    ? tablePairs(text, path)
    : filledLines(text).map(({ text: line, number }) => readRecord(line, pairSchema, `${path}: line ${number}`, PAIR));
  if (pairs.length === 0) throw new InvalidInputError(`${path}: holds no pairs of a picture and a text`);
  return pairs.map(({ image, prompt }) => {
    const beside = isAbsolute(image) ? image : join(dirname(path), image);
    return { path: existsSync(beside) ? beside : image, prompt, unlessSheet: false };
  });
}

function tablePairs(text: string, path: string): z.output<typeof pairSchema>[] {
  const { columns, line, rows } = parseTable(text, path);
  const [image, prompt] = ["image", "prompt"].map((name) => columns.indexOf(name)) as [number, number];
  if (image < 0 || prompt < 0)
    throw new InvalidInputError(
      `${path}: line ${line}: expected columns image and prompt, found ${columns.join(", ") || "none"}`,
    );
  return rows.map(({ cells, line }) => {
    if (cells[image] === "") throw new InvalidInputError(`${path}: line ${line}: has no image`);
    return { image: cells[image]!, prompt: cells[prompt]! };
  });
}
