/** What a call of `generate` will do: its options checked against the checkpoint, with everything decided. */
import type { Tensor } from "@miro-t2i/torch";
import { InvalidInputError, invalid } from "../errors.js";
import { type Guidance, guidedSteps } from "../flow/guidance.js";
import { checkSamplerOptions, type SamplerOptionValue } from "../flow/samplers/index.js";
import { dynamicShift, LinearSchedule } from "../flow/schedule.js";
import { about, message } from "../message.js";
import { counted } from "../numbers.js";
import { checkEmbeddings, checkFinite } from "./conditioning.js";
import { type EditPlan, planEdits } from "./edit.js";
import type { ResolvedGenerateOptions } from "./generate-options.js";
import type { EDIT_OPTIONS, RewardTargets } from "./picture-options.js";
import { MAX_PROMPT_LENGTH } from "./settings.js";

/** What a plan needs to know of the pipeline. */
export interface PlanDefaults {
  coherenceKeys: readonly string[];
  latentShape: [number, number, number];
  defaultSteps: number;
  defaultGuidanceScale: number;
  schedule: LinearSchedule;
  /** Pictures computed together when nothing else is said. */
  batchSize: number;
  /** Width of the text encoder's states, and their number where padding is attended (else null). */
  labelDim: number;
  paddedTokens: number | null;
}

/** A call of `generate` with everything decided. */
export interface Plan
  extends Omit<ResolvedGenerateOptions, "noise" | "negativePrompt" | "guidanceScale" | "shift" | EditOption> {
  prompts: string[];
  /** One for each prompt; null for the checkpoint's own empty text, and when nothing is guided. */
  negativePrompts: string[] | null;
  /** Number of pictures. */
  count: number;
  /** Index of a picture's prompt. */
  promptOf: (row: number) => number;
  /** Reward targets of each picture, for the two branches of guidance. */
  wanted: RewardTargets[];
  unwanted: RewardTargets[];
  /** Initial noise of all pictures, or else their seeds. */
  noise: Tensor | null;
  seeds: number[] | null;
  /** What the noise is blended with; null where pictures are not variations. */
  variation: { seeds: number[]; strength: number } | null;
  /** What is drawn over; null: nothing. */
  edit: EditPlan | null;
  steps: number;
  guidanceScale: number;
  /** Of the schedule. */
  shift: number;
  /** The sampler's own options, defaults filled in. */
  samplerOptions: Record<string, SamplerOptionValue>;
  guidance: Guidance;
  /** Which branches the run needs. */
  guided: { any: boolean; all: boolean };
  schedule: LinearSchedule;
  batchSize: number;
  /** What is odd about some of its pictures without being wrong. */
  oddities: (rows: readonly number[]) => string[];
}

/** Options that a plan holds as `edit` and `variation`. */
type EditOption = (typeof EDIT_OPTIONS)[number];

/** How far a variation goes where nothing is said. */
const VARIATION_STRENGTH = 0.2;

/**
 * Checks options against the checkpoint and fills in what they leave open.
 * @param options as `generateSchema` returns them, so that each was checked by itself
 * @throws InvalidInputError naming the option
 */
export async function makePlan(
  prompt: string | readonly string[],
  options: ResolvedGenerateOptions,
  defaults: PlanDefaults,
): Promise<Plan> {
  const {
    noise: givenNoise,
    negativePrompt,
    image,
    mask,
    strength,
    variationSeed,
    variationStrength,
    ...given
  } = options;
  const prompts = texts("prompt", prompt);
  const count = prompts.length * given.imagesPerPrompt;
  const noise = givenNoise ? checkNoise(givenNoise, [count, ...defaults.latentShape]) : null;
  if (given.promptEmbeddings) {
    checkEmbeddings(
      "promptEmbeddings",
      given.promptEmbeddings,
      prompts.length,
      defaults.labelDim,
      defaults.paddedTokens,
    );
  }
  const steps = given.steps ?? defaults.defaultSteps;
  const guidance: Guidance = {
    scale: given.guidanceScale ?? defaults.defaultGuidanceScale,
    type: given.guidanceType,
    start: given.guidanceWindow?.[0] ?? 0,
    end: given.guidanceWindow?.[1] ?? null,
  };
  const guided = guidedSteps(guidance, steps);
  const [, height, width] = defaults.latentShape;
  const wanted = targets("rewardTargets", given.rewardTargets, 1, count, defaults.coherenceKeys);
  const unwanted = targets("negativeRewardTargets", given.negativeRewardTargets, 0, count, defaults.coherenceKeys);
  const shift = given.shift === "dynamic" ? dynamicShift(height, width) : given.shift;
  const schedule = shift === undefined ? defaults.schedule : new LinearSchedule({ ...defaults.schedule, shift });
  return {
    ...given,
    prompts,
    negativePrompts: negatives(negativePrompt, prompts.length, guided.any),
    count,
    promptOf: (row: number) => Math.floor(row / given.imagesPerPrompt),
    wanted,
    unwanted,
    noise,
    seeds: noise ? null : seedsOf("seed", given.seed, count, variationSeed === undefined),
    variation: variationOf(variationSeed, variationStrength, count),
    edit: await planEdits({ image, mask, strength }, prompts.length),
    steps,
    guidanceScale: guidance.scale,
    samplerOptions: checkSamplerOptions(given.sampler, given.samplerOptions),
    guidance,
    guided,
    schedule,
    shift: schedule.shift,
    batchSize: given.batchSize ?? defaults.batchSize,
    oddities: (rows) => [
      ...oddTargets(
        "reward target",
        rows.map((row) => wanted[row]!),
      ),
      ...oddTargets(
        "negative reward target",
        rows.map((row) => unwanted[row]!),
      ),
      ...(guidance.scale > 0 && given.guidanceWindow && !guided.any
        ? [`no step is guided: the guidance window begins at step ${guidance.start}, and there are ${steps}`]
        : []),
    ],
  };
}

