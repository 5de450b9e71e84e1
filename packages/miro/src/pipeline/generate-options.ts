/**
 * Options of `MiroPipeline.generate`: those that decide a picture, of `picture-options.ts`, and how the call is made.
 */
import { Tensor } from "@miro-t2i/torch";
import { z } from "zod";
import type { Progress } from "../flow/sampling.js";
import { abortSignal, callback, field, type OptionsOf, readOnly } from "../options.js";
import type { RgbImage } from "../pictures/rgb.js";
import type { GeneratedImage } from "./generated-image.js";
import { pictureOptions } from "./picture-options.js";

const isTensor = z.custom<Tensor>((value) => value instanceof Tensor);
const statesSchema = z.object({
  embeddings: isTensor,
  length: z.int().optional(),
  mask: isTensor.optional(),
});

export const generateSchema = z.strictObject({
  /** Pictures of each prompt. Default: 1. */
  imagesPerPrompt: field(z.int().min(1).max(100_000).default(1), {
    expected: "an integer of at least 1",
    help: "pictures per prompt",
    flag: "--images <n>",
    perPrompt: true,
    axis: null,
  }),
  ...pictureOptions.shape,
  /** Initial noise instead of seeds: (pictures, C, r, r) float32. */
  noise: field(isTensor.optional(), {
    expected: "a tensor (pictures, channels, r, r)",
    help: "initial noise instead of seeds",
  }),
  /**
   * Text encoder states instead of encoding the prompts: (tokens, width) for each prompt, with `length` or `mask` where
   * some tokens are padding.
   */
  promptEmbeddings: field(readOnly(z.array(z.union([isTensor, statesSchema]))).optional(), {
    expected: "a list of tensors (tokens, width), one per prompt, or of { embeddings, length or mask }",
    help: "text encoder states instead of encoding the prompts; with length or mask where some are of padding",
  }),
  /** Pictures computed together. Default: 1 on a CPU, 32 on CUDA, fewer where those do not fit in memory. */
  batchSize: field(z.int().min(1).max(4096).optional(), {
    expected: "an integer of at least 1",
    help: "pictures computed together",
    flag: "--batch-size <n>",
    otherwise: "1 on a CPU, 32 on CUDA, fewer where those do not fit in memory",
  }),
  /** Return the latents too, which the caller then owns. */
  keepLatents: field(z.boolean().default(false), {
    expected: "true or false",
    help: "return the latents too, which the caller then owns",
  }),
  /** Called after each step of each batch, and waited for. */
  onStep: callback<(progress: GenerateProgress) => void | Promise<void>>(
    "called after each step of each batch, and waited for",
  ),
  /** Give `onStep` pictures of what is being drawn at every n-th step. */
  previewEvery: field(z.int().min(1).optional(), {
    expected: "an integer of at least 1",
    help: "give onStep pictures of what is being drawn at every n-th step",
  }),
  /**
   * `linear`: one pixel for each latent, almost free. `decoder`: the picture itself, for the price of decoding it.
   * Default: linear.
   */
  preview: field(z.enum(["linear", "decoder"]).default("linear"), {
    expected: "linear or decoder",
    help: "linear: one pixel for each latent, almost free; decoder: the picture itself, for the price of decoding it",
  }),
  /** Called with each picture as soon as it is finished. */
  onImage: callback<(image: GeneratedImage, index: number) => void | Promise<void>>(
    "called with each picture as soon as it is finished",
  ),
  /** Called with each warning, such as that of a prompt that was cut, as soon as it is known. */
  onWarning: callback<(warning: string) => void>(
    "called with each warning, such as that of a prompt that was cut, as soon as it is known",
  ),
  /** Stops within one step. */
  signal: abortSignal("stops within one step"),
});

/** Options of `MiroPipeline.generate`. */
export type GenerateOptions = OptionsOf<typeof generateSchema>;

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
  /** The model's idea of the finished latents, (b, C, r, r); valid during the callback. */
  denoised: Tensor;
  /** `denoised` as pictures, one for each of `images`, at the steps that `previewEvery` chooses. */
  previews?: RgbImage[];
}
