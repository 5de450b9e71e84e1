/**
 * The prompt testbed: a fixed list of prompts that every run draws, so that runs can be compared by eye. A folder in
 * the published layout:
 *
 *   metadata.csv                `file_name,text`, a row for each prompt; decides the order
 *   prompts.txt                 the same texts, one a line, for people
 *   NAME_embeddings/*.npy states of a text encoder for each prompt, (tokens, width) float32; NAME is the encoder's
 *   NAME_embeddings/made.json which encoder and which texts they were made from (ours; the published tools do not read
 *     it)
 *
 * File names may be written with or without `.npy`.
 */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { memory, noGrad, scope, type Tensor } from "@miro-t2i/torch";
import { readNpy, writeNpy } from "@miro-t2i/torch/io";
import { z } from "zod";
import { checkName, checkObject } from "../../arguments.js";
import { locateModels } from "../../data/preprocess/latent-models.js";
import { modelFingerprint } from "../../data/preprocess/model-fingerprint.js";
import { InvalidInputError, invalid, MiroError } from "../../errors.js";
import { sha256 } from "../../files/sha256.js";
import { parseTable } from "../../files/table-file.js";
import { linesOf, readTextFile } from "../../files/text-file.js";
import { readJson, writeFileAtomic } from "../../files/whole-files.js";
import { proveWritable } from "../../files/writable.js";
import { type Message, message, option } from "../../message.js";
import { counted } from "../../numbers.js";
import { abortSignal, callback, field, flag, type OptionsOf, parseOptions } from "../../options.js";
import { checkDevice } from "../../pipeline/loading/device.js";
import { loadSchema } from "../../pipeline/loading/load-options.js";
import { T5Encoder } from "../../text/t5.js";
import { Tokenizer } from "../../text/tokenizer.js";

/** The file of the prompts, and the list of them for people. */
const METADATA = "metadata.csv";
const LIST = "prompts.txt";

/** Prompts that a testbed has unless it is said otherwise. */
const TESTBED_PROMPTS = 80;

/** Where the testbed lies unless it is said otherwise. */
export const TESTBED_FOLDER = "datasets/text_prompt_testbed";

/**
 * The folder of the prompts that come with the program, or null where they are not there: inside the package where it
 * is installed, at the root of the repository in a clone.
 */
export function bundledTestbed(): string | null {
  for (const up of ["../../..", "../../../../.."]) {
    const folder = fileURLToPath(new URL(`${up}/${TESTBED_FOLDER}`, import.meta.url));
    if (hasTestbed(folder)) return folder;
  }
  return null;
}

/** Whether a folder has the prompts of a testbed. */
export function hasTestbed(folder: string): boolean {
  return existsSync(join(folder, METADATA));
}

/** Puts the prompts that come with the program into a folder. @returns whether there are any */
export function placeTestbed(folder: string): boolean {
  const bundled = bundledTestbed();
  // The table comes last: a folder that has it is whole.
  for (const name of bundled === null ? [] : [LIST, METADATA])
    writeFileAtomic(join(folder, name), readTextFile(join(bundled!, name)), { overwrite: true });
  return bundled !== null;
}

/** One prompt. */
export interface TestbedPrompt {
  /** Name of its embeddings file, with `.npy`. */
  file: string;
  text: string;
}

/**
 * Reads and checks the prompts of a testbed.
 *
 * @param count how many there must be; null for any number
 * @throws InvalidInputError naming file and row: missing columns, names that are no file names, a text or a name twice,
 *   an empty text, another number of prompts, or a prompts.txt that differs
 */
export function readTestbed(folder: string, options: { count?: number | null | undefined } = {}): TestbedPrompt[] {
  checkObject("options", options, "{ count }");
  const { count = TESTBED_PROMPTS } = options;
  checkName("folder", folder, "the folder of a testbed");
  const path = join(folder, METADATA);
  const fail = (what: string | Message): never => {
    throw new InvalidInputError(what);
  };
  const { columns, line, rows } = parseTable(readTextFile(path), path);
  const [nameColumn, textColumn] = [columns.indexOf("file_name"), columns.indexOf("text")];
  if (nameColumn < 0 || textColumn < 0)
    fail(`${path}:${line}: expected the columns file_name,text, found ${JSON.stringify(columns.join(","))}`);
  const prompts: TestbedPrompt[] = [];
  const seen = new Map<string, number>();
  for (const [i, { cells }] of rows.entries()) {
    const [name, text] = [cells[nameColumn]!, cells[textColumn]!];
    const where = `${path}, prompt ${i + 1}`;
    if (!/^[^/\\\0]+$/.test(name) || name.startsWith("."))
      fail(`${where}: expected a file name, found ${JSON.stringify(name)}`);
    if (text.trim() === "") fail(`${where}: has no text`);
    const file = name.endsWith(".npy") ? name : `${name}.npy`;
    for (const once of [`file name ${file}`, `text ${JSON.stringify(text)}`]) {
      const earlier = seen.get(once);
      if (earlier !== undefined) fail(`${where}: has the ${once} of prompt ${earlier}`);
      seen.set(once, i + 1);
    }
    prompts.push({ file, text });
  }
  if (count !== null && prompts.length !== count)
    fail(
      message`${path}: expected ${counted(count, "prompt")}, found ${prompts.length}; if that is intended, give ${option("count", prompts.length)}`,
    );
  const listPath = join(folder, LIST);
  if (existsSync(listPath)) {
    const lines = linesOf(readTextFile(listPath));
    const at = Array.from({ length: Math.max(lines.length, prompts.length) }).findIndex(
      (_, i) => lines[i] !== prompts[i]?.text,
    );
    if (at >= 0)
      fail(
        `${listPath}, line ${at + 1}: ${JSON.stringify(lines[at] ?? "nothing")} is not what metadata.csv has there, ${JSON.stringify(prompts[at]?.text ?? "nothing")}; change both in step`,
      );
  }
  return prompts;
}

