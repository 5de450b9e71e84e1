/**
 * Prompt files: what to draw, one picture or several a line, with settings of their own.
 *
 * * `.jsonl`, `.ndjson`: one JSON object a line, `{"prompt": "a fox", "seed": 7, "reward": {"sharpness": 0.2}}`.
 * * `.csv` (RFC 4180): a header row, one column a setting; a reward is a column `reward.KEY`; an empty cell is no setting.
 * * anything else: text, one prompt a line.
 *
 * A setting is called as the flag of `miro generate`, with `_` in place of `-`. Everything is checked before anything is
 * drawn; an error names the file and the line.
 */
import { extname } from "node:path";
import { type CsvError, parse } from "csv-parse/sync";
import { z } from "zod";
import { InvalidInputError, MiroError } from "../../errors.js";
import { readBytes } from "../../files/files.js";
import { field, parseOptions } from "../../options.js";
import { generateSchema } from "../generate-options.js";

const { shape } = generateSchema;
const rewards = z.record(z.string().min(1), z.number()).optional();

/** The settings of one line, under the names that prompt files use. */
export const lineSchema = z.strictObject({
  prompt: field(z.string().regex(/\S/), "a text", "what to draw"),
  name: field(z.string().min(1).optional(), "a file name or a template of one", "file name, without its extension"),
  seed: field(
    z.union([z.int().min(0), z.literal("random")]).optional(),
    "an integer of at least 0, or random",
    "seed of the line's first picture",
  ),
  images: field(shape.imagesPerPrompt.unwrap().optional(), "an integer of at least 1", "pictures of the prompt"),
  reward: field(rewards, "finite numbers by reward name", "what each reward is asked to be"),
  negative_reward: field(rewards, "finite numbers by reward name", "the rewards that guidance leads away from"),
  steps: shape.steps,
  guidance: shape.guidanceScale,
  guidance_type: optional("guidanceType"),
  guidance_window: shape.guidanceWindow,
  sampler: optional("sampler"),
  shift: shape.shift,
  negative_prompt: field(
    z.string().optional(),
    "a text",
    "text that guidance leads away from, instead of the checkpoint's empty one",
  ),
});

/** A field of `generate` without its default: what a line leaves open, the command decides. */
function optional<K extends "guidanceType" | "sampler">(name: K) {
  const inner = shape[name].unwrap();
  const { expected, description } = shape[name].meta() as { expected: string; description: string };
  return field(inner.optional() as z.ZodOptional<typeof inner>, expected, description);
}

/** Names of prompt files for options that are called otherwise in `generate`. */
const OPTION_NAMES: Record<string, string> = {
  images: "imagesPerPrompt",
  guidance: "guidanceScale",
  reward: "rewardTargets",
  negative_reward: "negativeRewardTargets",
  negative_prompt: "negativePrompt",
};

/** One prompt and what is asked of its pictures. */
export interface PromptRequest {
  prompt: string;
  /** Options of `generate` for this prompt alone. */
  options: PromptOptions;
  seed?: number | "random";
  /** File name of its pictures: a template of file-names.ts. */
  name?: string;
  /** `file:line`, for errors. */
  where?: string;
}

/** Options of `generate` that may differ from prompt to prompt. */
export interface PromptOptions {
  imagesPerPrompt?: number;
  rewardTargets?: Record<string, number>;
  negativeRewardTargets?: Record<string, number>;
  [option: string]: unknown;
}

/**
 * Reads a prompt file.
 * @throws InvalidInputError naming file and line of what is wrong; MiroError when the file cannot be read
 */
export function readPromptFile(path: string): PromptRequest[] {
  const text = decode(path);
  const kind = extname(path).toLowerCase();
  const requests =
    kind === ".jsonl" || kind === ".ndjson"
      ? fromJsonLines(text, path)
      : kind === ".csv"
        ? fromCsv(text, path)
        : fromText(text);
  if (requests.length === 0) throw new InvalidInputError(`--prompts: ${path} holds no prompt`);
  return requests;
}

function decode(path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(readBytes(path)); // drops a byte order mark
  } catch (error) {
    if (error instanceof MiroError) throw error;
    throw new InvalidInputError(`${path}: is not UTF-8 text; convert it, for example with iconv`);
  }
}

