/** Options of `MiroPipeline.generate`, declared once: the command line takes its help and its errors from here. */
import { Tensor } from "@miro-t2i/torch";
import { z } from "zod";
import { evaluationsOf, samplerNames } from "../flow/samplers/index.js";
import type { Progress } from "../flow/sampling.js";
import { abortSignal, callback, field } from "../options.js";
import type { RgbImage } from "../pictures/rgb.js";
import type { GeneratedImage } from "./generated-image.js";

const rewards = z.record(z.string(), z.number()).readonly();
const seed = z.int().min(0);
const isTensor = z.custom<Tensor>((value) => value instanceof Tensor);
const statesSchema = z.object({
  embeddings: isTensor,
  length: z.int().optional(),
  mask: isTensor.optional(),
});

export const generateSchema = z.strictObject({
  rewardTargets: field(
    z.union([rewards, z.array(rewards).readonly()]).optional(),
    "finite numbers by reward name, or a list of such, one per picture",
    "what each reward is asked to be, nominally 0 to 1; 1 where not given",
  ),
  negativeRewardTargets: field(
    z.union([rewards, z.array(rewards).readonly()]).optional(),
    "finite numbers by reward name, or a list of such, one per picture",
    "the rewards that guidance leads away from; 0 where not given",
  ),
  steps: field(
    z.int().min(1).max(100_000).optional(),
    "an integer of at least 1",
    "sampling steps; default: the checkpoint's, else 50",
  ),
  guidanceScale: field(
    z.number().optional(),
    "a finite number",
    "guidance scale w of (1 + w)·cond − w·uncond; 0 turns guidance off; default: the checkpoint's, else 7",
  ),
  imagesPerPrompt: field(z.int().min(1).max(100_000).default(1), "an integer of at least 1", "pictures per prompt"),
  negativePrompt: field(
    z.union([z.string(), z.array(z.string()).readonly()]).optional(),
    "a text, or a list of texts, one per prompt",
    "text that guidance leads away from, instead of the checkpoint's empty one; without effect where guidance is off",
  ),
  seed: field(
    z.union([seed, z.array(seed).readonly()]).default(0),
    "an integer of at least 0, or a list of such, one per picture",
    "seed of the first picture; the i-th one of a call uses seed + i",
  ),
  noise: field(isTensor.optional(), "a tensor (pictures, channels, r, r)", "initial noise instead of seeds"),
  guidanceType: field(
    z.enum(["constant", "linear"]).default("constant"),
    "constant or linear",
    "constant: w at every step; linear: 2·w·i/steps at step i",
  ),
  guidanceWindow: field(
    z
      .tuple([z.int().min(0), z.int().min(0).nullable()])
      .readonly()
      .optional(),
    "the first and the last guided step, counted from 0 (null: the last of all)",
    "first and last guided step, counted from 0; other steps run unguided",
  ),
  sampler: field(
    z
      .string()
      .refine((name) => samplerNames().includes(name))
      .default("euler"),
    () => `one of ${samplerNames().join(", ")}`,
    () =>
      `sampler, with its evaluations of the network a step: ${samplerNames()
        .map((name) => `${name} ${Math.round(evaluationsOf(name, 1000) / 1000)}`)
        .join(", ")}`,
  ),
  samplerOptions: field(
    z
      .record(z.string(), z.union([z.number(), z.string(), z.boolean()]))
      .readonly()
      .optional(),
    "options of the sampler, such as { eta: 0.5 }",
    "options that the sampler has of its own; those not given have their defaults",
  ),
  shift: field(
    z.union([z.number().positive(), z.literal("dynamic")]).optional(),
    "a positive number, or dynamic",
    "bend of the schedule: above 1 spends more steps near the data, below 1 near the noise; dynamic: by the size of the picture, as FLUX.1 does; default: the checkpoint's",
  ),
  promptEmbeddings: field(
    z
      .array(z.union([isTensor, statesSchema]))
      .readonly()
      .optional(),
    "a list of tensors (tokens, width), one per prompt, or of { embeddings, length or mask }",
    "text encoder states instead of encoding the prompts; with length or mask where some are of padding",
  ),
  batchSize: field(
    z.int().min(1).max(4096).optional(),
    "an integer of at least 1",
    "pictures computed together; default 1 on a CPU, 32 on CUDA, fewer where those do not fit in memory",
  ),
  deterministic: field(
    z.boolean().default(false),
    "true or false",
    "compute and decode every picture by itself, so that its bytes depend neither on the others of the call nor on its place among them; the default on a CPU already does (batch size 1), and batchSize then has no effect",
  ),
  keepLatents: field(z.boolean().default(false), "true or false", "return the latents too, which the caller then owns"),
  onStep: callback<(progress: GenerateProgress) => void | Promise<void>>(
    "called after each step of each batch, and waited for",
  ),
  previewEvery: field(
    z.int().min(1).optional(),
    "an integer of at least 1",
    "give onStep pictures of what is being drawn at every n-th step",
  ),
  preview: field(
    z.enum(["linear", "decoder"]).default("linear"),
    "linear or decoder",
    "linear: one pixel for each latent, almost free; decoder: the picture itself, for the price of decoding it",
  ),
  onImage: callback<(image: GeneratedImage, index: number) => void | Promise<void>>(
    "called with each picture as soon as it is finished",
  ),
  onWarning: callback<(warning: string) => void>(
    "called with each warning, such as that of a prompt that was cut, as soon as it is known",
  ),
  signal: abortSignal("stops within one step"),
});

/** Options of `MiroPipeline.generate`. */
export type GenerateOptions = z.input<typeof generateSchema>;

/** The same after checking, with constant defaults filled in. */
export type ResolvedGenerateOptions = z.output<typeof generateSchema>;

/** Where a call is: step of the present batch, and which pictures it makes. */
export interface GenerateProgress extends Progress {
  /** Signal level of the step, 0 noise, 1 data. */
  gamma: number;
  /** Index of the first picture of the present batch within the call. */
  image: number;
  /** Indices of all pictures of the batch. */
  images: readonly number[];
  /** Number of pictures of the call. */
  imageCount: number;
  /** The state after the step and the model's idea of the finished latents, (b, C, r, r); valid during the callback. */
  x: Tensor;
  denoised: Tensor;
  /** `denoised` as pictures, one for each of `images`, at the steps that `previewEvery` chooses. */
  previews?: RgbImage[];
}
