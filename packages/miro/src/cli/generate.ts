/** `miro generate`: text to picture files. Parses, calls {@link DrawRequest}, prints. */
import { counted } from "../numbers.js";
import "./extensions.js";
import { readNpy } from "@miro-t2i/torch/io";
import { z } from "zod";
import { InvalidInputError, invalid } from "../errors.js";
import { decodeText } from "../files/text-file.js";
import { type Message, message, option } from "../message.js";
import { declarationOf, field, flag } from "../options.js";
import { generateSchema } from "../pipeline/generate-options.js";
import { modelOrBundled } from "../pipeline/loading/bundled.js";
import { loadSchema } from "../pipeline/loading/load-options.js";
import { type BestOfRequest, type DrawHooks, type DrawReport, DrawRequest } from "../pipeline/requests/draw-request.js";
import { NAME_FIELDS } from "../pipeline/requests/file-names.js";
import { DEFAULT_OUTPUT, pictureFilesSchema } from "../pipeline/requests/picture-files.js";
import { mergeOptions, planChecked, randomSeed } from "../pipeline/requests/plan-pictures.js";
import {
  type PromptRequest,
  promptLines,
  promptOptionsSchema,
  promptSchema,
  readPromptFile,
} from "../pipeline/requests/prompt-file.js";
import { type Redrawing, readRedrawing } from "../pipeline/requests/redraw.js";
import { bestOfSchema } from "../rewards/best-of.js";
import { rankerLoader } from "../rewards/ranker.js";
import { DEFAULT_SCORER, loadScorerSchema, scorerSpec } from "../rewards/registry.js";
import { loadScorerModules, scorerModules } from "../rewards/scorer-modules.js";
import { defaultScorer, parseSelection, selectionText } from "../rewards/selection.js";
import { declare, type Given } from "./add-options.js";
import { json } from "./common-options.js";
import type { CliContext, Register } from "./context.js";
import { sheetPrompts } from "./default-sheet.js";
import { DrawingProgress } from "./drawing-progress.js";
import { nameFlags } from "./flag-names.js";
import { helpText } from "./help-text.js";
import { untilStopped } from "./interruption.js";
import { loadPipeline, modelSchema, optionsOf } from "./model-options.js";
import { Progress, tellerOf } from "./progress.js";
import { viewOf, viewOptions } from "./view.js";

const EXAMPLES = `
Examples:
  miro generate                                          a sheet of example pictures
  miro generate "a red apple on a light blue background"
  miro generate "a fox" "a cat" --images 4 --seed 7      eight pictures, seeds 7 to 14
  miro generate "a fox" --seed random --reward sharpness=0.2 --guidance 3 --steps 30
  miro generate "a fox" --best-of 8 --by sharpness       the best of eight
  miro generate "a fox" --best-of 8 --by sharpness=1,colorfulness=0.5
  miro generate "a steampunk robot" --model nicolas-dufour/miro --device cuda
  miro generate --from pictures/a-fox-seed7.png          the same picture again
  miro generate "a cat" --from pictures/a-fox-seed7.png --steps 100
  miro generate "a cat" --image pictures/a-fox-seed7.png --strength 0.6        drawn over the fox
  miro generate "a fox" --seed 7 --variation-seed 1 --images 4                  four variations of one fox
  miro generate --prompts prompts.jsonl --output book --resume --json
  shuf -n 3 prompts.txt | miro generate --prompts -
  miro generate "a fox" --images 9 --name "{model}/{index}-{reward.sharpness}" --format webp
  miro generate "a fox" --show sixel                     in the terminal too

Pictures are named {prompt}-seed{seed} and hold their settings (see: miro info PICTURE). Without --output they go to
./${DEFAULT_OUTPUT}, numbered where a name is taken; in a folder given with --output nothing is replaced unless --overwrite
is given. --output may also name the file of a single picture: .png, .webp, .jpg.

Prompt files: a text file has one prompt a line, a .jsonl file one JSON object a line ({"prompt": "a fox", "seed": 7,
"reward": {"sharpness": 0.2}}), a .csv or .tsv file a header row (prompt,seed,reward.sharpness). Settings have the names of the
flags, with _ for -; those of a line override those of the command.

Fields of --name: ${NAME_FIELDS.map((name) => `{${name}}`).join(" ")}
`;

/** What messages call the standard input. */
const STDIN = "standard input";

const file = z.string().min(1).optional();

/** The options of `generate` that hold for all prompts. */
const optionsSchema = promptOptionsSchema.extend({
  batchSize: generateSchema.shape.batchSize,
  deterministic: generateSchema.shape.deterministic,
});

