/** `miro generate`: text to picture files. Parses, plans, calls {@link MiroPipeline}, prints. */
import "./extensions.js";
import { existsSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import type { Tensor } from "@miro-t2i/torch";
import { readNpy, writeNpy } from "@miro-t2i/torch/io";
import { InvalidInputError, invalid, MiroError, systemReason } from "../errors.js";
import { existing } from "../files/files.js";
import { help, parseOptions } from "../options.js";
import { contactSheet } from "../pictures/rgb.js";
import { generateSchema } from "../pipeline/generate-options.js";
import {
  describePictures,
  drawPictures,
  mergeOptions,
  type PlannedPicture,
  planPictures,
  randomSeed,
} from "../pipeline/requests/draw-pictures.js";
import { NAME_FIELDS } from "../pipeline/requests/file-names.js";
import { DEFAULT_OUTPUT, PictureFiles, pictureFilesSchema } from "../pipeline/requests/picture-files.js";
import { type PromptOptions, type PromptRequest, readPromptFile } from "../pipeline/requests/prompt-file.js";
import { compareOrigin, readRedrawing } from "../pipeline/requests/redraw.js";
import type { GeneratedImage, ImageSettings } from "../pipeline/settings.js";
import { bestOfSchema } from "../rewards/best-of.js";
import { drawBestOf } from "../rewards/best-of-files.js";
import { scorerSpec } from "../rewards/registry.js";
import { toNumber } from "./arguments.js";
import type { CliContext, Register } from "./context.js";
import { sheetPrompts } from "./default-sheet.js";
import { Progress } from "./progress.js";
import {
  addModelFlags,
  addSamplingFlags,
  checkThreads,
  chosenModel,
  loadPipeline,
  type ModelFlags,
  type SamplingFlags,
  samplingOptions,
  withFlagNames,
} from "./sampling-flags.js";

const EXAMPLES = `
Examples:
  miro generate                                          a sheet of example pictures
  miro generate "a red apple on a light blue background"
  miro generate "a fox" "a cat" --images 4 --seed 7      eight pictures, seeds 7 to 14
  miro generate "a fox" --seed random --reward sharpness=0.2 --guidance 3 --steps 30
  miro generate "a fox" --best-of 8 --by clip_score      the best of eight
  miro generate "a steampunk robot" --model nicolas-dufour/miro --device cuda
  miro generate --from pictures/a-fox-seed7.png          the same picture again
  miro generate "a cat" --from pictures/a-fox-seed7.png --steps 100
  miro generate --prompts prompts.jsonl --output pictures --resume --json
  miro generate "a fox" --images 9 --name "{model}/{index}-{reward.sharpness}" --format webp

Pictures are named {prompt}-seed{seed} and hold their settings (see: miro info PICTURE). Without --output they go to
./${DEFAULT_OUTPUT}, numbered where a name is taken; in a folder given with --output nothing is replaced unless --overwrite
is given. --output may also name the file of a single picture: .png, .webp, .jpg.

Prompt files: a text file has one prompt a line, a .jsonl file one JSON object a line ({"prompt": "a fox", "seed": 7,
"reward": {"sharpness": 0.2}}), a .csv or .tsv file a header row (prompt,seed,reward.sharpness). Settings have the names of the
flags, with _ for -; those of a line go before those of the command.

Fields of --name: ${NAME_FIELDS.map((name) => `{${name}}`).join(" ")}
`;

interface Flags extends ModelFlags, SamplingFlags {
  deterministic?: boolean;
  seed?: number | "random";
  images?: number;
  batchSize?: number;
  prompts?: string;
  from?: string;
  bestOf?: number;
  by?: string;
  keepAll?: boolean;
  output?: string;
  name?: string;
  format?: string;
  quality?: number;
  overwrite?: boolean;
  resume?: boolean;
  initNoise?: string;
  saveLatents?: string;
  json?: boolean;
}

/** What the command line calls the fields of the options, besides those of sampling-flags.ts. */
const NAMES: Record<string, string> = {
  deterministic: "--deterministic",
  imagesPerPrompt: "--images",
  seed: "--seed",
  noise: "--init-noise",
  batchSize: "--batch-size",
  output: "--output",
  name: "--name",
  format: "--format",
  quality: "--quality",
  overwrite: "--overwrite",
  resume: "--resume",
  n: "--best-of",
  scorer: "--by",
};

export const register: Register = (command, context) => {
  const h = (name: string) => help(generateSchema, name) || help(pictureFilesSchema, name) || help(bestOfSchema, name);
  command.argument("[prompt...]", "what to draw; none: a sheet of examples");
  addSamplingFlags(addModelFlags(command))
    .option("--seed <n|random>", `${h("seed")}; random: one that nobody chose; default 0`, toSeed)
    .option("--images <n>", `${h("imagesPerPrompt")}; default 1`, toNumber("--images"))
    .option("--batch-size <n>", h("batchSize"), toNumber("--batch-size"))
    .option("--deterministic", h("deterministic"))
    .option("--best-of <n>", `${h("n")}; the best is written`, toNumber("--best-of"))
    .option("--by <scorer>", "scorer that decides which is best (see: miro score --help); default clip_score")
    .option("--keep-all", "with --best-of: write the others too, as NAME-rank2 and so on")
    .option("--prompts <file>", "prompts with settings of their own: text, .jsonl, .csv or .tsv")
    .option("--from <picture>", "settings of a stored picture; flags and prompts go before them")
    .option("--output <dir>", h("output"))
    .option("--name <template>", "file names: text with fields in braces, / makes folders (below)")
    .option("--format <name>", `${h("format")}; default png, or as --output ends`)
    .option("--quality <n>", h("quality"), toNumber("--quality"))
    .option("--overwrite", h("overwrite"))
    .option("--resume", h("resume"))
    .option("--init-noise <file.npy>", "initial noise (pictures, channels, r, r) float32 instead of seeds")
    .option("--save-latents <file.npy>", "store the latents (pictures, channels, r, r) float32")
    .option("--json", "print one JSON object on stdout")
    .addHelpText("after", EXAMPLES)
    .action(async (prompts: string[], flags: Flags) => {
      await withFlagNames(NAMES, () => generate(prompts, flags, context));
    });
};

/** An entry of `--json`. */
interface Entry {
  path: string;
  seed: number | null;
  prompt: string;
  width: number;
  height: number;
  /** It was there already. */
  skipped?: true;
  score?: number;
  /** With --best-of, best first. */
  candidates?: { seed: number | null; scores: Record<string, number>; rank: number; path?: string }[];
}

async function generate(given: readonly string[], flags: Flags, context: CliContext): Promise<void> {
  const started = performance.now();
  checkFlags(flags);
  const from = flags.from === undefined ? null : await readRedrawing(flags.from, flags);
  const model = chosenModel(flags.model ?? from?.model);
  const requests: PromptRequest[] = given.map((prompt) => ({ prompt, options: {} }));
  if (flags.prompts !== undefined) requests.push(...readPromptFile(flags.prompts));
  if (requests.length === 0 && from) requests.push({ prompt: from.request.prompt, options: {} });
  const sheet = requests.length === 0;
  if (sheet) requests.push(...sheetPrompts(model).map((prompt) => ({ prompt, options: {} })));
  if (requests.some(({ prompt }) => prompt.trim() === "")) throw invalid("PROMPT", "a text", "an empty one");

  const noise = flags.initNoise === undefined ? undefined : readNpy(flags.initNoise);
  const count = flags.bestOf ?? 1;
  const options = givenOptions(flags);
  parseOptions(generateSchema, { ...options, ...(flags.batchSize !== undefined && { batchSize: flags.batchSize }) });
  const seed = noise ? null : chooseSeed(flags, from?.request.seed as number | undefined, flags.from, context);
  if (seed !== null) parseOptions(generateSchema, { seed });
  const pictures = planPictures(requests, {
    options: mergeOptions(from?.request.options ?? {}, options),
    seed,
    candidates: count,
  });
  const files = new PictureFiles(fileOptions(flags));
  if (flags.saveLatents !== undefined && !flags.overwrite && existsSync(flags.saveLatents)) {
    throw existing(flags.saveLatents);
  }

  const progress = await Progress.for(context);
  const waiting = {
    signal: context.signal,
    onWait: (message: string) => {
      progress.stop();
      context.stderr(`${message}\n`);
    },
  };
  const claim = { suffix: flags.bestOf ? `-best-of-${count}` : "", ranks: flags.keepAll ? count : 1, ...waiting };
  try {
    // What is in the way is found before the work, not after it.
    const early = !files.needsSettings(pictures);
    if (early) await files.claim(pictures, { settings: null, rewards: null, ...claim });
    const stored = from && { ...from.load, ...(from.load.quantization && { quantize: from.load.quantization }) };
    const pipe = await loadPipeline(model, { ...stored, ...flags }, context, progress);
    const rows = pictures.length * count;
    if (
      noise &&
      (noise.ndim !== 4 || noise.size(0) !== rows || pipe.latentShape.some((n, i) => noise.size(i + 1) !== n))
    )
      throw invalid("noise", `shape (${[rows, ...pipe.latentShape].join(", ")})`, `(${noise.shape.join(", ")})`);
    const settings = (await describePictures(pipe, pictures)).map((one) => candidate(one, flags));
    if (from) {
      for (const warning of compareOrigin(flags.from!, from.settings, settings[0]!, flags))
        context.stderr(`warning: ${warning}\n`);
    }
    if (!early) await files.claim(pictures, { settings, rewards: pipe.coherenceKeys, ...claim });
    const entries: Entry[] = [];
    const images: GeneratedImage[] = [];
    const warnings = new Set<string>();
    let latents: Tensor | null = null;
    let drawn = 0;
    const shared = {
      noise,
      batchSize: flags.batchSize,
      keepLatents: flags.saveLatents !== undefined,
      signal: context.signal,
      onStep: ({ step, steps, images: rows }: { step: number; steps: number; images: readonly number[] }) =>
        progress.update(
          pictures.length === 1 ? "drawing" : `drawing ${rows.at(-1)! + 1}/${pictures.length}`,
          step + 1,
          steps,
        ),
    };
    // Once, or again for what other commands were about to draw and have not.
    for (let open = pictures; open.length > 0; open = await files.fromOthers(open, waiting)) {
      const settingsOf = open.map(({ index }) => settings[index]!);
      const finished = await files.finished(open, settingsOf);
      for (const [index, { path, settings: stored }] of finished) {
        const { seed, prompt, width, height } = stored;
        entries[index] = { path, seed, prompt, width, height, skipped: true };
      }
      const todo = open.filter((picture) => !finished.has(picture.index) && !files.isElsewhere(picture));
      if (todo.length === 0) continue;
      const result = flags.bestOf
        ? await drawBestOf(pipe, todo, {
            ...shared,
            count,
            scorer: flags.by ?? "clip_score",
            onRanked: async (ranked, picture) => {
              entries[picture.index] = await writeRanked(files, ranked, picture, flags.keepAll ?? false);
            },
          })
        : await drawPictures(pipe, todo, {
            ...shared,
            onImage: async (image, picture) => {
              entries[picture.index] = entry(await files.write(picture, image), image);
              if (sheet) images.push(image);
            },
          });
      drawn += todo.length;
      latents = result.latents;
      for (const warning of result.warnings) warnings.add(warning);
    }
    progress.stop();
    for (const warning of warnings) context.stderr(`warning: ${warning}\n`);
    if (latents) saveLatents(flags.saveLatents!, latents, flags.overwrite ?? false);
    const sheetPath = sheet ? await writeSheet(files, images) : null;
    const seconds = round((performance.now() - started) / 1000);
    if (flags.json) {
      const report = {
        images: entries,
        ...(sheetPath && { sheet: sheetPath }),
        ...(flags.resume && { skipped: pictures.length - drawn }),
        seconds,
        device: pipe.device,
        dtype: pipe.dtype,
        ...(warnings.size > 0 && { warnings: [...warnings] }),
      };
      context.stdout(`${JSON.stringify(report)}\n`);
    } else {
      for (const { path } of entries) context.stdout(`${path}\n`);
      if (sheetPath) context.stdout(`${sheetPath}\n`);
      const skipped = flags.resume ? `, ${pictures.length - drawn} skipped as they were there` : "";
      context.stderr(
        `${drawn} picture${drawn === 1 ? "" : "s"} in ${seconds} s (${pipe.device}, ${pipe.dtype})${skipped}\n`,
      );
    }
  } finally {
    progress.stop();
    files.release();
  }
}

/** Refuses flags that contradict each other. */
function checkFlags(flags: Flags): void {
  const { resume, bestOf: n } = flags;
  checkThreads(flags);
  if (n !== undefined) parseOptions(bestOfSchema, { n });
  else if (flags.by !== undefined || flags.keepAll)
    throw invalid(flags.keepAll ? "--keep-all" : "--by", "--best-of with it", "none");
  if (n !== undefined && flags.by !== undefined) scorerSpec(flags.by);
  if (!resume) return;
  for (const [name, given] of [
    ["--init-noise", flags.initNoise],
    ["--save-latents", flags.saveLatents],
    ["--seed random", flags.seed === "random" || undefined],
  ] as const) {
    if (given !== undefined)
      throw invalid("--resume", `no ${name} with it, as the pictures that are there cannot be compared`, given);
  }
}

/** The seed of the first picture. */
function chooseSeed(flags: Flags, stored: number | undefined, from: string | undefined, context: CliContext): number {
  if (flags.seed === "random") {
    const seed = randomSeed();
    context.stderr(`seed ${seed}\n`);
    return seed;
  }
  if (flags.seed === undefined && from !== undefined && stored === undefined) {
    throw new InvalidInputError(
      `${from}: was drawn from given noise; give it with --init-noise, or a --seed for another picture`,
    );
  }
  return flags.seed ?? stored ?? 0;
}

/** The options that flags give; what no flag gives has its default elsewhere. */
function givenOptions(flags: Flags): PromptOptions {
  const { deterministic, images } = flags;
  return {
    ...samplingOptions(flags),
    ...(deterministic !== undefined && { deterministic }),
    ...(images !== undefined && { imagesPerPrompt: images }),
  };
}

function fileOptions({ output, name, format, quality, overwrite, resume }: Flags) {
  const options = { output, name, format: format as "png" | undefined, quality, overwrite, resume };
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

/** The settings that a picture will have, as far as they are known before its candidates are scored. */
function candidate(settings: ImageSettings, { bestOf: count, by: scorer = "clip_score" }: Flags): ImageSettings {
  if (count === undefined) return settings;
  return { ...settings, bestOf: { count, seed: settings.seed, scorer, scores: {}, rank: 1 } };
}

function entry(path: string, { seed, prompt, width, height }: GeneratedImage): Entry {
  return { path, seed, prompt, width, height };
}

/** Stores the best of several, and the others where they are wanted. */
async function writeRanked(
  files: PictureFiles,
  ranked: readonly GeneratedImage[],
  picture: PlannedPicture,
  keepAll: boolean,
): Promise<Entry> {
  const paths: string[] = [];
  for (const [rank, image] of ranked.slice(0, keepAll ? undefined : 1).entries()) {
    paths.push(await files.write(picture, image, rank));
  }
  const candidates = ranked.map(({ seed, settings: { bestOf } }, i) => ({
    seed,
    scores: bestOf!.scores,
    rank: bestOf!.rank,
    ...(paths[i] && { path: paths[i] }),
  }));
  const { scorer, scores } = ranked[0]!.settings.bestOf!;
  return { ...entry(paths[0]!, ranked[0]!), score: scores[scorer]!, candidates };
}

async function writeSheet(files: PictureFiles, images: readonly GeneratedImage[]): Promise<string> {
  const prompts = images.map(({ prompt, seed }) => ({ prompt, seed }));
  const text = JSON.stringify({ sheet: prompts, settings: images[0]!.settings });
  return files.writeExtra("sheet", contactSheet(images), [{ keyword: "miro", text }]);
}

function toSeed(text: string): number | "random" {
  return text.trim() === "random" ? "random" : toNumber("--seed")(text);
}

function saveLatents(path: string, latents: Tensor, overwrite: boolean): void {
  if (!overwrite && existsSync(path)) throw existing(path);
  try {
    mkdirSync(dirname(path), { recursive: true });
  } catch (error) {
    throw new MiroError(`${dirname(path)}: cannot be created: ${systemReason(error)}`, { cause: error });
  }
  writeNpy(path, latents);
  latents.dispose();
}

function round(seconds: number): number {
  return Math.round(seconds * 100) / 100;
}
