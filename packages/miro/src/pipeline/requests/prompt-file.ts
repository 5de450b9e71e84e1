/**
 * Prompt files: what to draw, one picture or several a line, with settings of their own.
 *
 * * `.jsonl`, `.ndjson`: one JSON object a line, `{"prompt": "a fox", "seed": 7, "reward": {"sharpness": 0.2}}`.
 * * `.csv` (RFC 4180), `.tsv` (no quoting): a header row, one column a setting; a reward is a column `reward.KEY`; an empty cell is no
 *   setting.
 * * `.txt` and names like it: text, one prompt a line.
 *
 * Anything else is no list of prompts and is refused: by its name, or because what it holds is another format under such a name. A setting
 * is called as the flag of `miro generate`, with `_` in place of `-`. Everything is checked before anything is drawn; an error names the file
 * and the line.
 */
import { extname } from "node:path";
import { z } from "zod";
import { InvalidInputError } from "../../errors.js";
import { checkPlainData } from "../../files/plain-data.js";
import { filledLines, parseJsonLine, parseTable } from "../../files/table-file.js";
import { readTextFile } from "../../files/text-file.js";
import { type SamplerOptionValue, samplerOptionsOfAll } from "../../flow/samplers/index.js";
import { camelCase, snakeCase } from "../../letter-case.js";
import { about, message } from "../../message.js";
import { field, parseOptions, type Words } from "../../options.js";
import { generateSchema } from "../generate-options.js";

const { shape } = generateSchema;
const rewards = z.record(z.string().min(1), z.number()).optional();

/** The settings of one line, under the names that prompt files use; those of {@link samplerColumns} come on top. */
const lineSchema = z.strictObject({
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

/** The options that samplers have of their own. Which of them a line may have, its sampler decides. */
function samplerColumns() {
  const value = z.union([z.number(), z.boolean(), z.string()]).optional();
  return Object.fromEntries(
    samplerOptionsOfAll().map(({ key, description }) => [snakeCase(key), field(value, "a value", description)]),
  );
}

/** A field of `generate` without its default: what a line leaves open, the command decides. */
function optional<K extends "guidanceType" | "sampler">(name: K) {
  const inner = shape[name].unwrap();
  const { expected, description } = shape[name].meta() as unknown as { expected: Words; description: Words };
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
  sampler?: string;
  samplerOptions?: Record<string, SamplerOptionValue>;
  [option: string]: unknown;
}

/**
 * Reads a prompt file.
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
export function readPromptFile(path: string): PromptRequest[] {
  const read = READERS[extname(path).toLowerCase()];
  if (read === undefined) {
    throw new InvalidInputError(
      message`${about("prompts")}: ${path}: ${extname(path)} is no list of prompts; expected .txt (one prompt a line), .jsonl, .csv or .tsv`,
    );
  }
  const requests = read(readTextFile(path), path);
  if (requests.length === 0) throw new InvalidInputError(message`${about("prompts")}: ${path} holds no prompt`);
  return requests;
}

const READERS: Record<string, (text: string, path: string) => PromptRequest[]> = {
  ".jsonl": fromJsonLines,
  ".ndjson": fromJsonLines,
  ".csv": fromTable,
  ".tsv": fromTable,
  ...Object.fromEntries(["", ".txt", ".text", ".list", ".lst", ".prompt", ".prompts"].map((name) => [name, fromText])),
};

/** How texts of other kinds begin, whatever they are called. */
const OTHER_KINDS: readonly (readonly [RegExp, string])[] = [
  [/^%PDF-/, "a PDF document"],
  [/^\{\\rtf/, "a document in RTF"],
  [/^<(?:!doctype|html|svg|\?xml|!--)/i, "HTML or XML"],
  [/^#!/, "a script"],
  [/^version https:\/\/git-lfs/, "a Git LFS pointer (run git lfs pull)"],
];

function fromText(text: string, path: string): PromptRequest[] {
  const lines = filledLines(text).map(({ text }) => text.trim());
  const start = lines[0] ?? "";
  const kind = OTHER_KINDS.find(([pattern]) => pattern.test(start))?.[1] ?? (isJson(text, start) ? "JSON" : undefined);
  if (kind !== undefined) {
    const instead = kind === "JSON" ? "; JSON lines are read from a file called .jsonl" : "";
    throw new InvalidInputError(
      message`${about("prompts")}: ${path}: is ${kind}, expected one prompt a line${instead}`,
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

function fromJsonLines(text: string, path: string): PromptRequest[] {
  return filledLines(text).map(({ text: line, number }) => {
    const where = `${path}:${number}`;
    let value: Record<string, unknown>;
    try {
      value = parseJsonLine(line);
    } catch (error) {
      throw new InvalidInputError(`${where}: ${(error as Error).message}; expected a line such as {"prompt": "a fox"}`);
    }
    return request(value, where);
  });
}

function fromTable(text: string, path: string): PromptRequest[] {
  const { columns, line, rows } = parseTable(text, path);
  if (columns.length === 0) return [];
  checkColumns(columns, `${path}:${line}`);
  return rows.map(({ cells, line }) => {
    const where = `${path}:${line}`;
    const values: Record<string, unknown> = {};
    for (const [i, column] of columns.entries()) {
      const cell = cells[i]!;
      if (cell.trim() === "") continue;
      const reward = /^((?:negative_)?reward)\.(.+)$/.exec(column);
      if (!reward) values[column] = cellValue(column, cell);
      else values[reward[1]!] = { ...(values[reward[1]!] as object | undefined), [reward[2]!]: toNumber(cell) };
    }
    return request(values, where);
  });
}

function checkColumns(columns: readonly string[], where: string): void {
  const shape = { ...lineSchema.shape, ...samplerColumns() };
  const known = Object.keys(shape).flatMap((name) => (/reward$/.test(name) ? [`${name}.KEY`] : [name]));
  for (const column of columns) {
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
  const schema = ({ ...lineSchema.shape, ...samplerColumns() } as Record<string, z.ZodType>)[column]!;
  const fits = candidates.find((value) => value !== undefined && value !== null && schema.safeParse(value).success);
  return fits ?? text;
}

/** The decimal number that a text is, else the text, which the schema then refuses. */
function toNumber(text: string): number | string {
  return /^[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?$/.test(text.trim()) ? Number(text) : text;
}

function request(values: Record<string, unknown>, where: string): PromptRequest {
  let line: z.output<typeof lineSchema>;
  try {
    checkPlainData(values, (place) => place);
    if (values.prompt === undefined) throw new InvalidInputError("prompt: missing");
    line = parseOptions(lineSchema.extend(samplerColumns()), values) as unknown as typeof line;
  } catch (error) {
    if (error instanceof InvalidInputError) throw new InvalidInputError(message`${where}: ${error}`, { cause: error });
    throw error;
  }
  const { prompt, name, seed, ...settings } = line;
  const options = Object.entries(settings).filter(([, value]) => value !== undefined);
  const columns = samplerColumns();
  const ofSampler = options.filter(([key]) => Object.hasOwn(columns, key)) as [string, SamplerOptionValue][];
  const own = options.filter(([key]) => !Object.hasOwn(columns, key));
  return {
    prompt,
    options: {
      ...Object.fromEntries(own.map(([key, value]) => [OPTION_NAMES[key] ?? camelCase(key), value])),
      ...(ofSampler.length > 0 && {
        samplerOptions: Object.fromEntries(ofSampler.map(([key, value]) => [camelCase(key), value])),
      }),
    },
    ...(seed !== undefined && { seed }),
    ...(name !== undefined && { name }),
    where,
  };
}
