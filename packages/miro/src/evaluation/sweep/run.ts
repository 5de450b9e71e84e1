/**
 * Draws a sweep: a table of pictures in which one thing changes from column to column and another from row to row, all
 * else being equal, seeds included. Pictures of one checkpoint that differ in prompt, seed and rewards only are drawn
 * in one call; checkpoints are loaded one after another.
 */
import { checkList, checkObject, isText } from "../../arguments.js";
import { InvalidInputError, invalid } from "../../errors.js";
import { evaluationsOf, stepsWithin, withOptionsOf } from "../../flow/samplers/index.js";
import { groupBy } from "../../group-by.js";
import { message } from "../../message.js";
import { counted, plural } from "../../numbers.js";
import type { RgbImage } from "../../pictures/rgb.js";
import type { GeneratedImage } from "../../pipeline/generated-image.js";
import type { MiroPipeline } from "../../pipeline/pipeline.js";
import { type DrawHooks, DrawRequest } from "../../pipeline/requests/draw-request.js";
import type { PictureFiles } from "../../pipeline/requests/picture-files.js";
import { checkOptions, mergeOptions, type PlannedPicture } from "../../pipeline/requests/plan-pictures.js";
import type { PromptOptions } from "../../pipeline/requests/prompt-file.js";
import type { ImageSettings } from "../../pipeline/settings.js";
import { checkScorerFor } from "../../rewards/registry.js";
import type { LoadedScorer, Scorer } from "../../rewards/scorer.js";
import type { Axis, CellChange } from "./axis.js";

/** Options of {@link runSweep}. */
export interface SweepOptions {
  /** What is drawn. */
  prompts: readonly string[];
  /** What changes from column to column. */
  x: Axis;
  /** What changes from row to row; default: the prompts. */
  y?: Axis | undefined;
  /** Seed of the first picture of each place, default 0. */
  seed?: number | undefined;
  /**
   * Pictures of each place, with consecutive seeds or variation seeds; the sheet shows the first, scores are of all.
   * Default 1.
   */
  imagesPerCell?: number | undefined;
  /**
   * Key of one of `scorers`: of each place the picture with its highest score alone is shown and counts in scores.
   * Without a score the first is.
   */
  bestBy?: string | undefined;
  /** Settings that all places share; what an axis changes comes before them. */
  settings?: PromptOptions | undefined;
  /** The checkpoint where no axis names another. */
  model: string;
  /** Sub-folder of that checkpoint. */
  variant?: string | undefined;
  /** Loads a checkpoint. */
  load(model: string, variant: string | undefined): Promise<MiroPipeline>;
  /** Called with a checkpoint that is not needed any more. Default: it is disposed of. */
  release?: ((pipe: MiroPipeline) => Promise<void>) | undefined;
  /** What scores every picture. */
  scorers?: readonly Scorer[] | undefined;
  /**
   * Give every picture a score `distance`: how far it is from the picture that the same noise and the same settings
   * converge to (Heun's method with 200 evaluations), root mean square over all values, in levels of 255. Tells what is
   * lost to few steps.
   */
  distance?: boolean | undefined;
  /** Where each picture is kept; those that are there with the same settings are not drawn again. */
  files?: PictureFiles | undefined;
  /** Called with each picture that is drawn or was there. */
  onProgress?: ((progress: SweepProgress) => void) | undefined;
  /** Called with each picture, by its place in {@link layOutSweep}, and waited for. */
  onPicture?: ((index: number, image: SweepImage) => void | Promise<void>) | undefined;
  /** Called after each step of pictures, by their places, and waited for. */
  onStep?: DrawHooks["onStep"];
  /** Give `onStep` pictures of what is being drawn at every n-th step. */
  previewEvery?: number | undefined;
  /** Stops the work within one step. */
  signal?: AbortSignal | undefined;
}

/** Where a sweep is. */
export interface SweepProgress {
  done: number;
  total: number;
  label: string;
}