/** What is declared once for {@link prepareTestbed} and the command. */
export const testbedOptionsSchema = z.strictObject({
  /** Folder with metadata.csv. */
  folder: field(z.string().min(1), { expected: "a folder", help: "folder with metadata.csv" }),
  /** Checkpoint whose text encoder is used: a folder or a repository. */
  model: field(z.string().min(1).optional(), {
    expected: "a folder or a repository",
    help: "release folder, run of miro train or repository whose text encoder is used",
    flag: "--model <repo|dir>",
  }),
  /** T5 encoder: a folder or a repository. Default: the model's, else google/flan-t5-xl. */
  textEncoder: field(z.string().min(1).optional(), {
    expected: "a folder or a repository",
    help: "T5 encoder",
    flag: "--text-encoder <repo|dir>",
    otherwise: "the model's, else google/flan-t5-xl",
  }),
  /** Name of the text encoder: the files go to NAME_embeddings/. Default: flan_t5_xl. */
  embeddingsName: field(
    z
      .string()
      .regex(/^[\w.-]+$/)
      .default("flan_t5_xl"),
    {
      expected: "letters, digits, '.', '_' and '-'",
      help: "name of the text encoder: the files go to NAME_embeddings/",
      flag: "--embeddings-name <name>",
    },
  ),
  /** Prompts that there must be; null for any number. */
  count: field(z.int().positive().nullable().default(TESTBED_PROMPTS), {
    expected: "a positive integer",
    help: "prompts that there must be",
    flag: "--count <n>",
  }),
  /** Tokens of a prompt. Default: 2048. */
  textMaxLength: field(z.int().positive().default(2048), {
    expected: "a positive integer",
    help: "tokens of a prompt",
    flag: "--text-max-length <n>",
  }),
  /** `cpu`, `cuda`, `cuda:1`, … */
  device: loadSchema.shape.device,
  /** Cache of downloads. Default: that of Python's huggingface_hub. */
  cacheDir: loadSchema.shape.cacheDir,
  /** Compute all anew. */
  overwrite: flag("compute all anew", "--overwrite"),
  /** Called after every prompt. */
  onProgress: callback<(done: number, total: number) => void>("called after every prompt"),
  /** Stops after the prompt at hand. */
  signal: abortSignal("stops after the prompt at hand"),
});

/** Options of {@link prepareTestbed}. */
export type TestbedOptions = OptionsOf<typeof testbedOptionsSchema>;

/** What {@link prepareTestbed} has done. */
export interface TestbedResult {
  folder: string;
  embeddings: string;
  prompts: number;
  computed: number;
  /** Were there, made by the same encoder from the same texts. */
  kept: number;
  /** Prompts of more tokens than the limit. */
  cut: string[];
}

const madeSchema = z.object({
  format: z.literal(1),
  /** Digest of the text encoder's files. */
  text_encoder: z.string(),
  text_max_length: z.number(),
  /** SHA-256 of the text that each file was made from. */
  texts: z.record(z.string(), z.string()),
});

/**
 * Computes the text encoder's states of every prompt, in float32, one prompt at a time. What is there already, made by
 * the same encoder from the same text, stays; so an interrupted call goes on where it was.
 *
 * @throws InvalidInputError when the testbed is not right, see {@link readTestbed}
 */
