/**
 * The options of `MiroPipeline.generate` that decide a picture, declared once. With those of `generate-options.ts` they
 * are flags, columns of prompt files and axes of sweeps; and every one of them is stored in the picture
 * (`settings.ts`).
 */
import { z } from "zod";
import { isRgb } from "../arguments.js";
import { evaluationsOf, samplerNames, samplerOptionsOfAll } from "../flow/samplers/index.js";
import { declarationOf, defaultOf, field, readOnly, wordsOf } from "../options.js";
import type { RgbImage } from "../pictures/rgb.js";

const rewards = readOnly(z.record(z.string().min(1), z.number().nullable()));
const rewardSets = z.union([rewards, readOnly(z.array(rewards))]).optional();
const seed = z.int().min(0);
const pictureSource = z.union([
  z.string().min(1),
  z.custom<Uint8Array>((value) => value instanceof Uint8Array && value.length > 0),
  z.custom<RgbImage>(isRgb),
]);

/** Targets by reward; null says nothing of a reward. */
export type RewardTargets = z.output<typeof rewards>;

/** What decides a picture, besides its prompt, the noise that was given, and the checkpoint. */
export const pictureOptions = z.strictObject({
  /**
   * What each reward is asked to be, nominally 0 to 1, by its key; 1 where it is not given. Null says nothing of it,
   * as for a training picture without that score. A list has a set for each picture.
   */
  rewardTargets: field(rewardSets, {
    expected: "finite numbers by reward name",
    orList: "one per picture",
    help: "what each reward is asked to be, nominally 0 to 1; none: nothing is said of it",
    flag: "--reward <key=value>",
    otherwise: "1 each",
    perPrompt: true,
  }),
  /** The rewards that guidance leads away from; 0 where not given. A list has a set for each picture. */
  negativeRewardTargets: field(rewardSets, {
    expected: "finite numbers by reward name",
    orList: "one per picture",
    help: "the rewards that guidance leads away from",
    flag: "--negative-reward <key=value>",
    otherwise: "0 each",
    perPrompt: true,
    axis: "negative",
  }),
  /** Sampling steps. Default: the checkpoint's, else 50. */
  steps: field(z.int().min(1).max(100_000).optional(), {
    expected: "an integer of at least 1",
    help: "sampling steps",
    flag: "--steps <n>",
    otherwise: "the checkpoint's, else 50",
    perPrompt: true,
  }),
  /** Guidance scale w of (1 + w)·cond − w·uncond; 0 turns guidance off. Default: the checkpoint's, else 7. */
  guidanceScale: field(z.number().optional(), {
    expected: "a finite number",
    help: "guidance scale w of (1 + w)·cond − w·uncond; 0 turns guidance off",
    flag: "--guidance <w>",
    otherwise: "the checkpoint's, else 7",
    perPrompt: true,
  }),
  /**
   * Text that guidance leads away from, without effect where guidance is off. A list has a text for each prompt.
   */
  negativePrompt: field(z.union([z.string(), readOnly(z.array(z.string()))]).optional(), {
    expected: "a text",
    orList: "one per prompt",
    help: "text that guidance leads away from, instead of the checkpoint's empty one; without effect where guidance is off",
    flag: "--negative-prompt <text>",
    otherwise: "the checkpoint's empty one",
    perPrompt: true,
  }),
  /**
   * Seed of the first picture; the i-th one of a call uses `seed + i`. A list has a seed for each picture. Default: 0.
   */
  seed: field(z.union([seed, readOnly(z.array(seed))]).default(0), {
    expected: "an integer of at least 0",
    orList: "one per picture",
    help: "seed of the first picture; the i-th one of a call uses seed + i",
  }),
  /** `constant`: w at every step. `linear`: 2·w·i/steps at step i. Default: constant. */
  guidanceType: field(z.enum(["constant", "linear"]).default("constant"), {
    expected: "constant or linear",
    help: "constant: w at every step; linear: 2·w·i/steps at step i",
    flag: "--guidance-type <type>",
    perPrompt: true,
  }),
  /** First and last guided step, counted from 0 (null: the last of all); other steps run unguided. */
  guidanceWindow: field(
    readOnly(
      z.tuple([z.int().min(0), z.int().min(0).nullable()]).refine(([first, last]) => last === null || last >= first),
    ).optional(),
    {
      expected: "the first and the last guided step, counted from 0 and in this order (null: the last of all)",
      help: "first and last guided step, counted from 0; other steps run unguided",
      flag: "--guidance-window <first:last>",
      otherwise: "all steps",
      parse: toWindow,
      written: "FIRST:LAST with the first no later than the last, for example 2:10 or 2:",
      perPrompt: true,
    },
  ),
  /**
   * A picture to draw over: a file, the bytes of one (an upload), or 8-bit RGB. Its largest centred square is used. A
   * list has one for each prompt.
   */
  image: field(z.union([pictureSource, readOnly(z.array(pictureSource))]).optional(), {
    expected: "a picture file, its bytes, or { width, height, data } of 8-bit RGB",
    orList: "one per prompt",
    help: "a picture to draw over; its largest centred square is used",
    flag: "--image <file>",
    perPrompt: true,
    axis: null,
  }),
  /** How much of `image` is drawn anew: 0 keeps it, 1 starts from noise alone. Default: 0.75, with a mask 1. */
  strength: field(z.number().min(0).max(1).optional(), {
    expected: "a number from 0 to 1",
    help: "how much of the image is drawn anew: 0 keeps it, 1 starts from noise alone",
    flag: "--strength <s>",
    otherwise: "0.75, with a mask 1",
    perPrompt: true,
  }),
  /**
   * Where `image` is drawn anew: white places are, black ones stay, grey ones are mixed. A picture of the image's size.
   * A list has one for each prompt.
   */
  mask: field(z.union([pictureSource, readOnly(z.array(pictureSource))]).optional(), {
    expected: "a picture file, its bytes, or { width, height, data } of 8-bit RGB",
    orList: "one per prompt",
    help: "a picture of the image's size: white places are drawn anew, black ones stay, grey ones are mixed",
    flag: "--mask <file>",
    perPrompt: true,
    axis: null,
  }),
  /**
   * Varies a picture: its noise is blended with that of this seed. All pictures of a call then have the same `seed`,
   * and the i-th one is varied by `variationSeed + i`. A list has a seed for each picture.
   */
  variationSeed: field(z.union([seed, readOnly(z.array(seed))]).optional(), {
    expected: "an integer of at least 0",
    orList: "one per picture",
    help: "vary one picture: its noise is blended with that of this seed; all pictures then have the same seed, and the i-th is varied by this one + i",
    flag: "--variation-seed <n>",
    perPrompt: true,
  }),
  /** How far a variation goes: 0 is the picture of `seed`, 1 that of `variationSeed`. Default: 0.2. */
  variationStrength: field(z.number().min(0).max(1).optional(), {
    expected: "a number from 0 to 1",
    help: "how far a variation goes: 0 is the picture of the seed, 1 that of the variation seed",
    flag: "--variation-strength <s>",
    otherwise: "0.2",
    perPrompt: true,
  }),
  /** Name of the sampler. Default: euler. */
  sampler: field(
    z
      .string()
      .refine((name) => samplerNames().includes(name))
      .default("euler"),
    {
      expected: () => `one of ${samplerNames().join(", ")}`,
      help: () => `sampler, with its evaluations of the network a step: ${samplerCosts()}`,
      flag: "--sampler <name>",
      values: samplerNames,
      perPrompt: true,
    },
  ),
  /** Options that the sampler has of its own, such as `{ eta: 0.5 }`; those not given have their defaults. */
  samplerOptions: field(readOnly(z.record(z.string(), z.union([z.number(), z.string(), z.boolean()]))).optional(), {
    expected: "options of the sampler, such as { eta: 0.5 }",
    help: "options that the sampler has of its own; those not given have their defaults",
    perPrompt: true,
    members: samplerMembers,
  }),
  /**
   * Shift of the schedule: above 1 spends more steps near the data, below 1 near the noise; `dynamic`: by the size of
   * the picture, as FLUX.1 does. Default: the checkpoint's.
   */
  shift: field(z.union([z.number().positive(), z.literal("dynamic")]).optional(), {
    expected: "a positive number, or dynamic",
    help: "shift of the schedule: above 1 spends more steps near the data, below 1 near the noise; dynamic: by the size of the picture, as FLUX.1 does",
    flag: "--shift <s>",
    otherwise: "the checkpoint's",
    perPrompt: true,
  }),
  /**
   * Compute and decode every picture as if by itself, so that its bytes depend neither on the others of the call nor on
   * its place among them; the default on a CPU already does. With `batchSize`, a CPU computes those together that are
   * found to be the same, bit for bit, as alone; elsewhere `batchSize` then has no effect.
   */
  deterministic: field(z.boolean().default(false), {
    expected: "true or false",
    help: "compute and decode every picture as if by itself, so that its bytes depend neither on the others of the call nor on its place among them; the default on a CPU already does (batch size 1). With a batch size, a CPU computes those together that are found to be the same, bit for bit, as alone; on a GPU the batch size then has no effect",
    flag: "--deterministic",
  }),
});