/** One picture of a sweep. */
export interface SweepImage extends RgbImage {
  seed: number;
  settings: ImageSettings;
  /** Its file, where pictures are kept. */
  path: string | null;
  /** By scorer; null where one that can say so could not judge the picture. */
  scores: Record<string, number | null>;
}

/** One place of the table. */
export interface SweepCell {
  row: number;
  column: number;
  images: SweepImage[];
  /** Place among `images` of the best by `bestBy`; absent where all count. */
  best?: number;
  /** Targets that the cell's checkpoint was not trained on, which were left out. */
  ignoredRewards: string[];
}

/** What {@link runSweep} returns; rows of cells. */
export interface SweepResult {
  x: Axis;
  y: Axis;
  cells: SweepCell[][];
  /** What scored the pictures, by key: the model or measure, and what its networks compute in. */
  scorers: Record<string, Pick<Scorer, "name" | "dtype">>;
  warnings: string[];
}

/** One picture before it is drawn: its place in the table and the checkpoint that draws it. */
export interface SweepPlace extends PlannedPicture {
  row: number;
  column: number;
  /** Index among the pictures of its cell. */
  nth: number;
  seed: number;
  model: string;
  variant: string | undefined;
}

/**
 * Draws a sweep.
 *
 * @throws InvalidInputError when both axes change the same thing, or several prompts have no axis, and when a scorer
 *   has nothing to say about what a checkpoint draws; what `MiroPipeline.generate` throws
 */
export async function runSweep(options: SweepOptions): Promise<SweepResult> {
  checkObject("options", options, "{ prompts, x, … }", ["prompts", "x"]);
  checkList("prompts", options.prompts, "a list of texts", isText);
  const { prompts, signal, files, bestBy, scorers = [] } = options;
  if (bestBy !== undefined && !scorers.some(({ key }) => key === bestBy))
    throw invalid("bestBy", "the key of one of the scorers", bestBy);
  const y = options.y ?? promptAxis(prompts);
  const places = layOutSweep({ ...options, y });
  try {
    await files?.claim(places, { settings: null, rewards: null, signal });
    return await drawPlaces(options, y, places);
  } finally {
    files?.release();
  }
}

async function drawPlaces(options: SweepOptions, y: Axis, places: readonly SweepPlace[]): Promise<SweepResult> {
  const { x, signal, files, scorers = [], onProgress } = options;
  const cells: SweepCell[][] = y.points.map((_, row) =>
    x.points.map((_, column) => ({ row, column, images: [], ignoredRewards: [] })),
  );
  const warnings = new Set<string>();
  /** Pictures without a score, by scorer. */
  const unjudged = new Map<string, number>();
  let done = 0;
  let converged = new Map<string, RgbImage>();
  const take = async (place: SweepPlace, image: GeneratedImage, path: string | null): Promise<void> => {
    const scores: Record<string, number | null> = {};
    for (const scorer of scorers) {
      scores[scorer.key] = await scoreOf(scorer, image, place.prompt, signal);
      if (scores[scorer.key] === null) unjudged.set(scorer.key, (unjudged.get(scorer.key) ?? 0) + 1);
    }
    const limit = converged.get(limitKey(place));
    if (limit) scores.distance = rmsDifference(image, limit);
    const { width, height, data, settings } = image;
    const drawn: SweepImage = { width, height, data, seed: place.seed, settings, path, scores };
    cells[place.row]![place.column]!.images[place.nth] = drawn;
    await options.onPicture?.(place.index, drawn);
    onProgress?.({ done: ++done, total: places.length, label: checkpointName(place) });
  };
  const groups = [...groupBy(places, checkpointName).values()];
  for (const group of groups) {
    signal?.throwIfAborted();
    const { model, variant } = group[0]!;
    const pipe = await options.load(model, variant);
    try {
      for (const { key } of scorers) checkScorerFor(pipe, key, "by");
      if (groups.length > 1) for (const place of group) leaveOutUnknown(place, pipe, cells[place.row]![place.column]!);
      if (options.distance) converged = await drawConverged(pipe, group, signal);
      const { previewEvery, onStep } = options;
      const report = await new DrawRequest({ pictures: group, files, previewEvery }).draw(pipe, {
        signal,
        onStep,
        onPicture: ({ picture, image, path }) => take(picture as SweepPlace, image, path),
      });
      for (const warning of report.warnings) warnings.add(warning);
    } finally {
      await (options.release?.(pipe) ?? pipe.dispose());
    }
  }
  for (const [key, count] of unjudged)
    warnings.add(
      `${key}: ${count} of ${counted(places.length, "score")} ${plural(count, "is", "are")} not finite and left out of the means`,
    );
  const { bestBy } = options;
  if (bestBy !== undefined) for (const cell of cells.flat()) cell.best = bestOf(cell.images, bestBy);
  const named = Object.fromEntries(scorers.map(({ key, name, dtype }) => [key, { name, ...(dtype && { dtype }) }]));
  return { x, y, cells, scorers: named, warnings: [...warnings] };
}

