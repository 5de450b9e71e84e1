/**
 * Rewards of a folder of generated pictures, `NNNNN/metadata.jsonl` with the prompt of the pictures in `NNNNN/samples`:
 *
 *   rewards.jsonl          a picture a line, as the published tool writes it: `filename`, `prompt`, a number a scorer
 *   rewards_summary.json   the figures, in the forms of both published tools at once, and what made them
 *   rewards_scores.jsonl   what has been computed, by which model, from which content of each file
 *
 * The last file lets a second run compute only what is missing. Columns of scorers that are not asked for stay. Where
 * the folder cannot be written, the last two lie beside the rows and are named after them.
 */
import { existsSync } from "node:fs";
import { dirname, isAbsolute, join, parse, relative, resolve } from "node:path";
import { z } from "zod";
import { checkName } from "../../arguments.js";
import { InvalidInputError } from "../../errors.js";
import type { FileLock } from "../../files/file-lock.js";
import { parsePythonJson, writePythonJson } from "../../files/python-json.js";
import { filledLines, parseJsonLine } from "../../files/table-file.js";
import { readTextFile } from "../../files/text-file.js";
import { readBytes, writeFileAtomic } from "../../files/whole-files.js";
import { isWritable, proveWritable } from "../../files/writable.js";
import { message, option } from "../../message.js";
import { callback, commaSeparated, field, flag, type OptionsOf, parseOptions } from "../../options.js";
import { checkDevice } from "../../pipeline/loading/device.js";
import { checkMemory } from "../../rewards/memory.js";
import { loadScorer, loadScorerSchema, scorerSpec } from "../../rewards/registry.js";
import { lockOutput, scoreFilesWithReport } from "../../rewards/score-files.js";
import { genevalFolders } from "../../rewards/score-inputs.js";
import { readOutput, rowKey, type ScoreModel } from "../../rewards/score-output.js";
import { columnOfKey, type RewardColumn, rewardColumns, weightsByKey } from "./names.js";
import { type RewardFigures, type RewardRow, rewardFigures } from "./summary.js";

const { model: _, onMessage, onDownload, ...scorerOptions } = loadScorerSchema.shape;

export const scoreFolderSchema = z.strictObject({
  /** Scorers by the names of the published evaluation, or by their keys. */
  scorers: field(z.array(z.string().min(1)).min(1).optional(), {
    expected: "names of scorers",
    help: "scorers to run, by the published names (aesthetic, pick_score, image_reward, hpsv2, clip_jina, clip_openai, vqa, sciscore) or by their keys; separated by commas",
    flag: "--scorers <list>",
    parse: commaSeparated,
    otherwise: "those that --weights names; where it names none, the first six",
  }),
  /** The rows. Default: DIR/rewards.jsonl. */
  outfile: field(z.string().min(1).optional(), {
    expected: "a file",
    help: "file of the rows",
    flag: "--outfile <file>",
    writes: "file",
    otherwise: "DIR/rewards.jsonl",
  }),
  /** The figures. Default: DIR/rewards_summary.json; where DIR cannot be written, ROWS_summary.json beside the rows. */
  summary: field(z.string().min(1).optional(), {
    expected: "a file",
    help: "file of the figures",
    flag: "--summary <file>",
    writes: "file",
    otherwise: "DIR/rewards_summary.json; beside --outfile where DIR is read-only",
  }),
  /** Names of files with all their folders, as the published tool writes them; otherwise from the folder on. */
  absolute: flag("write absolute file names, as the published tool does; otherwise from DIR on", "--absolute"),
  ...scorerOptions,
  onMessage,
  onDownload,
  /** Called with the number of pictures done and in all. */
  onProgress: callback<(done: number, total: number) => void>("called with the number of pictures done and in all"),
});

/** Options of {@link scoreFolder}. */
export type ScoreFolderOptions = OptionsOf<typeof scoreFolderSchema>;

/** What a column was made with; absent for columns that another program wrote. */
export type ColumnModel = ScoreModel & { key: string; divisor: number };

/** The contents of `rewards_summary.json`, besides a mean for each scorer under its name. */
export interface RewardSummary extends RewardFigures {
  schema: "miro-rewards-summary-1";
  scorers: Record<string, ColumnModel>;
  /** Pictures that have no score, and why. */
  errors: { filename: string; scorers: string[]; reason: string }[];
}

