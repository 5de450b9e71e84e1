/** Options of `MiroPipeline.generate`, declared once: the command line takes its help and its errors from here. */
import { Tensor } from "@miro-t2i/torch";
import { z } from "zod";
import type { Progress } from "../flow/samplers.js";
import { SAMPLERS } from "../flow/samplers.js";
import { field } from "../options.js";
import type { GeneratedImage } from "./metadata.js";

const samplerNames = Object.keys(SAMPLERS) as [keyof typeof SAMPLERS];
const rewards = z.record(z.string(), z.number());
const seed = z.int().min(0);
const callback = <F>() => z.custom<F>((value) => typeof value === "function");
const isTensor = z.custom<Tensor>((value) => value instanceof Tensor);

export const generateSchema = z.strictObject({
  rewardTargets: field(
    z.union([rewards, z.array(rewards)]).optional(),
    "finite numbers by reward name, or a list of such, one per picture",
    "what each reward is asked to be, nominally 0 to 1; 1 where not given",
  ),
  negativeRewardTargets: field(
    z.union([rewards, z.array(rewards)]).optional(),
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
  seed: field(
    z.union([seed, z.array(seed)]).default(0),
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
    z.tuple([z.int().min(0), z.int().min(0).nullable()]).optional(),
    "the first and the last guided step, counted from 0 (null: the last of all)",
    "first and last guided step, counted from 0; other steps run unguided",
  ),
  sampler: field(
    z.enum(samplerNames).default("euler"),
    `one of ${samplerNames.join(", ")}`,
    "integration method: heun and midpoint evaluate the network twice a step, euler and ab2 once",
  ),
  shift: field(
    z.number().positive().optional(),
    "a positive number",
    "bend of the schedule: above 1 spends more steps near the data, below 1 near the noise; default: the checkpoint's",
  ),
  promptEmbeddings: field(
    z.array(isTensor).optional(),
    "a list of tensors (tokens, width), one per prompt",
    "text encoder states instead of encoding the prompts",
  ),
  batchSize: field(
    z.int().min(1).max(4096).optional(),
    "an integer of at least 1",
    "pictures computed together; default 1 on a CPU, 8 on CUDA",
  ),
  onStep: field(
    callback<(progress: GenerateProgress) => void>().optional(),
    "a function",
    "called after each step of each batch",
  ),
  onImage: field(
    callback<(image: GeneratedImage, index: number) => void | Promise<void>>().optional(),
    "a function",
    "called with each picture as soon as it is finished",
  ),
  signal: field(
    z.custom<AbortSignal>((value) => value instanceof AbortSignal).optional(),
    "an AbortSignal",
    "stops within one step",
  ),
});

/** Options of `MiroPipeline.generate`. */
export type GenerateOptions = z.input<typeof generateSchema>;

/** The same after checking, with constant defaults filled in. */
export type ResolvedGenerateOptions = z.output<typeof generateSchema>;

/** Where a call is: step of the present batch, and which pictures it makes. */
export interface GenerateProgress extends Progress {
  /** Signal level of the step, 0 noise, 1 data. */
  gamma: number;
  /** Indices of the pictures of the present batch within the call. */
  images: readonly number[];
  /** Number of pictures of the call. */
  imageCount: number;
  /** The state after the step and the model's idea of the finished latents, (b, C, r, r); valid during the callback. */
  x: Tensor;
  denoised: Tensor;
}
