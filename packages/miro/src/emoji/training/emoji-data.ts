/** What a recipe says of emoji scenes that are trained on: its `data` section. */
import { z } from "zod";
import { emojiSceneOptionsSchema } from "../scenes/scene-options.js";

const count = z.int().positive();

export const emojiDataSchema = z.strictObject({
  /** Distinct scenes; a longer run walks through them again, shuffled anew each time. */
  samples: count,
  /** Scenes in one file of the cache. */
  shardSize: count.default(1024),
  /** Scenes to draw: vocabulary, side in pixels, layouts, backgrounds, degradations, seed. */
  scenes: emojiSceneOptionsSchema.prefault({}),
  /** Folder of the latent cache. */
  cache: z.string(),
  /** Threads that render and encode beside the training. */
  workers: count.default(1),
  /** Folder of the frozen autoencoder. */
  autoencoder: z.string(),
  /** Folder of the frozen text encoder with its tokenizer. */
  textEncoder: z.string(),
  /** Captions longer than this are cut. */
  maxTextLen: count,
});

/** The checked section. */
export type EmojiData = z.output<typeof emojiDataSchema>;
