/** `miro generate`: text to PNG files. Parses, calls {@link MiroPipeline}, writes, prints. */
import { existsSync, mkdirSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { readNpy, setNumThreads, type Tensor, writeNpy } from "@miro-t2i/torch";
import { InvalidInputError, invalid, MiroError, systemReason } from "../errors.js";
import { help, parseOptions } from "../options.js";
import { bundledModel } from "../pipeline/bundled.js";
import { existing, readText, writeFileAtomic } from "../pipeline/files.js";
import { type GenerateOptions, generateSchema } from "../pipeline/generate-options.js";
import { contactSheet } from "../pipeline/images.js";
import { loadSchema } from "../pipeline/load-options.js";
import { type GeneratedImage, settingsToText } from "../pipeline/metadata.js";
import { MiroPipeline } from "../pipeline/pipeline.js";
import { encodePng } from "../pipeline/png.js";
import { toNumber, toTargets, toWindow } from "./arguments.js";
import type { CliContext, Register } from "./context.js";
import { sheetPrompts } from "./default-sheet.js";
import { Progress } from "./progress.js";

const DEFAULT_OUTPUT = "pictures";

const EXAMPLES = `
Examples:
  miro generate                                          a sheet of example pictures
  miro generate "a red apple on a light blue background"
  miro generate "a fox" "a cat" --images 4 --seed 7      eight pictures, seeds 7 to 14
  miro generate "a fox" --reward sharpness=0.2 --guidance 3 --steps 30
  miro generate "a steampunk robot" --model nicolas-dufour/miro --device cuda
  miro generate --prompts prompts.txt --output pictures --json

Pictures are named PROMPT-seedSEED.png and hold their settings (see: miro info PICTURE). Without --output they go
to ./${DEFAULT_OUTPUT}, numbered where a name is taken; in a folder given with --output nothing is replaced unless --overwrite
is given. --output may also name the .png file of a single picture.
`;

interface Flags {
  model?: string;
  variant?: string;
  revision?: string;
  textEncoder?: string;
  vae?: string;
  reward?: Record<string, number>;
  negativeReward?: Record<string, number>;
  steps?: number;
  guidance?: number;
  guidanceType?: string;
  guidanceWindow?: [number, number | null];
  sampler?: string;
  shift?: number;
  seed?: number;
  images?: number;
  batchSize?: number;
  prompts?: string;
  device?: string;
  dtype?: string;
  threads?: number;
  textEncoderDtype?: string;
  lowMemory?: boolean;
  output?: string;
  overwrite?: boolean;
  initNoise?: string;
  saveLatents?: string;
  cacheDir?: string;
  json?: boolean;
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
  lowMemory: "--low-memory",
  rewardTargets: "--reward",
  negativeRewardTargets: "--negative-reward",
  steps: "--steps",
  guidanceScale: "--guidance",
  guidanceType: "--guidance-type",
  guidanceWindow: "--guidance-window",
  sampler: "--sampler",
  shift: "--shift",
  imagesPerPrompt: "--images",
  seed: "--seed",
  noise: "--init-noise",
  batchSize: "--batch-size",
};

export const register: Register = (command, context) => {
  const h = (name: string) => help(generateSchema, name) || help(loadSchema, name);
  command
    .argument("[prompt...]", "what to draw; none: a sheet of examples")
    .option(
      "--model <repo|dir>",
      "checkpoint: folder, or repository on the Hugging Face Hub (default: the bundled model)",
    )
    .option("--variant <name>", h("variant"))
    .option("--revision <name>", h("revision"))
    .option("--text-encoder <repo|dir>", h("textEncoder"))
    .option("--vae <repo|dir>", h("vae"))
    .option("--reward <key=value>", h("rewardTargets"), toTargets("--reward"))
    .option("--negative-reward <key=value>", h("negativeRewardTargets"), toTargets("--negative-reward"))
    .option("--steps <n>", h("steps"), toNumber("--steps"))
    .option("--guidance <w>", h("guidanceScale"), toNumber("--guidance"))
    .option("--guidance-type <type>", h("guidanceType"))
    .option("--guidance-window <first:last>", h("guidanceWindow"), toWindow("--guidance-window"))
    .option("--sampler <name>", h("sampler"))
    .option("--shift <s>", h("shift"), toNumber("--shift"))
    .option("--seed <n>", `${h("seed")}; default 0`, toNumber("--seed"))
    .option("--images <n>", `${h("imagesPerPrompt")}; default 1`, toNumber("--images"))
    .option("--batch-size <n>", h("batchSize"), toNumber("--batch-size"))
    .option("--prompts <file>", "text file with one prompt a line")
    .option("--device <name>", h("device"))
    .option("--dtype <name>", h("dtype"))
    .option("--text-encoder-dtype <name>", h("textEncoderDtype"))
    .option("--low-memory", h("lowMemory"))
    .option("--threads <n>", "processor threads", toNumber("--threads"))
    .option("--output <dir>", `folder of the pictures, or the .png file of one (default: ./${DEFAULT_OUTPUT})`)
    .option("--overwrite", "replace files that exist")
    .option("--init-noise <file.npy>", "initial noise (pictures, channels, r, r) float32 instead of seeds")
    .option("--save-latents <file.npy>", "store the latents (pictures, channels, r, r) float32")
    .option("--cache-dir <dir>", h("cacheDir"))
    .option("--json", "print one JSON object on stdout")
    .addHelpText("after", EXAMPLES)
    .action(async (prompts: string[], flags: Flags) => {
      await withFlagNames(() => generate(prompts, flags, context));
    });
};

async function generate(given: readonly string[], flags: Flags, context: CliContext): Promise<void> {
  const started = performance.now();
  const prompts = flags.prompts === undefined ? [...given] : [...given, ...readPrompts(flags.prompts)];
  if (prompts.some((prompt) => prompt.trim() === "")) invalid("PROMPT", "a text", "an empty one");
  const model = flags.model ?? bundledModel();
  if (model === null) {
    throw new InvalidInputError("--model: the bundled model is not in this copy; name a folder or a repository");
  }
  if (flags.threads !== undefined) {
    if (!Number.isInteger(flags.threads) || flags.threads < 1)
      invalid("--threads", "an integer of at least 1", flags.threads);
    setNumThreads(flags.threads);
  }
  const noise = flags.initNoise === undefined ? undefined : readNpy(flags.initNoise);
  const options = parseOptions(generateSchema, givenOptions(flags, noise));
  const sheet = prompts.length === 0;
  if (sheet) prompts.push(...sheetPrompts(model));
  const target = new Target(flags);
  // What is in the way is found before the work, not after it.
  target.claim(pictures(prompts, options.imagesPerPrompt, noise ? null : (flags.seed ?? 0)));
  const progress = await Progress.for(context);
  try {
    const pipe = await MiroPipeline.fromPretrained(model, {
      variant: flags.variant,
      revision: flags.revision,
      cacheDir: flags.cacheDir,
      device: flags.device,
      dtype: flags.dtype as "auto" | undefined,
      textEncoder: flags.textEncoder,
      vae: flags.vae,
      textEncoderDtype: flags.textEncoderDtype as "auto" | undefined,
      lowMemory: flags.lowMemory,
      signal: context.signal,
      onDownload: (now) => progress.download(now),
    });
    const files: { path: string; seed: number | null; prompt: string; width: number; height: number }[] = [];
    const result = await pipe.generate(prompts, {
      ...givenOptions(flags, noise),
      signal: context.signal,
      onStep: ({ step, steps, images, imageCount }) => {
        const label = imageCount === 1 ? "drawing" : `drawing ${images.at(-1)! + 1}/${imageCount}`;
        progress.update(label, step + 1, steps);
      },
      onImage: (image, i) => {
        const { prompt, seed, width, height } = image;
        files.push({ path: target.write(i, image), seed, prompt, width, height });
      },
    });
    progress.stop();
    for (const warning of result.warnings) context.stderr(`warning: ${warning}\n`);
    if (flags.saveLatents !== undefined) saveLatents(flags.saveLatents, result.latents, flags.overwrite ?? false);
    const sheetPath = sheet ? target.writeSheet(result.images) : null;
    const seconds = round((performance.now() - started) / 1000);
    if (flags.json) {
      const report = {
        images: files,
        ...(sheetPath && { sheet: sheetPath }),
        seconds,
        device: pipe.device,
        dtype: pipe.dtype,
      };
      context.stdout(`${JSON.stringify(report)}\n`);
    } else {
      for (const { path } of files) context.stdout(`${path}\n`);
      if (sheetPath) context.stdout(`${sheetPath}\n`);
      context.stderr(
        `${files.length} picture${files.length === 1 ? "" : "s"} in ${seconds} s (${pipe.device}, ${pipe.dtype})\n`,
      );
    }
  } finally {
    progress.stop();
  }
}

/** The options that flags give; what no flag gives has its default elsewhere. */
function givenOptions(flags: Flags, noise: Tensor | undefined): GenerateOptions {
  const options = {
    rewardTargets: flags.reward,
    negativeRewardTargets: flags.negativeReward,
    steps: flags.steps,
    guidanceScale: flags.guidance,
    guidanceType: flags.guidanceType,
    guidanceWindow: flags.guidanceWindow,
    sampler: flags.sampler,
    shift: flags.shift,
    imagesPerPrompt: flags.images,
    seed: flags.seed,
    batchSize: flags.batchSize,
    noise,
  };
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as GenerateOptions;
}

/** Prompt and seed of each picture, in order. */
function pictures(
  prompts: readonly string[],
  each: number,
  seed: number | null,
): { prompt: string; seed: number | null }[] {
  return prompts.flatMap((prompt, p) =>
    Array.from({ length: each }, (_, i) => ({ prompt, seed: seed === null ? null : seed + p * each + i })),
  );
}

/** One prompt a line; empty lines are left out. */
function readPrompts(path: string): string[] {
  const prompts = readText(path)
    .replace(/^\ufeff/, "")
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "");
  if (prompts.length === 0) throw new InvalidInputError(`--prompts: ${path} holds no prompt`);
  return prompts;
}

