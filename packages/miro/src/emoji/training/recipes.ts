/** The recipes of the bundled model's parts. */
import { z } from "zod";
import { taskRecipeSchema } from "../../training/loop/tasks.js";
import { CLASSIFIER_SIZE, emojiSceneOptionsSchema } from "../scenes/scene-options.js";

const size = z.int().positive();

export const autoencoderRecipeSchema = taskRecipeSchema("autoencoder", {
  scenes: emojiSceneOptionsSchema.prefault({}),
  /** Constructor options of PatchAutoencoder. */
  network: z.record(z.string(), z.unknown()).default({}),
  /**
   * Folder of an exported autoencoder to start from; its encoder is kept as it is, so that latents made with it stay
   * valid.
   */
  refineDecoderOf: z.string().optional(),
  loss: z
    .strictObject({
      /** Largest standard deviation of the noise on latents. */
      noise: z.number().min(0).default(0.1),
      latentPenalty: z.number().min(0).default(0.003),
    })
    .prefault({}),
});

export type AutoencoderRecipe = z.output<typeof autoencoderRecipeSchema>;

export const textEncoderRecipeSchema = taskRecipeSchema("text-encoder", {
  scenes: emojiSceneOptionsSchema.prefault({ size: 64 }),
  tokenizer: z.strictObject({ vocabSize: size.default(2048), captions: size.default(30_000) }).prefault({}),
  network: z
    .strictObject({
      dModel: size.default(128),
      dKv: size.default(32),
      numHeads: size.default(4),
      dFf: size.default(256),
      numLayers: size.default(2),
    })
    .prefault({}),
  /** Width of the common space of pictures and captions. */
  sharedDim: size.default(128),
  maxTextLen: size.default(32),
  /**
   * Prediction of what the named things look like, see appearance.ts: its weight in the loss, and how many captions
   * without pictures each step reads for it besides those of the pictures.
   */
  appearance: z
    .strictObject({ weight: z.number().positive().default(10), captions: z.int().nonnegative().default(192) })
    .prefault({}),
});

export type TextEncoderRecipe = z.output<typeof textEncoderRecipeSchema>;

export const clipRecipeSchema = taskRecipeSchema("clip", {
  scenes: emojiSceneOptionsSchema.prefault({ size: 64 }),
  /** Folder of the frozen text encoder. */
  textEncoder: z.string(),
  network: z
    .strictObject({
      towerWidths: z.array(size.multipleOf(8)).length(4).default([32, 64, 128, 128]),
      textHeads: size.default(4),
      textHidden: size.default(64),
      sharedDim: size.default(128),
    })
    .prefault({}),
  maxTextLen: size.default(32),
  /** Largest standard deviation of pixel noise. */
  noise: z.number().min(0).default(0.1),
  /** Scenes that the figures are taken over. */
  evaluatedScenes: z.int().min(2).default(512),
});

export type ClipRecipe = z.output<typeof clipRecipeSchema>;

export const classifierRecipeSchema = taskRecipeSchema("classifier", {
  scenes: emojiSceneOptionsSchema.prefault({ size: CLASSIFIER_SIZE, kinds: { one: 0.8, small: 0.2 }, tint: 0 }),
  /**
   * Largest standard deviation of pixel noise, for a tolerance of what generated pictures have and renders have not.
   */
  noise: z.number().min(0).default(0.1),
  labelSmoothing: z.number().min(0).lt(1).default(0.05),
});

export type ClassifierRecipe = z.output<typeof classifierRecipeSchema>;
