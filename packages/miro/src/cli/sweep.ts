/** `miro sweep`: a table of pictures over two settings, as one labelled sheet and one JSON file. */
import "./extensions.js";
import { join } from "node:path";
import { z } from "zod";
import { InvalidInputError, invalid } from "../errors.js";
import { axisNames, parseAxis } from "../evaluation/sweep/axis.js";
import { meanText, summariseSide, sweepFooter, sweepSheet, sweepToJson } from "../evaluation/sweep/report.js";
import { layOutSweep, runSweep, type SweepOptions, type SweepResult } from "../evaluation/sweep/run.js";
import { writeFileAtomic } from "../files/whole-files.js";
import { groupBy } from "../group-by.js";
import { message, option } from "../message.js";
import { counted } from "../numbers.js";
import { commaSeparated, field, flag } from "../options.js";
import { checkCellSize } from "../pictures/labelled-sheet.js";
import { modelOrBundled } from "../pipeline/loading/bundled.js";
import { loadSchema } from "../pipeline/loading/load-options.js";
import { PictureFiles } from "../pipeline/requests/picture-files.js";
import { promptOptionsSchema } from "../pipeline/requests/prompt-file.js";
import { sheetPng } from "../pipeline/settings.js";
import { loadScorer, loadScorerSchema, scorerSpec, scorerSpecs } from "../rewards/registry.js";
import type { Scorer } from "../rewards/scorer.js";
import { loadScorerModules, scorerModules } from "../rewards/scorer-modules.js";
import { declare, type Given } from "./add-options.js";
import type { CliContext, Register } from "./context.js";
import { DrawingProgress } from "./drawing-progress.js";
import { helpText } from "./help-text.js";
import { SAME_COMMAND, untilStopped } from "./interruption.js";
import { fetchModel, loadPipeline, modelSchema, optionsOf } from "./model-options.js";
import { Progress, tellerOf } from "./progress.js";
import { viewOf, viewOptions } from "./view.js";

const EXAMPLES = `
Axes: ${axisNames().join(", ")}.
Values are separated by commas; numbers may be given as FIRST:LAST:STEP. tradeoff.A.B sets the negative targets of two
rewards to t and 1 - t; evaluations gives every sampler as many evaluations of the network; the values of prompt are the
prompts of the call, and are the rows where --y is not given; the variant main is the checkpoint itself.

Examples:
  miro sweep "a fox" --x reward.sharpness=0:1:0.25 --y reward.colorfulness=0:1:0.5
  miro sweep "a fox" "a rocket" "a cactus" --x guidance=0,0.25,1,3 --output guidance
  miro sweep "a fox" --x evaluations=5,10,20,40 --y sampler=euler,heun,midpoint,ab2 --images 4 --by emoji_clip_score --distance --output samplers
  miro sweep "a fox" --x tradeoff.sharpness.clip_score=0:1:0.25 --y seed=0:3 --guidance 1 --output tradeoff
  miro sweep "a fox in the snow" --model nicolas-dufour/miro --x guidance=0,7 --y seed=0:3
  miro sweep "a fox" --x reward.sharpness=0:1:0.5 --y seed=0:3 --by sharpness,colorfulness --output scores
  miro sweep "a fox" --x guidance=0,0.25,1 --best-of 4 --by emoji_clip_score --output best
  miro sweep "a fox in the snow" --model nicolas-dufour/miro-ablations --x variant=miro-only-clip,miro-only-aesthetic

The folder of --output gets sheet.png, sweep.json and every picture (rROW-cCOLUMN.png). The same command goes on where it
was interrupted; pictures of other settings are replaced only with --overwrite.
`;

/** The options of `generate` that hold for the whole table. */
const settingsSchema = promptOptionsSchema.omit({ imagesPerPrompt: true });

const schema = z.strictObject({
  prompts: field(z.array(z.string()), { expected: "texts", help: "what to draw", flag: "<prompt...>" }),
  ...modelSchema.shape,
  x: field(z.string(), {
    expected: "an axis and its values",
    help: "what changes from column to column (below)",
    flag: "--x <axis=values>",
  }),
  y: field(z.string().optional(), {
    expected: "an axis and its values",
    help: "what changes from row to row",
    flag: "--y <axis=values>",
    otherwise: "the prompts",
  }),
  ...settingsSchema.shape,
  seed: field(z.int().min(0).default(0), {
    expected: "an integer of at least 0",
    help: "seed of every place, unless an axis changes it",
    flag: "--seed <n>",
  }),
  imagesPerCell: field(z.int().min(1).default(1), {
    expected: "an integer of at least 1",
    help: "pictures of each place, seeds upwards: scores are means",
    flag: "--images <n>",
  }),
  bestOf: field(z.int().min(2).optional(), {
    expected: "an integer of at least 2",
    help: "draw so many pictures of each place and show the best, by the first scorer of --by; the scores are its own",
    flag: "--best-of <n>",
  }),
  by: field(z.array(z.string()).default([]), {
    expected: "keys of scorers",
    help: () =>
      `score every picture: ${scorerSpecs()
        .map(({ key }) => key)
        .join(", ")}; separated by commas, or repeated`,
    flag: "--by <scorer>",
    parse: commaSeparated,
  }),
  weights: loadScorerSchema.shape.weights,
  hpsVersion: loadScorerSchema.shape.hpsVersion,
  scorerModules,
  distance: flag(
    "score every picture by its distance from the one that its steps lead to (RMS, levels of 255)",
    "--distance",
  ),
  title: field(z.string().optional(), {
    expected: "a text",
    help: "title of the sheet",
    flag: "--title <text>",
    otherwise: "the prompt",
  }),
  cellSize: field(z.int().min(1).optional(), {
    expected: "an integer of at least 1",
    help: "side of a picture on the sheet, pixels",
    flag: "--cell-size <n>",
    otherwise: "256 at most, less where the sheet would be too large",
  }),
  output: field(z.string().min(1).default("sweep"), {
    expected: "a folder",
    help: "folder of the sheet, the JSON file and the pictures",
    flag: "--output <dir>",
    writes: "folder",
  }),
  ...viewOptions,
  overwrite: flag("draw again what is there, and replace pictures of other settings", "--overwrite"),
  json: flag("print the contents of sweep.json on stdout", "--json"),
});

