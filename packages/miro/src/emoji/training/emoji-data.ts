/** What a recipe says of emoji scenes that are trained on: its `data` section. */
import { z } from "zod";
import { setting } from "../../options.js";
import { emojiSceneOptionsSchema } from "../scenes/scene-options.js";

const count = z.int().positive();

export const emojiDataSchema = z.strictObject({
  samples: setting(count, "distinct scenes; a longer run walks through them again, shuffled anew each time"),
  shardSize: setting(count.default(1024), "scenes in one file of the cache"),
  scenes: setting(emojiSceneOptionsSchema.prefault({}), "what is drawn"),
  cache: setting(z.string(), "folder of the latent cache"),
  workers: setting(count.default(1), "threads that render and encode beside the training"),
  autoencoder: setting(z.string(), "folder of the frozen autoencoder"),
  textEncoder: setting(z.string(), "folder of the frozen text encoder with its tokenizer"),
  maxTextLen: setting(count, "captions longer than so many tokens are cut"),
});

/** The checked section. */
export type EmojiData = z.output<typeof emojiDataSchema>;
