/**
 * Prompt files: what to draw, one picture or several a line, with settings of their own.
 *
 * * `.jsonl`, `.ndjson`: one JSON object a line, `{"prompt": "a fox", "seed": 7, "reward": {"sharpness": 0.2}}`.
 * * `.csv` (RFC 4180), `.tsv` (no quoting): a header row, one column a setting; a reward is a column `reward.KEY`; an
 *   empty cell is no setting.
 * * `.txt` and names like it: text, one prompt a line.
 *
 * Anything else is no list of prompts and is refused: by its name, or because what it holds is another format under
 * such a name. A setting is called as the flag of `miro generate`, with `_` in place of `-`. Everything is checked
 * before anything is drawn; an error names the file and the line.
 */
import { extname } from "node:path";
import { z } from "zod";
import { InvalidInputError, invalid } from "../../errors.js";
import { checkPlainData } from "../../files/plain-data.js";
import { filledLines, parseJsonLine, parseTable } from "../../files/table-file.js";
import { readTextFile } from "../../files/text-file.js";
import { about, message } from "../../message.js";
import { collects, columnOf, declarationOf, field, fromText, parseOptions, perPrompt } from "../../options.js";
import { generateSchema } from "../generate-options.js";

/** What a line says besides the options of `generate`. */
export const promptSchema = z.strictObject({
  /** What to draw. */
  prompt: field(z.string().regex(/\S/), { expected: "a text", help: "what to draw" }),
  /** File name, without its extension. */
  name: field(z.string().min(1).optional(), {
    expected: "a file name or a template of one",
    help: "file name, without its extension",
  }),
  /** Seed of the first picture, the others have the ones after it; random: picks one. Default: 0. */
  seed: field(z.union([z.int().min(0), z.literal("random")]).optional(), {
    expected: "an integer of at least 0, or random",
    help: "seed of the first picture, the others have the ones after it; random: one that nobody chose",
    flag: "--seed <n|random>",
    otherwise: "0",
  }),
});

/**
 * A column, and where its values go among the options of `generate`; no path where they belong to the request itself.
 */
interface Column {
  schema: z.ZodType;
  path: readonly string[];
}

/** The columns by name: those of {@link promptSchema} and the options that may differ from prompt to prompt. */
function columnsOf(options: z.ZodObject): Map<string, Column> {
  const columns = new Map<string, Column>();
  for (const [name, schema] of Object.entries(promptSchema.shape)) columns.set(name, { schema, path: [] });
  for (const [name, schema] of Object.entries<z.ZodType>(perPrompt(options).shape)) {
    const { members } = declarationOf(schema);
    if (!members) columns.set(columnOf(name, schema), { schema, path: [name] });
    for (const [key, member] of Object.entries(members?.() ?? {}))
      columns.set(columnOf(key, member), { schema: member, path: [name, key] });
  }
  return columns;
}

/** One prompt and what is asked of its pictures. */
export interface PromptRequest {
  /** What to draw. */
  prompt: string;
  /** Options of `generate` for this prompt alone. */
  options: PromptOptions;
  /** Seed of its first picture; `random` picks one. */
  seed?: number | "random" | undefined;
  /** File name of its pictures: a template of file-names.ts. */
  name?: string | undefined;
  /** `file:line`, for errors. */
  where?: string;
}

/** The options of `generate` that may differ from prompt to prompt. */
export const promptOptionsSchema = perPrompt(generateSchema);

/** The options of `generate` for one prompt. */
export type PromptOptions = Omit<
  z.output<typeof promptOptionsSchema>,
  "noise" | "promptEmbeddings" | "keepLatents" | "onStep" | "onImage" | "onWarning" | "signal"
>;

/**
 * Reads a prompt file.
 *
 * @param options the options of `generate`; those that may differ from prompt to prompt are its columns
 * @throws InvalidInputError naming file and line of what is wrong; MiroError when the file cannot be read
 *
 * @example
 * ```ts
 * import { writeFileSync } from "node:fs";
 * import { readPromptFile } from "miro-t2i";
 *
 * writeFileSync("prompts.jsonl", '{"prompt": "a fox", "seed": 7, "reward": {"sharpness": 0.2}}');
 * console.log(readPromptFile("prompts.jsonl")[0].options.rewardTargets);
 * ```
 */
export function readPromptFile(path: string, options: z.ZodObject = generateSchema): PromptRequest[] {
  if (typeof path !== "string" || path === "") throw invalid("promptFile", "the name of a file of prompts", path);
  const read = READERS[extname(path).toLowerCase()];
  if (read === undefined) {
    throw new InvalidInputError(
      message`${about("promptFile")}: ${path}: ${extname(path)} is no list of prompts; expected .txt (one prompt a line), .jsonl, .csv or .tsv`,
    );
  }
  return atLeastOne(read(readTextFile(path), path, columnsOf(options)), path);
}

/**
 * The prompts of a text, one a line.
 *
 * @param name of the text, for errors
 */
export function promptLines(text: string, name: string): PromptRequest[] {
  return atLeastOne(fromLines(text, name), name);
}

function atLeastOne(requests: PromptRequest[], name: string): PromptRequest[] {
  if (requests.length === 0) throw new InvalidInputError(message`${about("promptFile")}: ${name} holds no prompt`);
  return requests;
}

type Columns = ReadonlyMap<string, Column>;

