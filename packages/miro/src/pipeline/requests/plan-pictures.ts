/** Which pictures a list of prompts means, each with its options checked, and which of them can share a plan. */
import { randomInt } from "node:crypto";
import { z } from "zod";
import { isObject } from "../../arguments.js";
import { InvalidInputError, invalid } from "../../errors.js";
import { samplerNames, withOptionsOf } from "../../flow/samplers/index.js";
import { groupBy } from "../../group-by.js";
import { about, message } from "../../message.js";
import { parseOptions, withDefaults } from "../../options.js";
import type { PictureSource } from "../edit.js";
import { generateSchema, type ResolvedGenerateOptions } from "../generate-options.js";
import type { RewardTargets } from "../picture-options.js";
import { type PromptOptions, type PromptRequest, promptOptionsSchema } from "./prompt-file.js";

/** One picture that is to be drawn. */
export interface PlannedPicture {
  /** Place among all pictures, from 0. */
  index: number;
  prompt: string;
  /** Null when the noise is given. */
  seed: number | null;
  /** Its options of `generate`, checked, those of the whole command included; `seed` is not among them. */
  options: ResolvedGenerateOptions;
  /** Template of its file name, where its line gives one. */
  name?: string;
  /** `file:line` of its prompt, for errors. */
  where?: string;
}

/** What holds for all requests that say nothing else. */
export interface PlanOptions {
  options?: PromptOptions | undefined;
  /** Seed of the first picture; the i-th one has `seed + i`. Null: the noise is given. */
  seed: number | null;
  /** Seeds, or of variations variation seeds, that a picture takes up when it is the best of several (default 1). */
  candidates?: number | undefined;
}

/** A random seed, below 2³² as other programs expect it. */
export function randomSeed(): number {
  return randomInt(2 ** 32);
}

/**
 * The pictures of a list of requests, in order.
 * @throws InvalidInputError for a wrong option, naming the line of a prompt file that gives it
 *
 * @example
 * ```ts
 * import { planPictures } from "miro-t2i";
 *
 * const requests = [{ prompt: "a fox", options: { imagesPerPrompt: 2 } }, { prompt: "a cat", options: {}, seed: 100 }];
 * console.log(planPictures(requests, { seed: 7 }).map(({ prompt, seed }) => [prompt, seed])); // 7, 8 and 100
 * ```
 */
export function planPictures(requests: readonly PromptRequest[], options: PlanOptions): PlannedPicture[] {
  if (!Array.isArray(requests)) throw invalid("requests", "a list of { prompt, options }", requests);
  const wrong = requests.findIndex((one) => typeof one?.prompt !== "string" || !isObject(one.options));
  if (wrong >= 0) throw invalid(`requests.${wrong}`, "{ prompt, options } with a text and an object", requests[wrong]);
  if (!isObject(options)) throw invalid("options", "an object { seed, … }", options);
  if (options.seed !== null && !Number.isSafeInteger(options.seed))
    throw invalid("seed", "the first picture's seed, or null where the noise is given", options.seed);
  return layOut(requests, options, checkOptions);
}

/**
 * As {@link planPictures}, of options that were checked where they were read: by the command line, or in a prompt file.
 */
export function planChecked(requests: readonly PromptRequest[], options: PlanOptions): PlannedPicture[] {
  return layOut(requests, options, (checked) => withDefaults(generateSchema, checked));
}