/** Place of the picture with the highest score; one without a score is behind all others. */
function bestOf(images: readonly SweepImage[], key: string): number {
  const scores = images.map((image) => image.scores[key] ?? Number.NEGATIVE_INFINITY);
  return scores.indexOf(Math.max(...scores));
}

/** The score of a picture, or null where the scorer can say that there is none. */
async function scoreOf(
  scorer: Scorer | LoadedScorer,
  image: RgbImage,
  prompt: string,
  signal: AbortSignal | undefined,
): Promise<number | null> {
  const call = [[image], [prompt], { signal }] as const;
  const [score] = await ("scoreOrNull" in scorer ? scorer.scoreOrNull(...call) : scorer.score(...call));
  return score!;
}

/** The prompts as rows: what a sweep has when no second axis is given. */
function promptAxis(prompts: readonly string[]): Axis {
  return { name: "prompt", points: prompts.map((prompt) => ({ label: prompt, value: prompt, change: { prompt } })) };
}

/** What decides the places of a sweep. */
export type SweepLayout = Pick<
  SweepOptions,
  "prompts" | "x" | "y" | "seed" | "imagesPerCell" | "settings" | "model" | "variant"
>;

/** The pictures of a sweep, row by row. @throws InvalidInputError as {@link runSweep} does */
export function layOutSweep(options: SweepLayout): SweepPlace[] {
  const { prompts, x, y = promptAxis(options.prompts), seed = 0, imagesPerCell = 1, settings = {} } = options;
  if (prompts.length === 0) throw invalid("prompts", "at least one prompt", prompts);
  const subject = (name: string) => (name === "evaluations" ? "steps" : name);
  if (subject(x.name) === subject(y.name)) {
    throw new InvalidInputError(`the axes ${x.name} and ${y.name} change the same thing; choose another for one side`);
  }
  if (prompts.length > 1 && x.name !== "prompt" && y.name !== "prompt")
    throw invalid(
      "prompts",
      "one prompt, or the axis prompt for several",
      message`${prompts.length} prompts with the axes ${x.name} and ${y.name}`,
    );
  // What follows from the sampler is known only with both axes, as it may be the other one's choice.
  const samplers = x.name === "sampler" || y.name === "sampler";
  const optionsAt = (down: CellChange, across: CellChange): PromptOptions => {
    const { samplerOptions, ...rest } = [across, down].map(optionsOf).reduce(mergeOptions, settings);
    const own = samplers ? withOptionsOf(rest.sampler ?? "euler", samplerOptions) : samplerOptions;
    const evaluations = down.evaluations ?? across.evaluations;
    return {
      ...rest,
      ...(own && { samplerOptions: own }),
      ...(evaluations !== undefined && { steps: stepsOf(rest.sampler ?? "euler", evaluations) }),
    };
  };
  const places: SweepPlace[] = [];
  for (const [row, { change: down }] of y.points.entries()) {
    for (const [column, { change: across }] of x.points.entries()) {
      const chosen: CellChange = { ...across, ...down };
      const first = chosen.seed ?? seed;
      const checked = checkOptions({ ...optionsAt(down, across), seed: first });
      const { variationSeed } = checked;
      const largest = Number.MAX_SAFE_INTEGER - (imagesPerCell - 1);
      for (const [name, seed] of Object.entries({ seed: first, variationSeed }))
        if (typeof seed === "number" && seed > largest)
          throw invalid(name, `at most ${largest} for ${counted(imagesPerCell, "picture")} of each place`, seed);
      for (let nth = 0; nth < imagesPerCell; nth++) {
        const varied = typeof variationSeed === "number" && { variationSeed: variationSeed + nth };
        places.push({
          index: places.length,
          row,
          column,
          nth,
          prompt: chosen.prompt ?? prompts[0]!,
          seed: varied ? first : first + nth,
          model: chosen.model ?? options.model,
          variant: (chosen.variant ?? options.variant) || undefined,
          options: { ...checked, ...varied },
          name: `r${row + 1}-c${column + 1}${imagesPerCell > 1 ? `-${nth + 1}` : ""}`,
        });
      }
    }
  }
  return places;
}

