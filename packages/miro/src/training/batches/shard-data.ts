/** What a recipe says of enriched shards: its `data` section. */
import { isAbsolute, join } from "node:path";
import { z } from "zod";
import { LATENT_DTYPES } from "../../data/dataset/latents.js";
import { trainingSetOptionsSchema } from "../../data/dataset/training-set-options.js";
import { setting } from "../../options.js";

const count = z.int().positive();

export const shardDataSchema = z.strictObject({
  dir: setting(
    z.string().min(1).optional(),
    "folder that relative roots lie in; by default the working directory",
    "data_dir",
  ),
  ...trainingSetOptionsSchema.shape,
  scoreColumns: setting(
    z.array(z.string().min(1)).optional(),
    "fields of the samples' JSON that hold the rewards, in the order of network.coherence_keys; by default the fields of the same names. For rewards that something else measured than their name says",
  ),
  vaeSample: setting(
    z.boolean().default(true),
    "draw latents as mean + std·noise; false trains on the mean",
    "model.data_preprocessing.vae_sample",
  ),
  latentDtype: setting(
    z.enum(LATENT_DTYPES).default("float32"),
    "stored rounds every step of the draw to the dtype of the files, as the published code does",
  ),
  latentNormalization: setting(
    z.enum(["sdxl", "sdxl_plain", "data"]).default("sdxl"),
    "how latents become x: with the statistics of the SDXL autoencoder (sdxl: by channel, what every published model uses; sdxl_plain: one factor), or with those of the first samples of the shards (data), for any other autoencoder",
    "model.channel_wise_normalisation",
  ),
  maxTextLen: setting(count.default(256), "texts longer than so many tokens are cut"),
  textPadding: setting(
    z.enum(["longest", "fixed"]).default("longest"),
    "longest: pad each batch to its longest text; fixed: always to max_text_len, as the published code does",
  ),
  prefetchFactor: setting(
    z.int().positive().max(256).default(4),
    "batches that are read ahead",
    "computer.prefetch_factor",
  ),
  uncondEmbedding: setting(
    z.string().min(1).optional(),
    "text states of the empty prompt, an .npy file (tokens, label_dim), (1, tokens, label_dim) or (label_dim); by default the text encoder's, where one is named",
  ),
  textEncoder: setting(
    z.string().min(1).nullable().optional(),
    "the frozen text encoder with its tokenizer, for sample sheets and the release: a folder, or a repository of the Hugging Face Hub; null for none",
  ),
  autoencoder: setting(
    z.string().min(1).nullable().optional(),
    "the frozen autoencoder, for sample sheets and the release: a folder, or a repository; null for none",
  ),
  imgResolution: setting(
    count.optional(),
    "side of the pictures in pixels, as the release states it; by default 8 for each latent",
    "data.img_resolution",
  ),
});

/** The checked section. */
export type ShardData = z.output<typeof shardDataSchema>;

/** The folders, files or indexes of the shards, those in `dir` with their whole path. */
export function rootsOf({ dir, root }: Pick<ShardData, "dir" | "root">): string[] {
  return [root].flat().map((path) => (dir === undefined || isAbsolute(path) ? path : join(dir, path)));
}

/** The metadata field of each of the network's rewards. */
export function scoreColumnsOf({ scoreColumns }: ShardData, coherenceKeys: readonly string[]): readonly string[] {
  return scoreColumns ?? coherenceKeys;
}

/** The metadata fields that are read and may be filtered by: those that the section names, else the rewards'. */
export function scoresOf(data: ShardData, coherenceKeys: readonly string[]): readonly string[] {
  return data.coherenceScores ?? scoreColumnsOf(data, coherenceKeys);
}

/** Those of the scores that a sample needs for its synthetic caption too, lest it keep its original one. */
export function pairedScores(
  { syntheticEmbeddingProb, scoreMode }: Pick<ShardData, "syntheticEmbeddingProb" | "scoreMode">,
  scores: readonly string[],
): readonly string[] {
  return syntheticEmbeddingProb > 0 && scoreMode === "paired" ? scores : [];
}

/** What comes of scores that no synthetic caption has. */
export function withoutPairs(scores: readonly string[]): string {
  return `so that those with ${scores.join(", ")} keep their original captions`;
}

/** How the shards in `root` are read for validation: all of their samples, with their own captions, in their order. */
export function validationData(data: ShardData, root: string | string[]): ShardData {
  const { uncondEmbedding: _u, textEncoder: _t, autoencoder: _a, weights: _w, ...read } = data;
  return {
    ...read,
    root,
    syntheticEmbeddingProb: 0,
    binCoherence: false,
    sampler: "sequential",
    minImageSize: 0,
    clipFilterThreshold: 0,
    aestheticThreshold: 0,
  };
}