function layOut(
  requests: readonly PromptRequest[],
  { options = {}, seed, candidates = 1 }: PlanOptions,
  resolve: (options: PromptOptions, where?: string) => ResolvedGenerateOptions,
): PlannedPicture[] {
  const pictures: PlannedPicture[] = [];
  for (const { prompt, name, where, ...request } of requests) {
    const resolved = resolve({ ...mergeOptions(options, request.options), ...(seed !== null && { seed }) }, where);
    if (request.seed !== undefined && seed === null) {
      throw new InvalidInputError(message`${where ?? about("seed")}: a seed has no meaning where the noise is given`);
    }
    const own = request.seed === "random" ? randomSeed() : request.seed;
    const { variationSeed } = resolved;
    const count = (parameter: string, from: number, place: number): number => {
      const first = from + place * candidates;
      if (first <= Number.MAX_SAFE_INTEGER - (candidates - 1)) return first;
      throw new InvalidInputError(message`${where ?? about(parameter)}: the seed ${first} is too large`);
    };
    for (let i = 0; i < resolved.imagesPerPrompt; i++) {
      const index = pictures.length;
      const picture = { index, prompt, ...(name && { name }), ...(where && { where }) };
      if (typeof variationSeed === "number") {
        // Variations of a picture have its seed, and count up their own.
        const place = request.options.variationSeed === undefined ? index : i;
        const options = { ...resolved, variationSeed: count("variationSeed", variationSeed, place) };
        pictures.push({ ...picture, seed: own ?? seed, options });
      } else {
        const first = own !== undefined ? count("seed", own, i) : seed === null ? null : count("seed", seed, index);
        pictures.push({ ...picture, seed: first, options: resolved });
      }
    }
  }
  return pictures;
}

/** The options of `generate` for one prompt, those that hold for the whole call included. */
const onePromptSchema = z.strictObject({ ...generateSchema.shape, ...promptOptionsSchema.shape });

/** Options of `generate` for one prompt after the checks that need no checkpoint. */
export function checkOptions(options: PromptOptions, where?: string): ResolvedGenerateOptions {
  try {
    return withDefaults(generateSchema, parseOptions(onePromptSchema, options));
  } catch (error) {
    if (where === undefined || !(error instanceof InvalidInputError)) throw error;
    throw new InvalidInputError(message`${where}: ${error}`, { cause: error });
  }
}

/**
 * Options with others over them. Reward targets are merged by reward, and the sampler's options by name; another
 * sampler takes those of the one under it that it has as well.
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

/** Pictures that share their settings, and so a plan. */
export interface PictureGroup {
  pictures: PlannedPicture[];
  prompts: string[];
  /** Of all of them; candidates of one picture follow each other. */
  options: ResolvedGenerateOptions;
}

/**
 * Pictures that differ in nothing but prompt, seeds, reward targets and what they are drawn over go together, in the
 * order of their first picture.
 * @param candidates pictures to draw for each, with consecutive seeds, or as consecutive variations
 */
export function groupPictures(pictures: readonly PlannedPicture[], candidates = 1): PictureGroup[] {
  const groups = groupBy(pictures, ({ options }) => {
    const { rewardTargets, negativeRewardTargets, seed, imagesPerPrompt, image, mask, variationSeed, ...rest } =
      options;
    const present = [image, mask, variationSeed].map((value) => value !== undefined);
    const shared = { ...rest, present };
    return JSON.stringify(Object.entries(shared).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
  return [...groups.values()].map((group) => {
    const each = <T>(value: (picture: PlannedPicture, candidate: number) => T): T[] =>
      group.flatMap((picture) => Array.from({ length: candidates }, (_, c) => value(picture, c)));
    const first = group[0]!;
    const areVariations = first.options.variationSeed !== undefined;
    const options: ResolvedGenerateOptions = {
      ...first.options,
      imagesPerPrompt: candidates,
      rewardTargets: each(({ options }) => options.rewardTargets ?? {}) as RewardTargets[],
      negativeRewardTargets: each(({ options }) => options.negativeRewardTargets ?? {}) as RewardTargets[],
      ...(first.seed !== null && { seed: each(({ seed }, c) => seed! + (areVariations ? 0 : c)) }),
      ...(areVariations && { variationSeed: each(({ options }, c) => (options.variationSeed as number) + c) }),
      ...(first.options.image !== undefined && { image: group.map(({ options }) => options.image as PictureSource) }),
      ...(first.options.mask !== undefined && { mask: group.map(({ options }) => options.mask as PictureSource) }),
    };
    return { pictures: group, prompts: group.map(({ prompt }) => prompt), options };
  });
}
