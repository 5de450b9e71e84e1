/** The flags that name a checkpoint and say how it samples: the same for every command that draws. */
import { setNumThreads } from "@miro-t2i/torch";
import type { Command } from "commander";
import { InvalidInputError, invalid } from "../errors.js";
import { type SamplerOptionValue, samplerOptionsOfAll } from "../flow/samplers/index.js";
import { help } from "../options.js";
import { generateSchema } from "../pipeline/generate-options.js";
import { bundledModel } from "../pipeline/loading/bundled.js";
import { loadSchema } from "../pipeline/loading/load-options.js";
import { MiroPipeline } from "../pipeline/pipeline.js";
import type { PromptOptions } from "../pipeline/requests/prompt-file.js";
import { toNumber, toNumberOr, toTargets, toWindow } from "./arguments.js";
import type { CliContext } from "./context.js";
import { kebabCase, withFlags } from "./flag-names.js";
import type { Progress } from "./progress.js";

/** What the flags of {@link addModelFlags} give. */
export interface ModelFlags {
  model?: string;
  variant?: string;
  revision?: string;
  textEncoder?: string;
  textEncoderDtype?: string;
  vae?: string;
  lowMemory?: boolean;
  device?: string;
  dtype?: string;
  quantize?: string;
  threads?: number;
  cacheDir?: string;
}

/** What the flags of {@link addSamplingFlags} give. */
export interface SamplingFlags {
  reward?: Record<string, number>;
  negativeReward?: Record<string, number>;
  steps?: number;
  guidance?: number;
  guidanceType?: string;
  guidanceWindow?: [number, number | null];
  sampler?: string;
  shift?: number | "dynamic";
  negativePrompt?: string;
  /** The options that samplers have of their own, such as `eta`. */
  [samplerOption: string]: unknown;
}

/** What the command line calls the fields of the options. */
const NAMES: Record<string, string> = {
  model: "--model",
  variant: "--variant",
  device: "--device",
  dtype: "--dtype",
  revision: "--revision",
  cacheDir: "--cache-dir",
  textEncoder: "--text-encoder",
  vae: "--vae",
  textEncoderDtype: "--text-encoder-dtype",
  quantization: "--quantize",
  lowMemory: "--low-memory",
  rewardTargets: "--reward",
  negativeRewardTargets: "--negative-reward",
  steps: "--steps",
  guidanceScale: "--guidance",
  guidanceType: "--guidance-type",
  guidanceWindow: "--guidance-window",
  sampler: "--sampler",
  shift: "--shift",
  negativePrompt: "--negative-prompt",
};

const h = (name: string) => help(generateSchema, name) || help(loadSchema, name);

/** Which checkpoint, with which parts, on which device. */
export function addModelFlags(command: Command): Command {
  return command
    .option(
      "--model <repo|dir>",
      "checkpoint: folder, or repository on the Hugging Face Hub (default: the bundled model)",
    )
    .option("--variant <name>", h("variant"))
    .option("--revision <name>", h("revision"))
    .option("--text-encoder <repo|dir>", h("textEncoder"))
    .option("--text-encoder-dtype <name>", h("textEncoderDtype"))
    .option("--vae <repo|dir>", h("vae"))
    .option("--low-memory", h("lowMemory"))
    .option("--device <name>", h("device"))
    .option("--dtype <name>", h("dtype"))
    .option("--quantize <type>", h("quantization"))
    .option("--threads <n>", "processor threads", toNumber("--threads"))
    .option("--cache-dir <dir>", h("cacheDir"));
}