const schema = z.strictObject({
  prompts: field(z.array(z.string()).default([]), {
    expected: "texts",
    help: "what to draw; none: a sheet of examples",
    flag: "[prompt...]",
  }),
  ...modelSchema.shape,
  ...optionsSchema.shape,
  seed: promptSchema.shape.seed,
  n: field(bestOfSchema.shape.n.unwrap().optional(), declarationOf(bestOfSchema.shape.n)),
  scorer: field(z.string().optional(), {
    expected: "scorers with their weights",
    help: "scorer that decides which is best (see: miro score --help), or several with weights: their standardised scores are added",
    flag: "--by <scorer[=weight],...>",
    otherwise: `${DEFAULT_SCORER}; image_reward_score for models of other pictures`,
  }),
  weights: loadScorerSchema.shape.weights,
  hpsVersion: loadScorerSchema.shape.hpsVersion,
  scorerModules,
  keepAll: flag("with --best-of: write the others too, as NAME-rank2 and so on", "--keep-all"),
  promptFile: field(file, {
    expected: "a file",
    help: "prompts with settings of their own: text, .jsonl, .csv or .tsv; -: text from the standard input",
    flag: "--prompts <file>",
  }),
  from: field(file, {
    expected: "a picture",
    help: "start from the settings of a saved picture; flags and prompts override them",
    flag: "--from <picture>",
  }),
  ...pictureFilesSchema.shape,
  initNoise: field(file, {
    expected: "a file",
    help: "initial noise (pictures, channels, r, r) float32 instead of seeds",
    flag: "--init-noise <file.npy>",
  }),
  saveLatents: field(
    z
      .string()
      .regex(/\.npy$/i)
      .optional(),
    {
      expected: "a file that ends in .npy",
      help: "store the latents (pictures, channels, r, r) float32",
      flag: "--save-latents <file.npy>",
      writes: "file",
    },
  ),
  ...viewOptions,
  json,
});

type Flags = Given<typeof schema>;

/** What a picture stores, so that it can be drawn again. */
const storedSchema = z.strictObject({
  ...modelSchema.pick({ model: true, variant: true, revision: true, textEncoder: true, vae: true }).shape,
  ...modelSchema.pick({ device: true, dtype: true, quantization: true, textEncoderDtype: true }).shape,
  ...promptOptionsSchema.shape,
  seed: promptSchema.shape.seed,
});

export const register: Register = (command, context) => {
  declare(command, schema, (_, given, typed) => generate(effective(given, typed), context)).addHelpText(
    "after",
    helpText(EXAMPLES),
  );
  nameFlags(command, { noise: "--init-noise" });
};

/**
 * What counts of the values of flags and of settings files: a picture that is drawn again keeps its own settings but
 * for what flags say, and what is about the best of several has no meaning for one.
 */
function effective(given: Flags, typed: Flags): Flags {
  const stored = given.from === undefined ? [] : Object.keys(storedSchema.shape);
  const ofSeveral = given.n === undefined ? ["scorer", "weights", "hpsVersion", "keepAll"] : [];
  const left = new Set([...stored, ...ofSeveral]);
  return { ...Object.fromEntries(Object.entries(given).filter(([name]) => !left.has(name))), ...typed };
}

async function generate(flags: Flags, context: CliContext): Promise<void> {
  const started = performance.now();
  await loadScorerModules(flags.scorerModules ?? []);
  checkFlags(flags);
  const view = viewOf(flags, context);
  const redrawn = flags.from === undefined ? null : await readRedrawing(flags.from, flags);
  const model = modelOrBundled(flags.model ?? redrawn?.model);
  const input = flags.promptFile === "-" ? await context.stdin() : null;
  const prompts = promptsOf(flags, input, redrawn, model);
  const noise = flags.initNoise === undefined ? undefined : readNpy(flags.initNoise);
  const progress = await Progress.for(context);
  const tell = tellerOf(context, progress);
  const request = new DrawRequest({
    pictures: planChecked(prompts.requests, {
      options: mergeOptions(redrawn?.request.options ?? {}, optionsOf(optionsSchema, flags)),
      seed: noise ? null : chooseSeed(flags, redrawn?.request.seed as number | undefined, context),
      candidates: flags.n ?? 1,
    }),
    files: optionsOf(pictureFilesSchema, flags),
    noise,
    bestOf: bestOfRequest(flags, tell),
    latentsFile: flags.saveLatents,
    sheet: prompts.examples,
    redrawn: redrawn ? { path: flags.from!, settings: redrawn.settings, chosen: flags } : undefined,
  });
  const hooks: DrawHooks = {
    signal: context.signal,
    onWait: tell,
    onDifference: (warning) => tell(`warning: ${warning}`),
    onStep: (now) => drawing.step(now),
    onPicture: () => drawing.picture(),
  };
  const drawing = new DrawingProgress(progress, request.count, flags.n);
  try {
    const load = { ...redrawn?.load, ...optionsOf(loadSchema, flags) };
    const left = () => whatIsLeft(flags, drawing.finished, request);
    const { pipe, report } = await untilStopped(context, left, async () => {
      await request.claim(hooks);
      const pipe = await loadPipeline(model, load, context, progress);
      return { pipe, report: await request.draw(pipe, hooks) };
    });
    progress.stop();
    print(report, { seconds: round((performance.now() - started) / 1000), device: pipe.device, dtype: pipe.dtype });
    await view(report.sheet === null ? report.images.map(({ path }) => path!) : [report.sheet]);
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
    context.note(`${counted(drawn, "picture")} in ${seconds} s (${device}, ${dtype})${also}\n`);
  }
}