function saveLatents(path: string, latents: Tensor, overwrite: boolean): void {
  if (!overwrite && existsSync(path)) throw existing(path);
  try {
    mkdirSync(dirname(path), { recursive: true });
  } catch (error) {
    throw new MiroError(`${dirname(path)}: cannot be created: ${systemReason(error)}`, { cause: error });
  }
  writeNpy(path, latents);
}

/** Where pictures go, and under which names. */
class Target {
  readonly #folder: string;
  /** Set when --output names a file. */
  readonly #file: string | null;
  readonly #overwrite: boolean;
  /** Names that are taken get a number instead of an error: nobody chose the folder. */
  readonly #numbered: boolean;
  #paths: string[] = [];

  constructor({ output, overwrite = false, saveLatents: latents }: Flags) {
    const isFile =
      output !== undefined && /\.png$/i.test(output) && !statSync(output, { throwIfNoEntry: false })?.isDirectory();
    this.#file = isFile ? output : null;
    this.#folder = isFile ? resolve(output, "..") : (output ?? DEFAULT_OUTPUT);
    this.#overwrite = overwrite;
    this.#numbered = output === undefined && !overwrite;
    if (statSync(this.#folder, { throwIfNoEntry: false })?.isDirectory() === false) {
      throw new InvalidInputError(`--output: ${this.#folder} is a file, not a folder`);
    }
    for (const file of [this.#file, latents]) if (file && !overwrite && existsSync(file)) throw existing(file);
  }

  /** Decides the names of all pictures. */
  claim(pictures: readonly { prompt: string; seed: number | null }[]): void {
    if (this.#file !== null && pictures.length > 1) {
      throw new InvalidInputError(`--output: one file cannot hold ${pictures.length} pictures; name a folder`);
    }
    const taken = new Set<string>();
    this.#paths = pictures.map(({ prompt, seed }, i) => {
      const stem = `${slug(prompt)}-${seed === null ? `noise${i}` : `seed${seed}`}`;
      const path = this.#file ?? this.#free(stem, taken);
      if (!this.#overwrite && existsSync(path)) throw existing(path);
      taken.add(path);
      return path;
    });
  }

  write(index: number, image: GeneratedImage): string {
    const path = this.#paths[index]!;
    const png = encodePng(image.data, image.width, image.height, settingsToText(image.settings));
    writeFileAtomic(path, png, { overwrite: this.#overwrite });
    return path;
  }

  writeSheet(images: readonly GeneratedImage[]): string {
    const sheet = contactSheet(images);
    const path = this.#free("sheet", new Set());
    const prompts = images.map(({ prompt, seed }) => ({ prompt, seed }));
    const text = [{ keyword: "miro", text: JSON.stringify({ sheet: prompts, settings: images[0]!.settings }) }];
    writeFileAtomic(path, encodePng(sheet.data, sheet.width, sheet.height, text), { overwrite: this.#overwrite });
    return path;
  }

  #free(stem: string, taken: ReadonlySet<string>): string {
    for (let n = 1; ; n++) {
      const path = join(this.#folder, n === 1 ? `${stem}.png` : `${stem}-${n}.png`);
      if (!taken.has(path) && (!this.#numbered || !existsSync(path))) return path;
    }
  }
}

/** A prompt as a file name: letters and digits of any script, at most 60 characters. */
export function slug(prompt: string): string {
  const words = prompt
    .normalize("NFKC")
    .toLowerCase()
    .replace(/[^\p{L}\p{M}\p{N}]+/gu, "-")
    .replace(/^-+|-+$/g, "");
  return [...words].slice(0, 60).join("").replace(/-+$/, "") || "picture";
}

/** Lets errors speak of flags instead of options: `steps: expected …` → `--steps: expected …`. */
async function withFlagNames(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof InvalidInputError)) throw error;
    const renamed = error.message.replace(/^[A-Za-z]+(?=[:.])/, (name) => NAMES[name] ?? name);
    throw new InvalidInputError(renamed, { cause: error });
  }
}

function round(seconds: number): number {
  return Math.round(seconds * 100) / 100;
}
