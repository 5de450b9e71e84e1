/**
 * The file that scores go to, as CSV or JSON lines, and come back from when the work goes on:
 *
 *   image    the picture's path as it was given
 *   prompt   what it was compared with; empty where no scorer reads texts
 *   sha256   of the picture's file: the scores of a file that changed are made again
 *   KEY      one column a scorer (JSON lines: `scores.KEY`); empty (null) where the score was not finite
 *   models   what each score was made with, as JSON: name of the model, dtype, rounding, weights that were given
 *            and their hash
 *   error    why the picture could not be read
 */
import { existsSync } from "node:fs";
import { z } from "zod";
import { InvalidInputError } from "../errors.js";
import { expectedAndReceived } from "../expectations.js";
import { checkKey } from "../files/plain-data.js";
import { csvLine, filledLines, parseJsonLine, parseTable } from "../files/table-file.js";
import { readStoredFile } from "../files/text-file.js";
import { writeFileAtomic } from "../files/whole-files.js";
import { message, option } from "../message.js";

const modelSchema = z.object({
  /** As `Scorer.name`. */
  name: z.string(),
  /** What its networks computed in. */
  dtype: z.string().optional(),
  /** `upstream` where it was rounded so. */
  precision: z.string().optional(),
  /** The folder or repository that was given instead of the published one. */
  weights: z.string().optional(),
  /** Of the files in that folder. */
  sha256: z.string().optional(),
  /** Of a scorer from a module of the user: the digest of the module's file. */
  version: z.string().optional(),
});

/** What a score was made with. */
export type ScoreModel = z.output<typeof modelSchema>;

const rowSchema = z.object({
  image: z.string().min(1),
  prompt: z.string().nullable(),
  sha256: z.string().nullable(),
  scores: z.record(z.string(), z.number().nullable()),
  models: z.record(z.string(), modelSchema),
  error: z.string().optional(),
});

/** One picture with one text. */
export type OutputRow = z.output<typeof rowSchema>;

/** Tells rows apart. */
export function rowKey({ image, prompt }: Pick<OutputRow, "image" | "prompt">): string {
  return JSON.stringify([image, prompt ?? ""]);
}

/** Whether scores can go to a file of this name. */
export function isOutputName(path: string): boolean {
  return /\.(csv|jsonl)$/i.test(path);
}

/**
 * The rows of a file by {@link rowKey}; none when there is no file.
 * @throws InvalidInputError naming file and line of what is no such row
 */
export function readOutput(path: string): Map<string, OutputRow> {
  const rows = new Map<string, OutputRow>();
  if (!existsSync(path)) return rows;
  const text = readStoredFile(path);
  for (const { value, line } of isCsv(path) ? fromCsv(text, path) : fromLines(text, path)) {
    const parsed = rowSchema.safeParse(value, { error: expectedAndReceived });
    if (!parsed.success) {
      const { path: field, message } = parsed.error.issues[0]!;
      throw notOurs(path, line, `${field.join(".")}: ${message}`);
    }
    for (const key of Object.keys(parsed.data.scores)) checkKey(key, `${path}: line ${line}: scores`);
    rows.set(rowKey(parsed.data), parsed.data);
  }
  return rows;
}

/** Writes all rows, whole or not at all. */
export function writeOutput(path: string, rows: Iterable<OutputRow>): void {
  const all = [...rows];
  const text = isCsv(path) ? toCsv(all) : all.map((row) => `${JSON.stringify(row)}\n`).join("");
  writeFileAtomic(path, text, { overwrite: true });
}

function isCsv(path: string): boolean {
  return /\.csv$/i.test(path);
}

function notOurs(path: string, line: number, why: string): InvalidInputError {
  return new InvalidInputError(
    message`${path}: line ${line}: is no row of scores as this program writes them (${why}); choose another ${option("output")}`,
  );
}

interface Read {
  value: unknown;
  line: number;
}

function fromLines(text: string, path: string): Read[] {
  return filledLines(text).map(({ text: line, number }) => {
    try {
      return { value: parseJsonLine(line), line: number };
    } catch (error) {
      throw notOurs(path, number, (error as Error).message);
    }
  });
}

const FIRST = ["image", "prompt", "sha256"];
const LAST = ["models", "error"];

function toCsv(rows: readonly OutputRow[]): string {
  const keys = [...new Set(rows.flatMap(({ scores }) => Object.keys(scores)))];
  const lines = rows.map(({ image, prompt, sha256, scores, models, error }) => [
    image,
    prompt ?? "",
    sha256 ?? "",
    ...keys.map((key) => (typeof scores[key] === "number" ? String(scores[key]) : "")),
    JSON.stringify(models),
    error ?? "",
  ]);
  return [[...FIRST, ...keys, ...LAST], ...lines].map(csvLine).join("");
}

function fromCsv(text: string, path: string): Read[] {
  const { columns, line: header, rows } = parseTable(text, path);
  const missing = [...FIRST, ...LAST].filter((name) => !columns.includes(name));
  if (columns.length > 0 && missing.length > 0) throw notOurs(path, header, `column ${missing[0]} is missing`);
  const keys = columns.filter((name) => !FIRST.includes(name) && !LAST.includes(name));
  return rows.map(({ cells, line }) => {
    const cell = (name: string) => cells[columns.indexOf(name)]!;
    let models: Record<string, unknown>;
    try {
      models = parseJsonLine(cell("models"));
    } catch (error) {
      throw notOurs(path, line, `models: ${(error as Error).message}`);
    }
    const value = {
      image: cell("image"),
      prompt: cell("prompt"),
      sha256: cell("sha256") || null,
      // What no model was recorded for was not scored.
      scores: Object.fromEntries(
        keys.filter((key) => key in models).map((key) => [key, cell(key) === "" ? null : Number(cell(key))]),
      ),
      models,
      ...(cell("error") !== "" && { error: cell("error") }),
    };
    return { value, line };
  });
}
