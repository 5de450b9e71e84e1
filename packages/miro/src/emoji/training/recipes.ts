/** The recipes of the bundled model's parts. */
import { z } from "zod";
import { setting } from "../../options.js";
import { taskRecipeSchema } from "../../training/loop/tasks.js";
import { CLASSIFIER_SIZE, emojiSceneOptionsSchema } from "../scenes/scene-options.js";

const size = z.int().positive();
const scenes = "scenes to draw";
const noise = setting(
  z.number().min(0).default(0.1),
  "largest standard deviation of pixel noise, for a tolerance of what generated pictures have and renders have not",
);

export const autoencoderRecipeSchema = taskRecipeSchema("autoencoder", {
  scenes: setting(emojiSceneOptionsSchema.prefault({}), scenes),
  network: setting(z.record(z.string(), z.unknown()).default({}), "sizes of the PatchAutoencoder"),
  refineDecoderOf: setting(
    z.string().optional(),
    "folder of an exported autoencoder to start from; its encoder is kept as it is, so that latents made with it stay valid; of network only decoder_blocks is read: more blocks than it has begin as what changes nothing",
  ),
  loss: setting(
    z
      .strictObject({
        noise: setting(z.number().min(0).default(0.1), "largest standard deviation of the noise on latents"),
        latentPenalty: setting(z.number().min(0).default(0.003), "weight of the latents' mean square"),
        crop: setting(
          size.optional(),
          "a step decodes a square of so many latents a side, at a random place; the whole picture where it is not set",
        ),
        redrawn: setting(
          z
            .strictObject({
              model: setting(z.string(), "release folder or run of a diffusion network that knows these latents"),
              share: setting(z.number().gt(0).max(1).default(0.75), "share of each batch that the network redraws"),
              maxGamma: setting(
                z.number().gt(0).lt(1).default(0.5),
                "largest signal level that it begins at; 0 is noise alone",
              ),
              steps: setting(size.default(6), "its sampling steps"),
            })
            .optional(),
          "latents with the error of a diffusion network, from which the decoder is to give the true picture",
        ),
      })
      .prefault({}),
    "what is learnt besides the picture",
  ),
});

export type AutoencoderRecipe = z.output<typeof autoencoderRecipeSchema>;

export const textEncoderRecipeSchema = taskRecipeSchema("text-encoder", {
  scenes: setting(emojiSceneOptionsSchema.prefault({ size: 64 }), scenes),
  tokenizer: setting(
    z
      .strictObject({
        vocabSize: setting(size.default(2048), "tokens"),
        captions: setting(size.default(30_000), "captions that it is trained on"),
      })
      .prefault({}),
    "the Unigram tokenizer, which is trained first",
  ),
  network: setting(
    z
      .strictObject({
        dModel: setting(size.default(128), "width of the text states"),
        dKv: setting(size.default(32), "width of a head"),
        numHeads: setting(size.default(4), "heads"),
        dFf: setting(size.default(256), "width of the feed-forward layers"),
        numLayers: setting(size.default(2), "layers"),
      })
      .prefault({}),
    "sizes of the T5 encoder",
  ),
  sharedDim: setting(size.default(128), "width of the common space of pictures and captions"),
  maxTextLen: setting(size.default(32), "captions longer than so many tokens are cut"),
  appearance: setting(
    z
      .strictObject({
        weight: setting(z.number().positive().default(10), "its weight in the loss"),
        captions: setting(
          z.int().nonnegative().default(192),
          "captions without pictures that each step reads for it besides those of the pictures",
        ),
      })
      .prefault({}),
    "prediction of what the named things look like",
  ),
});

export type TextEncoderRecipe = z.output<typeof textEncoderRecipeSchema>;

export const clipRecipeSchema = taskRecipeSchema("clip", {
  scenes: setting(emojiSceneOptionsSchema.prefault({ size: 64 }), scenes),
  textEncoder: setting(z.string(), "folder of the frozen text encoder"),
  network: setting(
    z
      .strictObject({
        towerWidths: setting(
          z.array(size.multipleOf(8)).length(4).default([32, 64, 128, 128]),
          "channels of the picture tower's four stages, multiples of 8",
        ),
        textHeads: setting(size.default(4), "heads that pool the text states"),
        textHidden: setting(size.default(64), "width of the pooling"),
        sharedDim: setting(size.default(128), "width of the common space of pictures and captions"),
      })
      .prefault({}),
    "sizes of the CLIP",
  ),
  maxTextLen: setting(size.default(32), "captions longer than so many tokens are cut"),
  noise,
  evaluatedScenes: setting(z.int().min(2).default(512), "scenes that the figures are taken over"),
});

export type ClipRecipe = z.output<typeof clipRecipeSchema>;

export const classifierRecipeSchema = taskRecipeSchema("classifier", {
  scenes: setting(
    emojiSceneOptionsSchema.prefault({ size: CLASSIFIER_SIZE, kinds: { one: 0.8, small: 0.2 }, tint: 0 }),
    scenes,
  ),
  noise,
  labelSmoothing: setting(z.number().min(0).lt(1).default(0.05), "probability that is spread over all names"),
});

export type ClassifierRecipe = z.output<typeof classifierRecipeSchema>;
