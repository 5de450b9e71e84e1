/**
 * Many pictures of many prompts: which pictures a list of requests means, and drawing them in as few calls of `generate` as
 * their settings allow. Order is that of the requests throughout; what is held in memory does not grow with their number.
 */
import { randomInt } from "node:crypto";
import { cat, scope, type Tensor } from "@miro-t2i/torch";
import { InvalidInputError } from "../../errors.js";
import { samplerNames, withOptionsOf } from "../../flow/samplers/index.js";
import type { GenerateOptions, GenerateProgress } from "../generate-options.js";
import type { MiroPipeline } from "../pipeline.js";
import type { GeneratedImage, ImageSettings } from "../settings.js";
import type { PromptOptions, PromptRequest } from "./prompt-file.js";

/** One picture that is to be drawn. */
export interface PlannedPicture {
  /** Place among all pictures, from 0. */
  index: number;
  prompt: string;
  /** Null when the noise is given. */
  seed: number | null;
  /** Its options of `generate`, those of the whole command included. */
  options: PromptOptions;
  /** Template of its file name, where its line gives one. */
  name?: string;
  /** `file:line` of its prompt, for errors. */
  where?: string;
}

/** What holds for all requests that say nothing else. */
export interface PlanOptions {
  options?: PromptOptions;
  /** Seed of the first picture; the i-th one has `seed + i`. Null: the noise is given. */
  seed: number | null;
  /** Seeds that a picture takes up, when it is the best of several (default 1). */
  candidates?: number;
}

/** A seed that nobody chose, below 2³² as other programs expect it. */
export function randomSeed(): number {
  return randomInt(2 ** 32);
}

/** The pictures of a list of requests, in order. */
export function planPictures(
  requests: readonly PromptRequest[],
  { options = {}, seed, candidates = 1 }: PlanOptions,
): PlannedPicture[] {
  const pictures: PlannedPicture[] = [];
  for (const { prompt, name, where, ...request } of requests) {
    const { imagesPerPrompt = 1, ...merged } = mergeOptions(options, request.options);
    if (request.seed !== undefined && seed === null) {
      throw new InvalidInputError(`${where ?? "seed"}: a seed has no meaning where the noise is given`);
    }
    const own = request.seed === "random" ? randomSeed() : request.seed;
    for (let i = 0; i < imagesPerPrompt; i++) {
      const index = pictures.length;
      const first = own !== undefined ? own + i * candidates : seed === null ? null : seed + index * candidates;
      if (first !== null && first + candidates > Number.MAX_SAFE_INTEGER) {
        throw new InvalidInputError(`${where ?? "seed"}: the seed ${first} is too large`);
      }
      pictures.push({ index, prompt, seed: first, options: merged, ...(name && { name }), ...(where && { where }) });
    }
  }
  return pictures;
}

/**
 * Options with others over them. Reward targets are merged by reward, and the sampler's options by name; another sampler
 * takes those of the one under it that it has as well.
 */
export function mergeOptions(under: PromptOptions, over: PromptOptions): PromptOptions {
  const merged: PromptOptions = { ...under, ...over };
  for (const key of ["rewardTargets", "negativeRewardTargets"] as const) {
    if (under[key] || over[key]) merged[key] = { ...under[key], ...over[key] };
  }
  const another = over.sampler !== undefined && over.sampler !== under.sampler && samplerNames().includes(over.sampler);
  const kept = another ? withOptionsOf(over.sampler!, under.samplerOptions) : under.samplerOptions;
  delete merged.samplerOptions;
  if (kept || over.samplerOptions) merged.samplerOptions = { ...kept, ...over.samplerOptions };
  return merged;
}

/** A call of `generate`. */
export interface BatchCall {
  pictures: PlannedPicture[];
  prompts: string[];
  options: GenerateOptions;
}

/**
 * Pictures in calls of at most `size`: those that differ in nothing but prompt, seed and reward targets go together, in the
 * order of their first picture.
 */
export function groupPictures(pictures: readonly PlannedPicture[], size: number): BatchCall[] {
  const groups = new Map<string, PlannedPicture[]>();
  for (const picture of pictures) {
    const { rewardTargets, negativeRewardTargets, ...shared } = picture.options;
    const key = JSON.stringify(Object.entries(shared).sort(([a], [b]) => (a < b ? -1 : 1)));
    const group = groups.get(key);
    if (group) group.push(picture);
    else groups.set(key, [picture]);
  }
  return [...groups.values()].flatMap((group) => {
    const calls: BatchCall[] = [];
    for (let first = 0; first < group.length; first += size) calls.push(toCall(group.slice(first, first + size)));
    return calls;
  });
}