const READERS: Record<string, (text: string, path: string, columns: Columns) => PromptRequest[]> = {
  ".jsonl": fromJsonLines,
  ".ndjson": fromJsonLines,
  ".csv": fromTable,
  ".tsv": fromTable,
  ...Object.fromEntries(["", ".txt", ".text", ".list", ".lst", ".prompt", ".prompts"].map((name) => [name, fromLines])),
};

/** How texts of other kinds begin, whatever they are called. */
const OTHER_KINDS: readonly (readonly [RegExp, string])[] = [
  [/^%PDF-/, "a PDF document"],
  [/^\{\\rtf/, "a document in RTF"],
  [/^<(?:!doctype|html|svg|\?xml|!--)/i, "HTML or XML"],
  [/^#!/, "a script"],
  [/^version https:\/\/git-lfs/, "a Git LFS pointer (run git lfs pull)"],
];

function fromLines(text: string, path: string): PromptRequest[] {
  const lines = filledLines(text).map(({ text }) => text.trim());
  const start = lines[0] ?? "";
  const kind = OTHER_KINDS.find(([pattern]) => pattern.test(start))?.[1] ?? (isJson(text, start) ? "JSON" : undefined);
  if (kind !== undefined) {
    const instead = kind === "JSON" ? "; JSON lines are read from a file called .jsonl" : "";
    throw new InvalidInputError(
      message`${about("promptFile")}: ${path}: is ${kind}, expected one prompt a line${instead}`,
    );
  }
  return lines.map((prompt) => ({ prompt, options: {} }));
}

/** Whether a text, or its first line, is an object or a list of JSON. */
function isJson(text: string, firstLine: string): boolean {
  if (!/^[{[]/.test(firstLine)) return false;
  if (firstLine.length === 1) return true;
  return [text, firstLine].some((json) => {
    try {
      return typeof JSON.parse(json) === "object";
    } catch {
      return false;
    }
  });
}

function fromJsonLines(text: string, path: string, columns: Columns): PromptRequest[] {
  const schema = schemaOf(columns);
  return filledLines(text).map(({ text: line, number }) => {
    const where = `${path}:${number}`;
    let value: Record<string, unknown>;
    try {
      value = parseJsonLine(line);
    } catch (error) {
      throw new InvalidInputError(`${where}: ${(error as Error).message}; expected a line such as {"prompt": "a fox"}`);
    }
    return request(value, where, columns, schema);
  });
}

function fromTable(text: string, path: string, known: Columns): PromptRequest[] {
  const { columns, line, rows } = parseTable(text, path);
  if (columns.length === 0) return [];
  const readers = columnReaders(columns, `${path}:${line}`, known);
  const schema = schemaOf(known);
  return rows.map(({ cells, line }) => {
    const where = `${path}:${line}`;
    const values: Record<string, unknown> = {};
    for (const [i, read] of readers.entries()) {
      const cell = cells[i]!;
      if (cell.trim() !== "") inLine(where, () => read(values, cell));
    }
    return request(values, where, known, schema);
  });
}

/** For each column of a table what puts its cells among the values of a line. */
function columnReaders(
  columns: readonly string[],
  where: string,
  known: Columns,
): ((values: Record<string, unknown>, cell: string) => void)[] {
  const isRecord = ({ schema }: Column) => collects(schema) === "record";
  const names = [...known].map(([name, column]) => (isRecord(column) ? `${name}.KEY` : name));
  if (!columns.includes("prompt")) throw new InvalidInputError(`${where}: no column "prompt" in the header`);
  return columns.map((title) => {
    const cut = title.indexOf(".");
    const [name, key] = cut < 0 ? [title, ""] : [title.slice(0, cut), title.slice(cut + 1)];
    const column = known.get(name);
    if (!column || isRecord(column) !== (key !== ""))
      throw new InvalidInputError(`${where}: unknown column ${JSON.stringify(title)}; there are ${names.join(", ")}`);
    if (key === "")
      return (values, cell) => {
        values[name] = fromText(column.schema, cell, name);
      };
    return (values, cell) => {
      const entry = fromText(column.schema, `${key}=${cell}`, `${name}.${key}`) as object;
      values[name] = { ...(values[name] as object | undefined), ...entry };
    };
  });
}

/** What is wrong in a line names the line. */
function inLine<T>(where: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof InvalidInputError) throw new InvalidInputError(message`${where}: ${error}`, { cause: error });
    throw error;
  }
}

function schemaOf(columns: Columns): z.ZodObject {
  return z.strictObject(Object.fromEntries([...columns].map(([name, column]) => [name, column.schema])));
}

/** @param schema of the columns; making it takes longer than a line does */
function request(values: Record<string, unknown>, where: string, columns: Columns, schema: z.ZodObject): PromptRequest {
  return inLine(where, () => {
    checkPlainData(values, (place) => place);
    if (values.prompt === undefined) throw new InvalidInputError("prompt: missing");
    const line = parseOptions(schema, values);
    const own: Record<string, unknown> = {};
    const options: Record<string, unknown> = {};
    for (const [name, { path }] of columns) {
      const value = line[name];
      const [key, member] = path as [string?, string?];
      if (value === undefined) continue;
      if (key === undefined) own[name] = value;
      else if (member === undefined) options[key] = value;
      else options[key] = { ...(options[key] as object | undefined), [member]: value };
    }
    return { ...parseOptions(promptSchema, own), options: options as PromptOptions, where };
  });
}