/** The most steps that a sampler makes of evaluations. @throws InvalidInputError where they are too few for one */
function stepsOf(sampler: string, evaluations: number): number {
  const least = evaluationsOf(sampler, 1);
  if (evaluations < least)
    throw invalid("evaluations", `at least ${least}, which one step of ${sampler} takes`, evaluations);
  return stepsWithin(sampler, evaluations);
}

/** The options of `generate` among the changes of an axis. */
function optionsOf({ prompt, seed, model, variant, evaluations, ...options }: CellChange): PromptOptions {
  return options;
}

/** Leaves out the targets that a checkpoint does not know, which in a comparison of checkpoints is no mistake. */
function leaveOutUnknown(place: SweepPlace, { coherenceKeys }: MiroPipeline, cell: SweepCell): void {
  const options = { ...place.options };
  for (const field of ["rewardTargets", "negativeRewardTargets"] as const) {
    const targets = Object.entries((options[field] ?? {}) as Record<string, number>);
    for (const [key] of targets) {
      if (!coherenceKeys.includes(key) && !cell.ignoredRewards.includes(key)) cell.ignoredRewards.push(key);
    }
    if (options[field]) options[field] = Object.fromEntries(targets.filter(([key]) => coherenceKeys.includes(key)));
  }
  place.options = options;
}

/** Evaluations of Heun's method after which a picture does not change visibly any more. */
const CONVERGED_STEPS = 100;

/** What decides the picture that a place converges to: everything but the sampler, its options and its steps. */
function limitKey({ prompt, seed, options: { sampler, samplerOptions, steps, ...rest } }: SweepPlace): string {
  return JSON.stringify([prompt, seed, Object.entries(rest).sort(([a], [b]) => (a < b ? -1 : 1))]);
}

async function drawConverged(
  pipe: MiroPipeline,
  places: readonly SweepPlace[],
  signal: AbortSignal | undefined,
): Promise<Map<string, RgbImage>> {
  const limits = new Map<string, RgbImage>();
  const distinct = [...new Map(places.map((place) => [limitKey(place), place])).values()];
  const slow = distinct.map((place) => {
    const { samplerOptions: _, ...options } = place.options;
    return { ...place, options: { ...options, sampler: "heun", steps: CONVERGED_STEPS } };
  });
  await new DrawRequest({ pictures: slow }).draw(pipe, {
    signal,
    onPicture: ({ picture, image }) => void limits.set(limitKey(picture as SweepPlace), image),
  });
  return limits;
}

/** Root mean square difference of two pictures of one size, in levels. */
function rmsDifference(a: RgbImage, b: RgbImage): number {
  let sum = 0;
  for (let i = 0; i < a.data.length; i++) sum += (a.data[i]! - b.data[i]!) ** 2;
  return Math.sqrt(sum / a.data.length);
}

function checkpointName({ model, variant }: SweepPlace): string {
  return variant === undefined ? model : `${model}/${variant}`;
}