/** What {@link scoreFolder} finds. */
export interface FolderRewards {
  rows: RewardRow[];
  /** Names of the scorers, in order: those that were asked for first. */
  columns: string[];
  summary: RewardSummary;
  /** Scores that an earlier run had computed. */
  reused: number;
  /** Prompts of which a scorer read only the beginning, by column. */
  truncated: Record<string, number>;
  /** Files that show several pictures, as this program writes them; they are left out. */
  sheets: string[];
}

/**
 * Scores the pictures of a folder, and writes rows and figures.
 *
 * @throws InvalidInputError for a folder of another form, and for unknown scorers; as `scoreFiles`
 */
export async function scoreFolder(folder: string, options: ScoreFolderOptions = {}): Promise<FolderRewards> {
  checkName("folder", folder, "a folder of pictures");
  const parsed = parseOptions(scoreFolderSchema, options);
  const { scorers, outfile, weights } = parsed;
  checkDevice(parsed.device);
  const asked = rewardColumns(scorers, weightsByKey(weights));
  if (genevalFolders(folder).length === 0)
    throw new InvalidInputError(
      `${folder}: expected folders of prompts, each with metadata.jsonl and samples/; to score other pictures use miro score`,
    );
  if (outfile === undefined) proveWritable(folder, "folder", "outfile");
  const rows = outfile ?? join(folder, "rewards.jsonl");
  const isOurs = isWritable(folder);
  const placeOf = (name: string) => (isOurs ? join(folder, name) : besideRows(rows, name));
  const kept = placeOf("rewards_scores.jsonl");
  const files = { kept, rows, summary: parsed.summary ?? placeOf("rewards_summary.json") };
  const lock = await lockOutput(kept, parsed);
  try {
    return await scoreLocked(folder, parsed, { asked, files, lock });
  } finally {
    lock.release();
  }
}

/**
 * Loads scorers once and frees them: that weights are missing or damaged is said before pictures are drawn for them.
 * @throws as {@link scoreFolder} for its scorers
 */
export async function tryScorers(options: ScoreFolderOptions): Promise<void> {
  const {
    scorers,
    outfile: _,
    summary: __,
    absolute: ___,
    onProgress: ____,
    ...load
  } = parseOptions(scoreFolderSchema, options);
  const weights = weightsByKey(load.weights);
  const keys = rewardColumns(scorers, weights).map(({ key }) => key);
  checkMemory(
    keys.map((key) => scorerSpec(key)),
    { ...load, weights },
  );
  for (const key of keys) (await loadScorer(key, { ...load, weights })).dispose();
}

/** Where the results of a folder go. */
interface RewardFiles {
  kept: string;
  rows: string;
  summary: string;
}

/**
 * What {@link scoreFolder} does under its lock: of two processes the later one finds, and writes, the columns of both.
 */