/** Options of what pictures are drawn over, or vary. */
export const EDIT_OPTIONS = ["image", "mask", "strength", "variationSeed", "variationStrength"] as const;

function samplerCosts(): string {
  return samplerNames()
    .map((name) => `${name} ${Math.round(evaluationsOf(name, 1000) / 1000)}`)
    .join(", ");
}

/** `2:10`, `2:` or `:10`. */
function toWindow(text: string): [number, number | null] | undefined {
  const match = /^(\d*):(\d*)$/.exec(text.trim());
  if (!match) return undefined;
  const [first, last] = [match[1] === "" ? 0 : Number(match[1]), match[2] === "" ? null : Number(match[2])];
  return last !== null && last < first ? undefined : [first, last];
}

/**
 * The options that samplers have of their own. Which of them may be given, and with which value, the sampler decides.
 */
function samplerMembers(): Record<string, z.ZodType> {
  return Object.fromEntries(
    samplerOptionsOfAll().map(({ key, schema, samplers }) => {
      const { help, expected } = declarationOf(schema);
      const value = z.union([z.number(), z.boolean(), z.string()]).optional();
      const of = `of ${samplers.join(", ")}: ${wordsOf(help)}`;
      return [key, field(value, { expected, help: of, otherwise: String(defaultOf(schema)) })];
    }),
  );
}