function toCall(pictures: PlannedPicture[]): BatchCall {
  const options: GenerateOptions = {
    ...pictures[0]!.options,
    rewardTargets: pictures.map(({ options: { rewardTargets } }) => rewardTargets ?? {}),
    negativeRewardTargets: pictures.map(({ options: { negativeRewardTargets } }) => negativeRewardTargets ?? {}),
  };
  if (pictures[0]!.seed !== null) options.seed = pictures.map(({ seed }) => seed!);
  return { pictures, prompts: pictures.map(({ prompt }) => prompt), options };
}

/**
 * The settings that the pictures will hold, without drawing them.
 * @throws InvalidInputError for options that the checkpoint cannot take, naming the line of the prompt file
 */
export async function describePictures(
  pipe: MiroPipeline,
  pictures: readonly PlannedPicture[],
): Promise<ImageSettings[]> {
  const settings: ImageSettings[] = [];
  for (const { pictures: group, prompts, options } of groupPictures(pictures, CALL_SIZE)) {
    const described = await pipe.describe(prompts, options).catch((error) => blame(pipe, group, error));
    for (const [i, { index, seed }] of group.entries()) settings[index] = { ...described[i]!, seed };
  }
  return pictures.map(({ index }) => settings[index]!);
}

/** Throws the error of the first picture of a call that is wrong by itself, with its line, else `error`. */
async function blame(pipe: MiroPipeline, group: readonly PlannedPicture[], error: unknown): Promise<never> {
  for (const { where, prompt, options } of error instanceof InvalidInputError ? group : []) {
    if (where === undefined) continue;
    await pipe.describe(prompt, options as GenerateOptions).catch((own: Error) => {
      throw new InvalidInputError(`${where}: ${own.message}`, { cause: own });
    });
  }
  throw error;
}

/** Pictures of one call; their pixels and latents are in memory together. */
const CALL_SIZE = 32;

/** How {@link drawPictures} draws. */
export interface DrawOptions {
  /** Initial noise of all pictures of the plan, (pictures · candidates, C, r, r). */
  noise?: Tensor | undefined;
  batchSize?: number | undefined;
  /** Whether the latents are returned. */
  keepLatents?: boolean;
  signal?: AbortSignal | undefined;
  /** Called after each step; `images` are places in the plan. */
  onStep?: ((progress: Pick<GenerateProgress, "step" | "steps" | "images">) => void) | undefined;
  /** Called with each picture as soon as it is finished. */
  onImage: (image: GeneratedImage, picture: PlannedPicture) => void | Promise<void>;
}

/** What {@link drawPictures} returns. */
export interface DrawResult {
  /** (pictures, C, r, r) float32 in the order of the pictures when asked for, else null. The caller owns it. */
  latents: Tensor | null;
  /** Each once. */
  warnings: string[];
}

/**
 * Draws planned pictures.
 * @throws as `MiroPipeline.generate`
 */
export async function drawPictures(
  pipe: MiroPipeline,
  pictures: readonly PlannedPicture[],
  { noise, batchSize, keepLatents = false, signal, onStep, onImage }: DrawOptions,
): Promise<DrawResult> {
  const warnings = new Set<string>();
  const latents = new Map<number, Tensor>();
  const size = batchSize === undefined ? CALL_SIZE : Math.ceil(CALL_SIZE / batchSize) * batchSize;
  try {
    for (const { pictures: group, prompts, options } of groupPictures(pictures, size)) {
      const rows =
        noise &&
        scope(() =>
          cat(
            group.map(({ index }) => noise.narrow(0, index, 1)),
            0,
          ),
        );
      try {
        const result = await pipe.generate(prompts, {
          ...options,
          ...(rows && { noise: rows }),
          ...(batchSize !== undefined && { batchSize }),
          ...(signal && { signal }),
          ...(onStep && {
            onStep: ({ step, steps, images }) =>
              onStep({ step, steps, images: images.map((row) => group[row]!.index) }),
          }),
          onImage: (image, row) => onImage(image, group[row]!),
        });
        for (const warning of result.warnings) warnings.add(warning);
        if (keepLatents) {
          for (const [row, { index }] of group.entries()) {
            latents.set(
              index,
              scope(() => result.latents.narrow(0, row, 1).clone()),
            );
          }
        }
        result.latents.dispose();
      } finally {
        rows?.dispose();
      }
    }
    const ordered = pictures.map(({ index }) => latents.get(index)!);
    return { latents: keepLatents ? scope(() => cat(ordered, 0)) : null, warnings: [...warnings] };
  } finally {
    for (const part of latents.values()) part.dispose();
  }
}
