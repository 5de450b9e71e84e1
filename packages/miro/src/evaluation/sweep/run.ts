/**
 * Draws a sweep: a table of pictures in which one thing changes from column to column and another from row to row, all
 * else being equal, seeds included. Pictures of one checkpoint that differ in prompt, seed and rewards only are drawn in
 * one call; checkpoints are loaded one after another.
 */
import { InvalidInputError, invalid } from "../../errors.js";
import { type SamplerName, stepsWithin } from "../../flow/samplers.js";
import type { GenerateOptions } from "../../pipeline/generate-options.js";
import type { GeneratedImage } from "../../pipeline/metadata.js";
import type { MiroPipeline } from "../../pipeline/pipeline.js";
import type { Scorer } from "../../rewards/scorer.js";
import type { Axis, CellChange } from "./axis.js";

/** Settings that all places of a sweep share; what an axis changes comes before them. */
export type SharedSettings = Pick<
  GenerateOptions,
  | "rewardTargets"
  | "negativeRewardTargets"
  | "steps"
  | "guidanceScale"
  | "guidanceType"
  | "guidanceWindow"
  | "sampler"
  | "shift"
> & {
  rewardTargets?: Record<string, number>;
  negativeRewardTargets?: Record<string, number>;
};

/** Options of {@link runSweep}. */
export interface SweepOptions {
  prompts: readonly string[];
  /** What changes from column to column. */
  x: Axis;
  /** What changes from row to row; default: the prompts. */
  y?: Axis;
  /** Seed of the first picture of each place, default 0. */
  seed?: number;
  /** Pictures of each place, with consecutive seeds; the sheet shows the first, scores are of all. Default 1. */
  imagesPerCell?: number;
  settings?: SharedSettings;
  /** The checkpoint where no axis names another. */
  model: string;
  variant?: string;
  /** Loads a checkpoint; the sweep disposes of it. */
  load(model: string, variant: string | undefined): Promise<MiroPipeline>;
  /** Judges of every picture. */
  scorers?: readonly Scorer[];
  /** Pictures of an earlier, interrupted sweep, and where new ones are kept. */
  store?: CellStore;
  onProgress?: (progress: SweepProgress) => void;
  signal?: AbortSignal;
}

/** Keeps pictures between runs. */
export interface CellStore {
  /** The picture of a place if it is there and was made with these settings. */
  find(place: Place, pipe: MiroPipeline): Promise<GeneratedImage | null>;
  keep(place: Place, image: GeneratedImage): Promise<void>;
}

/** Where a sweep is. */
export interface SweepProgress {
  done: number;
  total: number;
  label: string;
}

/** One picture of a sweep, before it is drawn. */
export interface Place {
  row: number;
  column: number;
  /** Index among the pictures of its cell. */
  index: number;
  prompt: string;
  seed: number;
  model: string;
  variant: string | undefined;
  rewardTargets: Record<string, number>;
  negativeRewardTargets: Record<string, number>;
  /** What has to be equal for two pictures to be drawn in one call. */
  call: Omit<SharedSettings, "rewardTargets" | "negativeRewardTargets">;
}

/** One cell of the table. */
export interface SweepCell {
  row: number;
  column: number;
  images: GeneratedImage[];
  /** By scorer, one for each of the images. */
  scores: Record<string, number[]>;
  /** Targets that the cell's checkpoint was not trained on, which were left out. */
  ignoredRewards: string[];
}

/** What {@link runSweep} returns; rows of cells. */
export interface SweepResult {
  x: Axis;
  y: Axis;
  cells: SweepCell[][];
}

/**
 * Draws a sweep.
 *
 * @throws InvalidInputError when both axes change the same thing, or several prompts have no axis
 */
