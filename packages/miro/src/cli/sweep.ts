/** `miro sweep`: a table of pictures over two settings, as one labelled sheet and one JSON file. */
import "./extensions.js";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { invalid, MiroError, systemReason } from "../errors.js";
import { type Axis, axisNames, parseAxis } from "../evaluation/sweep/axis.js";
import { summarize, sweepSheet, sweepToJson } from "../evaluation/sweep/report.js";
import { runSweep, type SweepResult } from "../evaluation/sweep/run.js";
import { writeFileAtomic } from "../files/files.js";
import { encodePng } from "../pictures/png.js";
import { PictureFiles } from "../pipeline/requests/picture-files.js";
import { loadScorer, scorerSpecs } from "../rewards/index.js";
import type { Scorer } from "../rewards/scorer.js";
import { toNumber } from "./arguments.js";
import type { CliContext, Register } from "./context.js";
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
Axes: ${axisNames().join(", ")}.
Values are separated by commas; numbers may be given as FIRST:LAST:STEP. tradeoff.A.B sets the negative targets of two
rewards to t and 1 - t; evaluations gives every sampler as many evaluations of the network; the values of prompt are the
prompts of the call, and are the rows where --y is not given; the variant main is the checkpoint itself.

Examples:
  miro sweep "a fox" --x reward.sharpness=0:1:0.25 --y reward.colorfulness=0:1:0.5
  miro sweep "a fox" "a rocket" "a cactus" --x guidance=0,0.25,1,3
  miro sweep "a fox" --x evaluations=5,10,20,40 --y sampler=euler,heun,midpoint,ab2 --images 4 --by emoji_clip_score --distance
  miro sweep "a fox" --x tradeoff.sharpness.clip_score=0:1:0.25 --y seed=0:3 --guidance 1
  miro sweep "a fox in the snow" --model nicolas-dufour/miro --x guidance=0,7 --y seed=0:3
  miro sweep "a fox in the snow" --model nicolas-dufour/miro-ablations --x variant=miro-clip,miro-aesthetic