export async function prepareTestbed(options: TestbedOptions): Promise<TestbedResult> {
  const {
    folder,
    model,
    textEncoder,
    embeddingsName,
    count,
    textMaxLength,
    overwrite,
    onProgress,
    signal,
    cacheDir,
    ...rest
  } = parseOptions(testbedOptionsSchema, options);
  const prompts = readTestbed(folder, { count });
  const device = checkDevice(rest.device);
  const target = join(folder, `${embeddingsName}_embeddings`);
  proveWritable(target, "folder", "folder");
  const located = await locateModels({
    model,
    textEncoder,
    cacheDir,
    signal,
    textEmbeddings: true,
    vae: undefined,
    vae256: false,
    vae512: false,
  });
  const encoderFolder = located.textEncoder!;
  const madePath = join(target, "made.json");
  const identity = { text_encoder: modelFingerprint(encoderFolder), text_max_length: textMaxLength };
  const earlier = overwrite ? null : readMade(madePath);
  const same = earlier?.text_encoder === identity.text_encoder && earlier.text_max_length === identity.text_max_length;
  const texts: Record<string, string> = {};
  for (const { file, text } of prompts)
    if (same && earlier.texts[file] === sha256(text) && existsSync(join(target, file))) texts[file] = sha256(text);
  const kept = Object.keys(texts).length;
  const save = () =>
    writeFileAtomic(madePath, `${JSON.stringify({ format: 1, ...identity, texts }, null, 2)}\n`, { overwrite: true });
  save(); // entries of another encoder are dropped
  const result: TestbedResult = { folder, embeddings: target, prompts: prompts.length, computed: 0, kept, cut: [] };
  onProgress?.(kept, prompts.length);
  if (kept === prompts.length) return result;

  const tokenizer = await Tokenizer.fromFile(encoderFolder);
  const encoder = await T5Encoder.fromPretrained(encoderFolder, { device, dtype: "float32", signal });
  encoder.requiresGrad_(false).eval();
  try {
    for (const { file, text } of prompts) {
      signal?.throwIfAborted();
      if (texts[file] !== undefined) continue;
      scope(() =>
        noGrad(() => {
          const batch = tokenizer.encodeBatch([text], { maxLength: textMaxLength, padTo: "longest" });
          if (batch.overflow[0]) result.cut.push(text);
          const states = encoder.forward(batch.ids.to({ device }), batch.mask.to({ device })).select(0, 0);
          if (!states.isfinite().all().item())
            throw new MiroError(`${file}: the text encoder gives values that are not finite`);
          rmSync(join(target, file), { force: true });
          writeNpy(join(target, file), states.to({ device: "cpu", dtype: "float32" }).contiguous());
        }),
      );
      texts[file] = sha256(text);
      result.computed++;
      save();
      onProgress?.(kept + result.computed, prompts.length);
    }
  } finally {
    encoder.dispose();
    memory.emptyCache();
  }
  return result;
}

/** A prompt with the states of a text encoder. */
export interface EmbeddedPrompt extends TestbedPrompt {
  /** (tokens, width) float32, on the CPU; owned by the caller. */
  embeddings: Tensor;
}

/**
 * Reads a testbed with its embeddings. Files of the published tools, which come without `made.json`, are taken as they
 * are.
 *
 * @param width of the states, as the network expects it
 * @throws InvalidInputError naming the file that is missing, is not (tokens, width), has values that are not finite, or
 *   was made from another text than metadata.csv has now
 */
export function readEmbeddedTestbed(
  folder: string,
  options: { embeddingsName: string; width: number; count?: number | null | undefined },
): EmbeddedPrompt[] {
  checkName("folder", folder, "the folder of a testbed");
  checkObject("options", options, "{ embeddingsName, width }", ["embeddingsName", "width"]);
  const { embeddingsName, width, count = TESTBED_PROMPTS } = options;
  const source = join(folder, `${embeddingsName}_embeddings`);
  const made = readMade(join(source, "made.json"));
  const again = `run miro testbed ${folder} --embeddings-name ${embeddingsName}`;
  const read: EmbeddedPrompt[] = [];
  try {
    for (const { file, text } of readTestbed(folder, { count })) {
      const path = join(source, file);
      if (!existsSync(path)) throw new InvalidInputError(`${path}: is not there; ${again}`);
      if (made !== null && made.texts[file] !== sha256(text))
        throw new InvalidInputError(`${path}: was not made from ${JSON.stringify(text)}; ${again}`);
      const embeddings = scope(() => {
        const states = readNpy(path).float();
        if (states.ndim !== 2 || states.size(0) === 0 || states.size(1) !== width)
          throw new InvalidInputError(
            `${path}: expected the shape (tokens, ${width}), found (${states.shape.join(", ")}); ${again} with the text encoder of the data`,
          );
        if (!states.isfinite().all().item())
          throw new InvalidInputError(`${path}: holds values that are not finite; ${again}`);
        return states.keep();
      });
      read.push({ file, text, embeddings });
    }
  } catch (error) {
    for (const { embeddings } of read) embeddings.dispose();
    throw error;
  }
  return read;
}

function readMade(path: string): z.output<typeof madeSchema> | null {
  if (!existsSync(path)) return null;
  const made = madeSchema.safeParse(readJson(path));
  if (!made.success)
    throw invalid(
      path,
      "the record of earlier embeddings; remove the file to compute them anew",
      message`something else`,
    );
  return made.data;
}