export async function runSweep(options: SweepOptions): Promise<SweepResult> {
  const { x, prompts, model, variant, signal, store, scorers = [], onProgress } = options;
  const y = options.y ?? promptAxis(prompts);
  const places = layOut({ ...options, y });
  const cells: SweepCell[][] = y.points.map((_, row) =>
    x.points.map((_, column) => ({ row, column, images: [], scores: {}, ignoredRewards: [] })),
  );
  let done = 0;
  const take = async (place: Place, image: GeneratedImage): Promise<void> => {
    const cell = cells[place.row]![place.column]!;
    cell.images[place.index] = image;
    for (const scorer of scorers) {
      const [score] = await scorer.score([image], [place.prompt], { ...(signal && { signal }) });
      cell.scores[scorer.key] ??= [];
      cell.scores[scorer.key]![place.index] = score!;
    }
    onProgress?.({
      done: ++done,
      total: places.length,
      label: `${place.model}${place.variant ? `/${place.variant}` : ""}`,
    });
  };
  const several = new Set(places.map((place) => checkpointOf(place))).size > 1;
  for (const group of groupBy(places, checkpointOf)) {
    signal?.throwIfAborted();
    const pipe = await options.load(group[0]!.model ?? model, group[0]!.variant ?? variant);
    try {
      if (several) for (const place of group) restrict(place, pipe.coherenceKeys, cells);
      const absent: Place[] = [];
      for (const place of group) {
        const kept = await store?.find(place, pipe);
        if (kept) await take(place, kept);
        else absent.push(place);
      }
      for (const call of groupBy(absent, ({ call }) => JSON.stringify(call))) {
        const result = await pipe.generate(
          call.map(({ prompt }) => prompt),
          {
            ...call[0]!.call,
            seed: call.map(({ seed }) => seed),
            rewardTargets: call.map(({ rewardTargets }) => rewardTargets),
            negativeRewardTargets: call.map(({ negativeRewardTargets }) => negativeRewardTargets),
            onImage: async (image, i) => {
              await store?.keep(call[i]!, image);
              await take(call[i]!, image);
            },
            ...(signal && { signal }),
          },
        );
        result.latents.dispose();
      }
    } finally {
      await pipe.dispose();
    }
  }
  return { x, y, cells };
}

/** The prompts as rows: what a sweep has when no second axis is given. */
function promptAxis(prompts: readonly string[]): Axis {
  return { name: "prompt", points: prompts.map((prompt) => ({ label: prompt, value: prompt, change: { prompt } })) };
}

/** The pictures of a sweep, row by row. */
function layOut(options: SweepOptions & { y: Axis }): Place[] {
  const { prompts, x, y, seed = 0, imagesPerCell = 1, settings = {} } = options;
  if (prompts.length === 0) invalid("prompts", "at least one prompt", prompts);
  const subject = (name: string) => (name === "evaluations" ? "steps" : name);
  if (subject(x.name) === subject(y.name)) {
    throw new InvalidInputError(`the axes ${x.name} and ${y.name} change the same thing; choose another for one side`);
  }
  if (prompts.length > 1 && x.name !== "prompt" && y.name !== "prompt") {
    throw new InvalidInputError(
      `prompts: expected one prompt, or the axis prompt for several; received ${prompts.length} prompts with the axes ${x.name} and ${y.name}`,
    );
  }
  const { rewardTargets, negativeRewardTargets, ...shared } = settings;
  return y.points.flatMap((yPoint, row) =>
    x.points.flatMap((xPoint, column) =>
      Array.from({ length: imagesPerCell }, (_, index) => {
        const changes = [xPoint.change, yPoint.change];
        const chosen: CellChange = Object.assign({}, ...changes);
        const { steps, evaluations, guidanceScale, sampler } = chosen;
        const method: SamplerName = sampler ?? shared.sampler ?? "euler";
        return {
          row,
          column,
          index,
          prompt: chosen.prompt ?? prompts[0]!,
          seed: (chosen.seed ?? seed) + index,
          model: chosen.model ?? options.model,
          variant: (chosen.variant ?? options.variant) || undefined,
          rewardTargets: Object.assign({}, rewardTargets, ...changes.map((change) => change.rewardTargets)),
          negativeRewardTargets: Object.assign(
            {},
            negativeRewardTargets,
            ...changes.map((change) => change.negativeRewardTargets),
          ),
          call: {
            ...shared,
            ...(guidanceScale !== undefined && { guidanceScale }),
            ...(sampler !== undefined && { sampler }),
            ...(steps !== undefined && { steps }),
            ...(evaluations !== undefined && {
              steps: stepsWithin(method, evaluations),
            }),
          },
        };
      }),
    ),
  );
}

/** Leaves out the targets that a checkpoint does not know, which in a comparison of checkpoints is no mistake. */
function restrict(place: Place, known: readonly string[], cells: SweepCell[][]): void {
  const cell = cells[place.row]![place.column]!;
  for (const targets of [place.rewardTargets, place.negativeRewardTargets]) {
    for (const key of Object.keys(targets).filter((name) => !known.includes(name))) {
      delete targets[key];
      if (!cell.ignoredRewards.includes(key)) cell.ignoredRewards.push(key);
    }
  }
}

function checkpointOf({ model, variant }: Place): string {
  return JSON.stringify([model, variant]);
}

/** Items with equal keys together, in order of first appearance. */
function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group) group.push(item);
    else groups.set(key, [item]);
  }
  return [...groups.values()];
}
