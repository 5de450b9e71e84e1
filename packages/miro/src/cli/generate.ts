/** `miro generate`: text to picture files. Parses, calls {@link DrawRequest}, prints. */
import "./extensions.js";
import { readNpy } from "@miro-t2i/torch/io";
import { InvalidInputError, invalid } from "../errors.js";
import { help, parseOptions } from "../options.js";
import { generateSchema } from "../pipeline/generate-options.js";
import { type BestOfRequest, type DrawHooks, type DrawReport, DrawRequest } from "../pipeline/requests/draw-request.js";
import { NAME_FIELDS } from "../pipeline/requests/file-names.js";
import { DEFAULT_OUTPUT, pictureFilesSchema } from "../pipeline/requests/picture-files.js";
import { mergeOptions, planPictures, randomSeed } from "../pipeline/requests/plan-pictures.js";
import { type PromptOptions, type PromptRequest, readPromptFile } from "../pipeline/requests/prompt-file.js";
import { type Redrawing, readRedrawing } from "../pipeline/requests/redraw.js";
import { bestOfSchema } from "../rewards/best-of.js";
import { loadRanker } from "../rewards/ranker.js";
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
  miro generate "a fox" --best-of 8 --by sharpness       the best of eight
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
    .option("--by <scorer>", "scorer that decides which is best (see: miro score --help); default emoji_clip_score")
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

async function generate(given: readonly string[], flags: Flags, context: CliContext): Promise<void> {
  const started = performance.now();
  checkFlags(flags);
  const redrawn = flags.from === undefined ? null : await readRedrawing(flags.from, flags);
  const model = chosenModel(flags.model ?? redrawn?.model);
  const prompts = promptsOf(given, flags, redrawn, model);
  const noise = flags.initNoise === undefined ? undefined : readNpy(flags.initNoise);
  const request = new DrawRequest({
    pictures: planPictures(prompts.requests, {
      options: mergeOptions(redrawn?.request.options ?? {}, givenOptions(flags)),
      seed: noise ? null : chooseSeed(flags, redrawn?.request.seed as number | undefined, context),
      candidates: flags.bestOf ?? 1,
    }),
    files: fileOptions(flags),
    noise,
    bestOf: bestOfRequest(flags),
    latentsFile: flags.saveLatents,
    sheet: prompts.examples,
    redrawn: redrawn ? { path: flags.from!, settings: redrawn.settings, chosen: flags } : undefined,
  });
  const progress = await Progress.for(context);
  const tell = (message: string) => {
    progress.stop();
    context.stderr(`${message}\n`);
  };
  const hooks: DrawHooks = {
    signal: context.signal,
    onWait: tell,
    onDifference: (warning) => tell(`warning: ${warning}`),
    onStep: ({ step, steps, images }) =>
      progress.update(
        request.count === 1 ? "drawing" : `drawing ${images.at(-1)! + 1}/${request.count}`,
        step + 1,
        steps,
      ),
  };
  try {
    await request.claim(hooks);
    const load = redrawn?.load;
    const stored = load && { ...load, ...(load.quantization && { quantize: load.quantization }) };
    const pipe = await loadPipeline(model, { ...stored, ...flags }, context, progress);
    const report = await request.draw(pipe, hooks);
    progress.stop();
    print(report, { seconds: round((performance.now() - started) / 1000), device: pipe.device, dtype: pipe.dtype });
  } finally {
    progress.stop();
    request.release();
  }

  function print(report: DrawReport, run: { seconds: number; device: string; dtype: string }): void {
    const { images, sheet, drawn, skipped, warnings } = report;
    for (const warning of warnings) context.stderr(`warning: ${warning}\n`);
    if (flags.json) {
      const json = {
        images,
        ...(sheet && { sheet }),
        ...(flags.resume && { skipped }),
        ...run,
        ...(warnings.length > 0 && { warnings }),
      };
      context.stdout(`${JSON.stringify(json)}\n`);
      return;
    }
    for (const { path } of images) context.stdout(`${path}\n`);
    if (sheet) context.stdout(`${sheet}\n`);
    const also = flags.resume ? `, ${skipped} skipped as they were there` : "";
    const { seconds, device, dtype } = run;
    context.stderr(`${drawn} picture${drawn === 1 ? "" : "s"} in ${seconds} s (${device}, ${dtype})${also}\n`);
  }
}

/** The prompts of the command line, of a file, of the picture that is drawn again, or else the checkpoint's examples. */
function promptsOf(
  given: readonly string[],
  flags: Flags,
  redrawn: Redrawing | null,
  model: string,
): { requests: PromptRequest[]; examples: boolean } {
  const requests: PromptRequest[] = given.map((prompt) => ({ prompt, options: {} }));
  if (flags.prompts !== undefined) requests.push(...readPromptFile(flags.prompts));
  if (requests.length === 0 && redrawn) requests.push({ prompt: redrawn.request.prompt, options: {} });
  const examples = requests.length === 0;
  if (examples) requests.push(...sheetPrompts(model).map((prompt) => ({ prompt, options: {} })));
  if (requests.some(({ prompt }) => prompt.trim() === "")) throw invalid("PROMPT", "a text", "an empty one");
  return { requests, examples };
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
function chooseSeed(flags: Flags, stored: number | undefined, context: CliContext): number {
  const { from } = flags;
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
  const { deterministic, images, batchSize } = flags;
  return {
    ...samplingOptions(flags),
    ...(batchSize !== undefined && { batchSize }),
    ...(deterministic !== undefined && { deterministic }),
    ...(images !== undefined && { imagesPerPrompt: images }),
  };
}

function fileOptions({ output, name, format, quality, overwrite, resume }: Flags) {
  const options = { output, name, format: format as "png" | undefined, quality, overwrite, resume };
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

function bestOfRequest({
  bestOf: count,
  by: scorer = "emoji_clip_score",
  keepAll = false,
}: Flags): BestOfRequest | undefined {
  return count === undefined ? undefined : { count, scorer, keepAll, load: loadRanker };
}

function toSeed(text: string): number | "random" {
  return text.trim() === "random" ? "random" : toNumber("--seed")(text);
}

function round(seconds: number): number {
  return Math.round(seconds * 100) / 100;
}