/** What a command that is stopped has drawn, and how the rest is drawn. */
function whatIsLeft(
  { initNoise, saveLatents, seed }: Flags,
  finished: number,
  { count, pictures }: DrawRequest,
): Message {
  const done = `${finished} of ${counted(count, "picture")} drawn`;
  if (finished === 0) return message`${done}`;
  if (initNoise !== undefined || saveLatents !== undefined) return message`${done}; the same command draws all again`;
  const chosen = seed === "random" ? message` and ${option("seed", pictures[0]!.seed!)}` : "";
  return message`${done}; the same command with ${option("resume", true)}${chosen} draws the rest`;
}

/**
 * The prompts of the command line, of a file or the standard input, of the picture that is drawn again, or else the
 * checkpoint's examples.
 */
function promptsOf(
  { prompts = [], promptFile }: Flags,
  input: Uint8Array | null,
  redrawn: Redrawing | null,
  model: string,
): { requests: PromptRequest[]; examples: boolean } {
  const typed: PromptRequest[] = prompts.map((prompt) => ({ prompt, options: {} }));
  const listed = promptFile === undefined || input !== null ? [] : readPromptFile(promptFile);
  const requests = typed.concat(input === null ? listed : promptLines(decodeText(input, STDIN), STDIN));
  if (requests.some(({ prompt }) => prompt.trim() === "")) throw invalid("prompts", "a text", message`an empty one`);
  // Programs also draw the empty prompt.
  if (requests.length === 0 && redrawn) requests.push({ prompt: redrawn.request.prompt, options: {} });
  const examples = requests.length === 0;
  if (examples) requests.push(...sheetPrompts(model).map((prompt) => ({ prompt, options: {} })));
  return { requests, examples };
}

/** Refuses options that contradict each other. */
function checkFlags({ resume, n, scorer, weights = {}, keepAll, initNoise, saveLatents, seed }: Flags): void {
  if (n === undefined)
    for (const [name, given] of Object.entries({ scorer, weights: Object.keys(weights)[0], keepAll }))
      if (given) throw invalid(name, "--best-of with it", message`none`);
  if (scorer !== undefined) parseSelection(scorer);
  for (const key of Object.keys(weights)) scorerSpec(key, "weights");
  if (!resume) return;
  for (const [name, given] of [
    ["--init-noise", initNoise],
    ["--save-latents", saveLatents],
    ["--seed random", seed === "random" || undefined],
  ] as const) {
    if (given !== undefined)
      throw invalid("resume", `no ${name} with it, as the pictures that are there cannot be compared`, given);
  }
}

/** The seed of the first picture. */
function chooseSeed(flags: Flags, stored: number | undefined, context: CliContext): number {
  const { from } = flags;
  if (flags.seed === "random") {
    const seed = randomSeed();
    context.note(`seed ${seed}\n`);
    return seed;
  }
  if (flags.seed === undefined && from !== undefined && stored === undefined) {
    throw new InvalidInputError(
      `${from}: was drawn from given noise; give it with --init-noise, or a --seed for another picture`,
    );
  }
  return flags.seed ?? stored ?? 0;
}

function bestOfRequest(flags: Flags, tell: (message: string) => void): BestOfRequest | undefined {
  const { n: count, scorer, keepAll = false, weights, hpsVersion, dtype, cacheDir } = flags;
  if (count === undefined) return undefined;
  let chosen = scorer === undefined ? null : selectionText(parseSelection(scorer));
  return {
    count,
    // Without --by it depends on what the model draws.
    scorer: (pipe) => {
      if (chosen === null) {
        chosen = defaultScorer(pipe);
        if (chosen !== DEFAULT_SCORER)
          tell(
            `the best is chosen by ${chosen}, as ${DEFAULT_SCORER} judges emoji scenes alone (--by SCORER: another)`,
          );
      }
      return chosen;
    },
    keepAll,
    load: rankerLoader({ weights, hpsVersion, dtype, cacheDir, onMessage: tell }),
  };
}

function round(seconds: number): number {
  return Math.round(seconds * 100) / 100;
}
