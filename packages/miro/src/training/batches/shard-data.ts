/** What a recipe says of enriched shards: its `data` section. */
import { z } from "zod";
import { LATENT_DTYPES } from "../../data/dataset/latents.js";
import { trainingSetOptionsSchema } from "../../data/dataset/training-set-options.js";

const count = z.int().positive();

export const shardDataSchema = z.strictObject({
  /** Folder that relative roots lie in; by default the working directory. */
  dir: z.string().min(1).optional(),
  ...trainingSetOptionsSchema.shape,
  /**
   * The metadata fields that hold the rewards, in the order of network.coherence_keys; by default the fields of the
   * same names. For rewards that something else measured than their name says.
   */
  scoreColumns: z.array(z.string().min(1)).optional(),
  /** Draw latents as mean + std·noise; false trains on the mean. */
  vaeSample: z.boolean().default(true),
  /** `stored` rounds every step of the draw to the dtype of the files, as the published code does. */
  latentDtype: z.enum(LATENT_DTYPES).default("float32"),
  /**
   * How latents become x: with the statistics of the SDXL autoencoder (`sdxl`: by channel, what every published model
   * uses; `sdxl_plain`: one factor), or with those of the first samples of the shards (`data`), for any other
   * autoencoder.
   */
  latentNormalization: z.enum(["sdxl", "sdxl_plain", "data"]).default("sdxl"),
  /** Texts longer than this are cut. */
  maxTextLen: count.default(256),
  /** `longest`: pad each batch to its longest text; `fixed`: always to max_text_len, as the published code does. */
  textPadding: z.enum(["longest", "fixed"]).default("longest"),
  /** Batches that are read ahead. */
  prefetchFactor: z.int().positive().max(256).default(4),
  /**
   * Text states of the empty prompt, an .npy file (tokens, label_dim) or (1, tokens, label_dim); the text encoder's
   * where one is named.
   */
  uncondEmbedding: z.string().min(1).optional(),
  /**
   * The frozen text encoder with its tokenizer, for sample sheets and the release: a folder, or a repository of the
   * Hugging Face Hub; null for none.
   */
  textEncoder: z.string().min(1).nullable().optional(),
  /** The frozen autoencoder, for sample sheets and the release: a folder, or a repository; null for none. */
  autoencoder: z.string().min(1).nullable().optional(),
  /** Side of the pictures in pixels, as the release states it; by default 8 for each latent. */
  imgResolution: count.optional(),
});

/** The checked section. */
export type ShardData = z.output<typeof shardDataSchema>;

/** The metadata field of each of the network's rewards. */
export function scoreColumnsOf({ scoreColumns }: ShardData, coherenceKeys: readonly string[]): readonly string[] {
  return scoreColumns ?? coherenceKeys;
}