/** Targets that no training picture had: what comes of them is anybody's guess. */
function oddTargets(what: string, sets: readonly RewardTargets[]): string[] {
  const odd = sets.flatMap((set) =>
    Object.entries(set).filter(([, target]) => target !== null && (target < 0 || target > 1)),
  );
  return [
    ...new Set(
      odd.map(([key, target]) => `the ${what} ${key} ${target} is outside of 0 to 1, where models are trained`),
    ),
  ];
}

/**
 * The texts that are given, one or several. @throws InvalidInputError for what is no text, or too long for a picture
 */
export function texts(parameter: string, given: string | readonly string[]): string[] {
  if (typeof given !== "string" && !(Array.isArray(given) && given.length > 0)) {
    throw invalid(parameter, "a text or a list of texts", given);
  }
  const list = typeof given === "string" ? [given] : [...given];
  for (const text of list) {
    if (typeof text !== "string") throw invalid(parameter, "a text or a list of texts", text);
    checkLength(parameter, text);
  }
  return list;
}

/** What no picture could store is not drawn. */
function checkLength(parameter: string, text: string): void {
  if (text.length > MAX_PROMPT_LENGTH)
    throw invalid(parameter, `a text of at most ${MAX_PROMPT_LENGTH} characters`, message`one of ${text.length}`);
}

function negatives(given: string | readonly string[] | undefined, prompts: number, needed: boolean): string[] | null {
  if (given === undefined) return null;
  const list = typeof given === "string" ? Array.from({ length: prompts }, () => given) : [...given];
  if (list.length !== prompts) {
    throw invalid(
      "negativePrompt",
      `one text for all prompts or one for each of ${prompts}`,
      message`${counted(list.length, "text")}`,
    );
  }
  for (const text of new Set(list)) checkLength("negativePrompt", text);
  return needed ? list : null;
}

/**
 * The seed of each picture: as listed, or from one number, which is that of all or counts up.
 * @throws InvalidInputError for a seed that is no longer an exact integer, which no picture could store
 */
function seedsOf(parameter: string, seed: number | readonly number[], count: number, countsUp: boolean): number[] {
  if (typeof seed === "number") {
    const largest = Number.MAX_SAFE_INTEGER - (count - 1);
    if (countsUp && seed > largest)
      throw invalid(parameter, `at most ${largest} for ${counted(count, "picture")}`, seed);
    return Array.from({ length: count }, (_, i) => (countsUp ? seed + i : seed));
  }
  if (seed.length !== count)
    throw invalid(
      parameter,
      `one number, or one for each of ${counted(count, "picture")}`,
      message`${seed.length} numbers`,
    );
  return [...seed];
}

function variationOf(
  seed: ResolvedGenerateOptions["variationSeed"],
  strength: number | undefined,
  count: number,
): Plan["variation"] {
  if (seed !== undefined)
    return { seeds: seedsOf("variationSeed", seed, count, true), strength: strength ?? VARIATION_STRENGTH };
  if (strength !== undefined) throw invalid("variationStrength", "a variation seed with it", message`none`);
  return null;
}

function isList(given: RewardTargets | readonly RewardTargets[] | undefined): given is readonly RewardTargets[] {
  return Array.isArray(given);
}

/** One full map of targets for each picture. */
function targets(
  parameter: string,
  given: RewardTargets | readonly RewardTargets[] | undefined,
  fallback: number,
  count: number,
  keys: readonly string[],
): RewardTargets[] {
  const lists = isList(given);
  if (lists && given.length !== count) {
    throw invalid(parameter, `one set for all pictures or one for each of ${count}`, message`${given.length} sets`);
  }
  return Array.from({ length: count }, (_, i) => {
    const own = (lists ? given[i] : given) ?? {};
    const unknown = Object.keys(own).filter((key) => !keys.includes(key));
    if (unknown.length > 0) {
      throw new InvalidInputError(
        message`${about(parameter)}: this checkpoint was not trained on ${unknown.join(", ")}; its rewards are ${keys.join(", ")}`,
      );
    }
    return Object.fromEntries(keys.map((key) => [key, own[key] === undefined ? fallback : own[key]]));
  });
}

function checkNoise(noise: Tensor, shape: number[]): Tensor {
  if (noise.shape.length !== 4 || noise.shape.some((size, i) => size !== shape[i])) {
    throw invalid("noise", `shape (${shape.join(", ")})`, message`(${noise.shape.join(", ")})`);
  }
  checkFinite("noise", noise);
  return noise;
}