type Options = z.output<typeof schema>;

export const register: Register = (command, context) => {
  declare(command, schema, (options, given) => sweep(options, given, context)).addHelpText("after", helpText(EXAMPLES));
};

async function sweep(options: Options, given: Given<typeof schema>, context: CliContext): Promise<void> {
  const started = performance.now();
  await loadScorerModules(options.scorerModules);
  const { prompts, seed, bestOf, imagesPerCell, output, overwrite } = options;
  if (prompts.some((prompt) => prompt.trim() === "")) throw invalid("prompts", "a text", message`an empty one`);
  const x = parseAxis(options.x, "--x", prompts);
  const y = options.y === undefined ? undefined : parseAxis(options.y, "--y", prompts);
  const model = modelOrBundled(options.model);
  const view = viewOf(options, context);
  const files = new PictureFiles({ output, overwrite, resume: true });
  for (const key of options.by) scorerSpec(key, "by");
  if (bestOf !== undefined && options.by.length === 0)
    throw new InvalidInputError(message`${option("bestOf")} needs ${option("by")}, a scorer that says which is best`);
  if (bestOf !== undefined && imagesPerCell > 1)
    throw new InvalidInputError(
      message`${option("bestOf")} says how many pictures: leave out ${option("imagesPerCell")}`,
    );
  const scorers: Scorer[] = [];
  const progress = await Progress.for(context);
  const tell = tellerOf(context, progress);
  let drawing: DrawingProgress | undefined;
  const left = () =>
    `${drawing ? `${drawing.finished} of ${counted(drawing.total, "picture")} drawn; ` : ""}${SAME_COMMAND}`;
  try {
    const { weights, hpsVersion, device, dtype, cacheDir } = options;
    const load = { weights, hpsVersion, device, dtype, cacheDir, signal: context.signal, onMessage: tell };
    for (const key of new Set(options.by)) scorers.push(await loadScorer(key, load));
    const sweep: SweepOptions = {
      prompts,
      x,
      y,
      seed,
      imagesPerCell: bestOf ?? imagesPerCell,
      bestBy: bestOf === undefined ? undefined : options.by[0],
      settings: optionsOf(settingsSchema, given),
      model,
      variant: options.variant,
      load: (name, variant) => loadPipeline(name, { ...optionsOf(loadSchema, given), variant }, context, progress),
      scorers,
      distance: options.distance,
      files,
      onStep: (now) => drawing!.step(now),
      onProgress: () => drawing!.picture(),
      signal: context.signal,
    };
    const places = layOutSweep(sweep);
    checkCellSize(options.cellSize, (y?.points ?? prompts).length, x.points.length);
    drawing = new DrawingProgress(progress, places.length);
    const result = await untilStopped(context, left, async () => {
      // One of several checkpoints that is missing is told before the pictures of the others are drawn.
      const checkpoints = groupBy(places, ({ model, variant }) => JSON.stringify([model, variant]));
      if (checkpoints.size > 1)
        for (const [place] of checkpoints.values()) {
          const { model, variant } = place!;
          await fetchModel(model, { ...optionsOf(loadSchema, given), variant }, context, progress);
        }
      return runSweep(sweep);
    });
    progress.stop();
    for (const warning of result.warnings) context.stderr(`warning: ${warning}\n`);
    for (const key of new Set(result.cells.flat().flatMap(({ ignoredRewards }) => ignoredRewards)))
      context.stderr(`warning: ${key} was left out where the checkpoint was not trained on it\n`);
    const sheet = join(output, "sheet.png");
    const title = options.title ?? (new Set(prompts).size === 1 ? prompts[0]! : undefined);
    const json = { sheet, ...sweepToJson(result), seconds: Math.round((performance.now() - started) / 10) / 100 };
    writeFileAtomic(join(output, "sweep.json"), `${JSON.stringify(json, null, 2)}\n`, { overwrite: true });
    const picture = await sweepSheet(result, {
      title,
      footer: sweepFooter(result),
      cellSize: options.cellSize,
    });
    writeFileAtomic(sheet, sheetPng(picture, prompts), { overwrite: true });
    context.stdout(options.json ? `${JSON.stringify(json)}\n` : `${sheet}\n${join(output, "sweep.json")}\n`);
    if (!options.json) context.note(table(result));
    await view([sheet]);
  } finally {
    progress.stop();
    for (const scorer of scorers) scorer.dispose();
  }
}

/** Mean scores along both sides, for people. */
function table(result: SweepResult): string {
  const lines = (["column", "row"] as const).flatMap((side) => {
    const { name } = side === "column" ? result.x : result.y;
    return summariseSide(result, side)
      .filter(({ scores }) => Object.keys(scores).length > 0)
      .map(({ value, scores }) => {
        const means = Object.entries(scores).map(([key, mean]) => `${key} ${meanText(mean, 4)}`);
        return `  ${name} ${value}: ${means.join(", ")}`;
      });
  });
  return lines.length > 0 ? `mean scores:\n${lines.join("\n")}\n` : "";
}