The folder of --output gets sheet.png, sweep.json and every picture (rROW-cCOLUMN.png). The same command goes on where it
was interrupted; pictures of other settings are replaced only with --overwrite.
`;

interface Flags extends ModelFlags, SamplingFlags {
  x: string;
  y?: string;
  seed?: number;
  images?: number;
  by?: string[];
  distance?: boolean;
  title?: string;
  cellSize?: number;
  output: string;
  overwrite?: boolean;
  json?: boolean;
}

export const register: Register = (command, context) => {
  const scorers = scorerSpecs().map(({ key }) => key);
  addSamplingFlags(
    addModelFlags(
      command
        .argument("<prompt...>", "what to draw")
        .requiredOption("--x <axis=values>", "what changes from column to column (below)")
        .option("--y <axis=values>", "what changes from row to row; default: the prompts"),
    ),
  )
    .option("--seed <n>", "seed of every place, unless an axis changes it; default 0", toNumber("--seed"))
    .option("--images <n>", "pictures of each place, seeds upwards: scores are means; default 1", toNumber("--images"))
    .option(
      "--by <scorer>",
      `score every picture: ${scorers.join(", ")}; repeatable`,
      (key: string, earlier: string[] = []) => [...earlier, key],
    )
    .option(
      "--distance",
      "score every picture by its distance from the one that its steps lead to (RMS, levels of 255)",
    )
    .option("--title <text>", "title of the sheet; default: the prompt")
    .option("--cell-size <n>", "side of a picture on the sheet, pixels; default 256 at most", toNumber("--cell-size"))
    .option("--output <dir>", "folder of the sheet, the JSON file and the pictures", "sweep")
    .option("--overwrite", "draw again what is there, and replace pictures of other settings")
    .option("--json", "print the contents of sweep.json on stdout")
    .addHelpText("after", EXAMPLES)
    .action(async (prompts: string[], flags: Flags) => {
      await withFlagNames({ output: "--output", prompts: "PROMPT" }, () => sweep(prompts, flags, context));
    });
};

async function sweep(prompts: readonly string[], flags: Flags, context: CliContext): Promise<void> {
  const started = performance.now();
  for (const name of ["images", "cellSize"] as const) {
    const value = flags[name];
    const option = { images: "--images", cellSize: "--cell-size" }[name];
    if (value !== undefined && (!Number.isInteger(value) || value < 1))
      throw invalid(option, "an integer of at least 1", value);
  }
  const { seed = 0, images = 1, output, overwrite = false } = flags;
  if (!Number.isInteger(seed) || seed < 0) throw invalid("--seed", "an integer of at least 0", seed);
  checkThreads(flags);
  const x = parseAxis(flags.x, "--x", prompts);
  const y = flags.y === undefined ? undefined : parseAxis(flags.y, "--y", prompts);
  const model = chosenModel(flags.model);
  try {
    mkdirSync(output, { recursive: true });
  } catch (error) {
    throw new MiroError(`--output: ${output} cannot be created: ${systemReason(error)}`, { cause: error });
  }
  const files = new PictureFiles({ output, overwrite, resume: true });
  const scorers: Scorer[] = [];
  const progress = await Progress.for(context);
  try {
    for (const key of new Set(flags.by)) scorers.push(await loadScorer(key, { signal: context.signal }));
    const result = await runSweep({
      prompts,
      x,
      ...(y && { y }),
      seed,
      imagesPerCell: images,
      settings: samplingOptions(flags),
      model,
      variant: flags.variant,
      load: (name, variant) => loadPipeline(name, { ...flags, variant }, context, progress),
      scorers,
      distance: flags.distance ?? false,
      files,
      onProgress: ({ done, total }) => progress.update("drawing", done, total),
      signal: context.signal,
    });
    progress.stop();
    for (const warning of result.warnings) context.stderr(`warning: ${warning}\n`);
    for (const key of new Set(result.cells.flat().flatMap(({ ignoredRewards }) => ignoredRewards)))
      context.stderr(`warning: ${key} was left out where the checkpoint was not trained on it\n`);
    const sheet = join(output, "sheet.png");
    const title = flags.title ?? (new Set(prompts).size === 1 ? prompts[0]! : undefined);
    const picture = await sweepSheet(result, {
      ...(title && { title }),
      footer: describe(result, x, y),
      ...(flags.cellSize !== undefined && { cellSize: flags.cellSize }),
    });
    const json = { sheet, ...sweepToJson(result), seconds: Math.round((performance.now() - started) / 10) / 100 };
    writeFileAtomic(sheet, encodePng(picture.data, picture.width, picture.height), { overwrite: true });
    writeFileAtomic(join(output, "sweep.json"), `${JSON.stringify(json, null, 2)}\n`, { overwrite: true });
    context.stdout(flags.json ? `${JSON.stringify(json)}\n` : `${sheet}\n${join(output, "sweep.json")}\n`);
    if (!flags.json) context.stderr(table(result));
  } finally {
    progress.stop();
    for (const scorer of scorers) scorer.dispose();
  }
}

/** What all pictures have in common, as far as no axis changes it. */
function describe({ cells }: SweepResult, x: Axis, y: Axis | undefined): string {
  const { model, variant, steps, sampler, guidanceScale, seed, versions } = cells[0]![0]!.images[0]!.settings;
  const changed = new Set([x.name, y?.name ?? "prompt"]);
  const parts = [
    !changed.has("model") && !changed.has("variant") && `${model}${variant ? `/${variant}` : ""}`,
    !changed.has("steps") && !changed.has("evaluations") && `${steps} steps`,
    !changed.has("sampler") && sampler,
    !changed.has("guidance") && (guidanceScale > 0 ? `guidance ${guidanceScale}` : "unguided"),
    !changed.has("seed") && `seed ${seed}`,
    `miro-t2i ${versions.miro}`,
  ];
  return parts.filter(Boolean).join(", ");
}

/** Mean scores along both sides, for people. */
function table(result: SweepResult): string {
  const lines = (["column", "row"] as const).flatMap((side) => {
    const { name } = side === "column" ? result.x : result.y;
    return summarize(result, side)
      .filter(({ scores }) => Object.keys(scores).length > 0)
      .map(({ value, scores }) => {
        const means = Object.entries(scores).map(([key, mean]) => `${key} ${mean.toPrecision(4)}`);
        return `  ${name} ${value}: ${means.join(", ")}`;
      });
  });
  return lines.length > 0 ? `mean scores:\n${lines.join("\n")}\n` : "";
}