/** What is asked of the pictures, and how they are computed. */
export function addSamplingFlags(command: Command): Command {
  command
    .option("--reward <key=value>", h("rewardTargets"), toTargets("--reward"))
    .option("--negative-reward <key=value>", h("negativeRewardTargets"), toTargets("--negative-reward"))
    .option("--steps <n>", h("steps"), toNumber("--steps"))
    .option("--guidance <w>", h("guidanceScale"), toNumber("--guidance"))
    .option("--guidance-type <type>", h("guidanceType"))
    .option("--guidance-window <first:last>", h("guidanceWindow"), toWindow("--guidance-window"))
    .option("--sampler <name>", h("sampler"))
    .option("--shift <s>", h("shift"), toNumberOr("--shift", ["dynamic"]))
    .option("--negative-prompt <text>", h("negativePrompt"));
  for (const { key, description, samplers } of samplerOptionsOfAll())
    command.option(`--${kebabCase(key)} <value>`, `${description} (${samplers.join(", ")})`, toValue);
  return command;
}

/** A value of a sampler's option: a number or a truth value where the text is one. Its sampler checks it. */
function toValue(text: string): SamplerOptionValue {
  if (text === "true" || text === "false") return text === "true";
  return text.trim() === "" || Number.isNaN(Number(text)) ? text : Number(text);
}

/** The options of `generate` that flags give; what no flag gives has its default elsewhere. */
export function samplingOptions(flags: SamplingFlags): PromptOptions {
  const { reward, negativeReward, guidance, steps, guidanceType, guidanceWindow, sampler, shift, negativePrompt } =
    flags;
  const given = samplerOptionsOfAll().filter(({ key }) => flags[key] !== undefined);
  const samplerOptions = Object.fromEntries(given.map(({ key }) => [key, flags[key] as SamplerOptionValue]));
  return defined({
    rewardTargets: reward,
    negativeRewardTargets: negativeReward,
    steps,
    guidanceScale: guidance,
    guidanceType,
    guidanceWindow,
    sampler,
    samplerOptions: given.length > 0 ? samplerOptions : undefined,
    shift,
    negativePrompt,
  });
}

/** The checkpoint that is meant. @throws InvalidInputError when none is named and the bundled one is not there */
export function chosenModel(model: string | undefined): string {
  const chosen = model ?? bundledModel();
  if (chosen !== null) return chosen;
  throw new InvalidInputError("--model: the bundled model is not in this copy; name a folder or a repository");
}

/** Refuses a number of threads that cannot be. */
export function checkThreads({ threads }: ModelFlags): void {
  if (threads !== undefined && (!Number.isInteger(threads) || threads < 1))
    throw invalid("--threads", "an integer of at least 1", threads);
}

/** Loads a checkpoint as the flags say, with its downloads shown. */
export function loadPipeline(
  model: string,
  flags: ModelFlags,
  { signal, stderr }: CliContext,
  progress: Progress,
): Promise<MiroPipeline> {
  const { variant, revision, textEncoder, vae, lowMemory, device, cacheDir } = flags;
  if (flags.threads !== undefined) setNumThreads(flags.threads);
  return MiroPipeline.fromPretrained(model, {
    ...defined({ variant, revision, textEncoder, vae, lowMemory, device, cacheDir }),
    ...defined({
      dtype: flags.dtype as "auto" | undefined,
      textEncoderDtype: flags.textEncoderDtype as "auto" | undefined,
      quantization: flags.quantize as "none" | undefined,
    }),
    signal,
    onDownload: (now) => progress.download(now),
    onMessage: (message) => {
      progress.stop();
      stderr(`${message}\n`);
    },
  });
}

/** Lets errors speak of flags instead of options: `steps: expected …` → `--steps: expected …`. */
export async function withFlagNames<T>(names: Readonly<Record<string, string>>, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof InvalidInputError)) throw error;
    const own = samplerOptionsOfAll().map(({ key }) => [`samplerOptions.${key}`, `--${kebabCase(key)}`]);
    const message = withFlags(error.wording, { ...NAMES, ...Object.fromEntries(own), ...names });
    throw new InvalidInputError(message, { cause: error });
  }
}

/** The entries that are there. */
function defined<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T;
}