function fromText(text: string): PromptRequest[] {
  return text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "")
    .map((prompt) => ({ prompt, options: {} }));
}

function fromJsonLines(text: string, path: string): PromptRequest[] {
  return text.split(/\r?\n/).flatMap((line, i) => {
    if (line.trim() === "") return [];
    const where = `${path}:${i + 1}`;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (error) {
      throw new InvalidInputError(`${where}: not valid JSON: ${(error as Error).message.split("\n")[0]}`);
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new InvalidInputError(`${where}: expected a JSON object such as {"prompt": "a fox"}`);
    }
    return [request(value as Record<string, unknown>, where)];
  });
}

function fromCsv(text: string, path: string): PromptRequest[] {
  let rows: { record: string[]; info: { lines: number } }[];
  try {
    rows = parse(text, { info: true, skip_empty_lines: true }) as unknown as typeof rows;
  } catch (error) {
    const { lines, message } = error as CsvError & { lines?: number };
    throw new InvalidInputError(`${path}:${lines ?? 1}: not valid CSV: ${message.split("\n")[0]}`);
  }
  const [header, ...body] = rows;
  if (!header) return [];
  const columns = header.record.map((name) => name.trim());
  checkColumns(columns, `${path}:${header.info.lines}`);
  return body.map(({ record, info }) => {
    const where = `${path}:${info.lines}`;
    const values: Record<string, unknown> = {};
    for (const [i, column] of columns.entries()) {
      const cell = record[i]!;
      if (cell.trim() === "") continue;
      const reward = /^((?:negative_)?reward)\.(.+)$/.exec(column);
      if (!reward) values[column] = cellValue(column, cell);
      else values[reward[1]!] = { ...(values[reward[1]!] as object | undefined), [reward[2]!]: toNumber(cell) };
    }
    return request(values, where);
  });
}

function checkColumns(columns: readonly string[], where: string): void {
  const known = Object.keys(lineSchema.shape).flatMap((name) => (/reward$/.test(name) ? [`${name}.KEY`] : [name]));
  for (const [i, column] of columns.entries()) {
    if (columns.indexOf(column) !== i) throw new InvalidInputError(`${where}: two columns ${JSON.stringify(column)}`);
    const pattern = column.replace(/^((?:negative_)?reward)\..+$/, "$1.KEY");
    if (!known.includes(pattern)) {
      throw new InvalidInputError(`${where}: unknown column ${JSON.stringify(column)}; there are ${known.join(", ")}`);
    }
  }
  if (!columns.includes("prompt")) throw new InvalidInputError(`${where}: no column "prompt" in the header`);
}

/** A cell as the type that its column takes: a number, true or false, FIRST:LAST, else the text itself. */
function cellValue(column: string, cell: string): unknown {
  const text = cell.trim();
  const window = /^(\d*):(\d*)$/.exec(text);
  const candidates: unknown[] = [
    toNumber(text),
    { true: true, false: false }[text.toLowerCase()],
    window && [Number(window[1]), window[2] === "" ? null : Number(window[2])],
    cell,
  ];
  const schema = (lineSchema.shape as Record<string, z.ZodType>)[column]!;
  const fits = candidates.find((value) => value !== undefined && value !== null && schema.safeParse(value).success);
  return fits ?? text;
}

/** The number that a text is, else the text, which the schema then refuses. */
function toNumber(text: string): number | string {
  const value = Number(text);
  return text.trim() === "" || Number.isNaN(value) ? text : value;
}

function request(values: Record<string, unknown>, where: string): PromptRequest {
  let line: z.output<typeof lineSchema>;
  try {
    if (values.prompt === undefined) throw new InvalidInputError("prompt: missing");
    line = parseOptions(lineSchema, values);
  } catch (error) {
    if (error instanceof InvalidInputError) throw new InvalidInputError(`${where}: ${error.message}`, { cause: error });
    throw error;
  }
  const { prompt, name, seed, ...settings } = line;
  const options = Object.entries(settings).filter(([, value]) => value !== undefined);
  return {
    prompt,
    options: Object.fromEntries(options.map(([key, value]) => [OPTION_NAMES[key] ?? camelCase(key), value])),
    ...(seed !== undefined && { seed }),
    ...(name !== undefined && { name }),
    where,
  };
}

function camelCase(name: string): string {
  return name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
}