async function scoreLocked(
  folder: string,
  { scorers: _, outfile: __, summary: ___, absolute, weights, ...load }: z.output<typeof scoreFolderSchema>,
  { asked, files, lock }: { asked: readonly RewardColumn[]; files: RewardFiles; lock: FileLock },
): Promise<FolderRewards> {
  const { kept } = files;
  const theirs = join(folder, "rewards_scores.jsonl");
  if (theirs !== kept && existsSync(theirs) && !existsSync(kept)) writeFileAtomic(kept, readBytes(theirs));
  const earlier = existsSync(kept) ? readOutput(kept) : new Map<string, never>();
  const ours = new Set([...earlier.values()].flatMap(({ models }) => Object.keys(models)).map(columnNameOf));
  const report = await scoreFilesWithReport(
    [folder],
    { ...load, weights: weightsByKey(weights), by: asked.map(({ key }) => key), output: kept, root: folder },
    lock,
  );
  const state = readOutput(kept);
  const known = [...state.values()].flatMap(({ models }) => Object.keys(models));
  const made = uniqueColumns([...asked, ...known.map(columnOfKey)]);
  for (const { name } of made) ours.add(name);
  const foreign = foreignScores(files.rows, folder, ours);
  const columns = [...new Set([...made.map(({ name }) => name), ...foreign.columns])];
  const models: Record<string, ColumnModel> = {};
  const errors: RewardSummary["errors"] = [];
  const rows = report.images.map(({ path, prompt, error }): RewardRow => {
    const filename = relative(folder, path);
    const row = state.get(rowKey({ image: filename, prompt }));
    const scores: Record<string, number | null> = {};
    for (const { name, key, divisor } of made) {
      const score = row?.scores[key];
      scores[name] = typeof score === "number" ? score / divisor : null;
      const model = row?.models[key];
      if (model) models[name] ??= { key, ...model, divisor };
    }
    const missing = asked.map(({ name }) => name).filter((name) => scores[name] === null);
    if (missing.length > 0) errors.push({ filename, scorers: missing, reason: error ?? "the score is not finite" });
    for (const name of foreign.columns) scores[name] = foreign.of(filename, prompt ?? "")[name] ?? null;
    return { filename, prompt: prompt ?? "", scores };
  });
  const figures = rewardFigures(rows, columns);
  const summary: RewardSummary = { schema: "miro-rewards-summary-1", ...figures, scorers: models, errors };
  const lines = rows.map(({ filename, prompt, scores }) =>
    JSON.stringify({ filename: absolute ? resolve(folder, filename) : filename, prompt, ...scores }),
  );
  writeFileAtomic(files.rows, lines.map((line) => `${line}\n`).join(""), { overwrite: true });
  const whole = { ...figures.per_image_mean, ...summary };
  writeFileAtomic(files.summary, `${JSON.stringify(whole, null, 2)}\n`, { overwrite: true });
  const truncated = Object.entries(report.truncated).map(([key, count]) => [columnNameOf(key), count]);
  const { reused, sheets } = report;
  return { rows, columns, summary, reused, truncated: Object.fromEntries(truncated), sheets };
}

/** `scores_summary.json` beside `scores.jsonl`: rows of several folders may lie in one. */
function besideRows(rows: string, name: string): string {
  return join(dirname(rows), name.replace("rewards", parse(rows).name));
}

function columnNameOf(key: string): string {
  return columnOfKey(key).name;
}

function uniqueColumns(columns: readonly RewardColumn[]): RewardColumn[] {
  return [...new Map(columns.map((column) => [column.key, column])).values()];
}

const rowSchema = z.looseObject({ filename: z.string(), prompt: z.string() });

/**
 * Columns of an earlier file that this program did not write, as the published tool's are; they stay with their
 * pictures.
 * @throws InvalidInputError naming the line of what is no such row, so that nothing is lost
 */
function foreignScores(path: string, folder: string, ours: ReadonlySet<string>) {
  const columns = new Set<string>();
  const rows = new Map<string, Record<string, number | null>>();
  const keyOf = (filename: string, prompt: string) => JSON.stringify([filename, prompt]);
  if (existsSync(path)) {
    for (const { text, number } of filledLines(readTextFile(path))) {
      const wrong = (why: string) =>
        new InvalidInputError(
          message`${path}: line ${number}: ${why}; move the file away, or choose another ${option("outfile")}`,
        );
      let value: unknown;
      try {
        // The published tool writes NaN bare, where this one has null.
        value = parseJsonLine(/\bNaN\b|\bInfinity\b/.test(text) ? writePythonJson(parsePythonJson(text)) : text);
      } catch (error) {
        throw wrong((error as Error).message);
      }
      const parsed = rowSchema.safeParse(value);
      if (!parsed.success) throw wrong('expected {"filename": "a path", "prompt": "a text", …}');
      const { filename, prompt, ...scores } = parsed.data;
      const others = Object.entries(scores).filter(([name]) => !ours.has(name));
      const bad = others.find(([, score]) => score !== null && typeof score !== "number");
      if (bad) throw wrong(`${bad[0]}: expected a number`);
      for (const [name] of others) columns.add(name);
      const place = isAbsolute(filename) ? relative(resolve(folder), filename) : filename;
      rows.set(keyOf(place, prompt), Object.fromEntries(others) as Record<string, number | null>);
    }
  }
  return {
    columns: [...columns],
    of: (filename: string, prompt: string) => rows.get(keyOf(filename, prompt)) ?? {},
  };
}
