/** Options of a data set of shards, declared once for recipes, the API and the command line. */
import { z } from "zod";
import { field } from "../../options.js";
import { BIN_STRATEGIES } from "./bins.js";
import { SCORE_MODES } from "./caption-source.js";
import { filterOptionsSchema } from "./filters.js";

const probability = z.number().min(0).max(1);
const path = z.string().min(1);

/** Options of {@link TrainingSet.open}; names are the published ones where those exist. */
export const trainingSetOptionsSchema = z.strictObject({
  /** Folders of shards, tar files or index files; their samples follow one another. */
  root: field(z.union([path, z.array(path).min(1)]), {
    expected: "a path or a list of paths",
    help: "folders of shards, tar files or index files; their samples follow one another",
  }),
  /** Text states: the members NAME_embeddings.npy. Default: flan_t5_xl. */
  textEmbeddingName: field(z.string().min(1).default("flan_t5_xl"), {
    expected: "a name",
    help: "text states: the members NAME_embeddings.npy",
  }),
  /** Member of the latents' mean. Default: vae_embeddings_mean_256. */
  vaeEmbeddingNameMean: field(z.string().min(1).default("vae_embeddings_mean_256"), {
    expected: "a name",
    help: "member of the latents' mean",
  }),
  /** Member of the latents' standard deviation; null trains on the mean. Default: vae_embeddings_std_256. */
  vaeEmbeddingNameStd: field(z.string().min(1).nullable().default("vae_embeddings_std_256"), {
    expected: "a name or null",
    help: "member of the latents' standard deviation; null trains on the mean",
  }),
  ...filterOptionsSchema.shape,
  /** Leave out samples without a picture or a .txt member, as the published code does. */
  requirePictureAndCaption: field(z.boolean().default(false), {
    expected: "true or false",
    help: "leave out samples without a picture or a .txt member, as the published code does",
  }),
  /** Metadata fields of the rewards; by default those of the network. */
  coherenceScores: field(z.array(z.string().min(1)).optional(), {
    expected: "a list of names",
    help: "metadata fields of the rewards; by default those of the network",
  }),
  /** How often a sample's synthetic caption is trained with. Default: 0. */
  syntheticEmbeddingProb: field(probability.default(0), {
    expected: "a probability from 0 to 1",
    help: "how often a sample's synthetic caption is trained with",
  }),
  /**
   * Scores that go with a synthetic caption: its own (paired), or those of the original caption as in the published
   * code (original). Default: paired.
   */
  scoreMode: field(z.enum(SCORE_MODES).default("paired"), {
    expected: `one of ${SCORE_MODES.join(", ")}`,
    help: "scores that go with a synthetic caption: its own (paired), or those of the original caption as in the published code (original)",
  }),
  /** Rewards as levels of bins; false: as they are. Default: true. */
  binCoherence: field(z.boolean().default(true), {
    expected: "true or false",
    help: "rewards as levels of bins; false: as they are",
  }),
  /** Bins of each reward. Default: 64. */
  numBins: field(z.int().min(2).max(65_536).default(64), {
    expected: "an integer from 2 to 65536",
    help: "bins of each reward",
  }),
  /** Where the edges lie. Default: quantile. */
  binStrategy: field(z.enum(BIN_STRATEGIES).default("quantile"), {
    expected: `one of ${BIN_STRATEGIES.join(", ")}`,
    help: "where the edges lie",
  }),
  /** With refined_quantile: how many of the last bins are divided. Default: 0. */
  refineLastNBins: field(z.int().nonnegative().default(0), {
    expected: "a non-negative integer",
    help: "with refined_quantile: how many of the last bins are divided",
  }),
  /** With refined_quantile: into how many parts each of them. Default: 1. */
  refineFactor: field(z.int().positive().default(1), {
    expected: "a positive integer",
    help: "with refined_quantile: into how many parts each of them",
  }),
  /** Bin edges from distinct values, as the published code computes them. */
  distinct: field(z.boolean().default(false), {
    expected: "true or false",
    help: "bin edges from distinct values, as the published code computes them",
  }),
  /** Levels as the published code computes them: not clamped to 1, divided by the number of bins asked for. */
  upstreamLevels: field(z.boolean().default(false), {
    expected: "true or false",
    help: "levels as the published code computes them: not clamped to 1, divided by the number of bins asked for",
  }),
  /** Samples that bin edges are computed from. Default: 100,000. */
  maxSamplesBinEstimation: field(z.int().positive().default(100_000), {
    expected: "a positive integer",
    help: "samples that bin edges are computed from",
  }),
  /** Chooses those samples where there are more. Default: 42. */
  binSeed: field(z.int().nonnegative().default(42), {
    expected: "a non-negative integer",
    help: "chooses those samples where there are more",
  }),
  /** Order of an epoch: shuffled as a whole, in chunks, or shard by shard; or as stored. Default: shuffled. */
  sampler: field(z.enum(["shuffled", "chunked", "shard_exclusive", "sequential"]).default("shuffled"), {
    expected: "one of shuffled, chunked, shard_exclusive, sequential",
    help: "order of an epoch: shuffled as a whole, in chunks, or shard by shard; or as stored",
  }),
  /** Chooses the order; by default the recipe's seed. */
  samplerSeed: field(z.int().nonnegative().optional(), {
    expected: "a non-negative integer",
    help: "chooses the order; by default the recipe's seed",
  }),
  /** With chunked: consecutive samples that are shuffled among themselves. Default: 100,000. */
  samplerChunksize: field(z.int().positive().default(100_000), {
    expected: "a positive integer",
    help: "with chunked: consecutive samples that are shuffled among themselves",
  }),
  /** With shuffled: shards that are mixed at a time; fewer keep reading local. Default: 256. */
  windowShards: field(z.union([z.int().positive(), z.literal("all")]).default(256), {
    expected: 'a positive integer or "all"',
    help: "with shuffled: shards that are mixed at a time; fewer keep reading local",
  }),
  /** With shard_exclusive: shards that are read side by side. Default: 1. */
  streams: field(z.int().positive().default(1), {
    expected: "a positive integer",
    help: "with shard_exclusive: shards that are read side by side",
  }),
  /** How often each root's samples come, relative to one another; without it each sample comes once an epoch. */
  weights: field(z.array(z.number().nonnegative()).optional(), {
    expected: "a list of numbers, one for each root",
    help: "how often each root's samples come, relative to one another; without it each sample comes once an epoch",
  }),
  /** What a shard or sample that cannot be read does. Default: skip. */
  onBadSample: field(z.enum(["error", "skip"]).default("skip"), {
    expected: '"error" or "skip"',
    help: "what a shard or sample that cannot be read does",
  }),
  /** Leave out shards that were cut or cannot be read; otherwise they end with an error. */
  skipBrokenShards: field(z.boolean().default(false), {
    expected: "true or false",
    help: "leave out shards that were cut or cannot be read; otherwise they end with an error",
  }),
  /** With skip: the share of bad samples that is too many. Default: 0.01. */
  maxBadRate: field(z.number().min(0).max(1).default(0.01), {
    expected: "a number from 0 to 1",
    help: "with skip: the share of bad samples that is too many",
  }),
});

/** Checked options. */
export type TrainingSetOptions = z.output<typeof trainingSetOptionsSchema>;

/** Extension of the text states. */
export function textMember(options: Pick<TrainingSetOptions, "textEmbeddingName">, synthetic: boolean): string {
  return `${synthetic ? "synthetic_" : ""}${options.textEmbeddingName}_embeddings.npy`;
}
