/**
 * Shards as training sees them: which samples there are after filtering, in which order they come, with which caption and which
 * reward levels. All of it follows from the tables of the shards and from (seed, epoch, position); pictures and texts are not read here.
 */
import { z } from "zod";
import { InvalidInputError, invalid } from "../../errors.js";
import { field, parseOptions } from "../../options.js";
import { IMAGE_EXTENSIONS } from "../../pictures/decode.js";
import {
  problemText,
  type SampleOrder,
  type Selection,
  ShardSet,
  type ShardTable,
  ShuffledOrder,
} from "../shards/index.js";
import { type BinEdges, type BinIdentity, readBinCache, writeBinCache } from "./bin-cache.js";
import { BIN_STRATEGIES, type BinOptions, binValue, computeBins, nominalBins, parseBinOptions } from "./bins.js";
import { canBeSynthetic, drawsSynthetic, SCORE_MODES, syntheticName } from "./caption-source.js";
import { filterOptionsSchema, hasFilter } from "./filters.js";
import { BlockOrder, chunkedOrder, WeightedOrder } from "./samplers.js";
import { passesIn } from "./size-cache.js";
import { type CountedShard, gatherStatistics, type Statistics } from "./statistics.js";

const probability = z.number().min(0).max(1);
const path = z.string().min(1);

/** Options of {@link TrainingSet.open}; names are the published ones where those exist. */
export const trainingSetOptionsSchema = z.strictObject({
  root: field(
    z.union([path, z.array(path).min(1)]),
    "a path or a list of paths",
    "folders of shards, tar files or index files; their samples follow one another",
  ),
  textEmbeddingName: field(
    z.string().min(1).default("flan_t5_xl"),
    "a name",
    "text states: the members NAME_embeddings.npy",
  ),
  vaeEmbeddingNameMean: field(
    z.string().min(1).default("vae_embeddings_mean_256"),
    "a name",
    "member of the latents' mean",
  ),
  vaeEmbeddingNameStd: field(
    z.string().min(1).nullable().default("vae_embeddings_std_256"),
    "a name or null",
    "member of the latents' standard deviation; null trains on the mean",
  ),
  ...filterOptionsSchema.shape,
  requirePictureAndCaption: field(
    z.boolean().default(false),
    "true or false",
    "leave out samples without a picture or a .txt member, as the published code does",
  ),
  coherenceScores: field(
    z.array(z.string().min(1)).optional(),
    "a list of names",
    "metadata fields of the rewards; by default those of the network",
  ),
  syntheticEmbeddingProb: field(
    probability.default(0),
    "a probability from 0 to 1",
    "how often a sample's synthetic caption is trained with",
  ),
  scoreMode: field(
    z.enum(SCORE_MODES).default("paired"),
    `one of ${SCORE_MODES.join(", ")}`,
    "scores that go with a synthetic caption: its own (paired), or those of the original caption as in the published code (original)",
  ),
  binCoherence: field(z.boolean().default(true), "true or false", "rewards as levels of bins; false: as they are"),
  numBins: field(z.int().min(2).max(65_536).default(64), "an integer from 2 to 65536", "bins of each reward"),
  binStrategy: field(
    z.enum(BIN_STRATEGIES).default("quantile"),
    `one of ${BIN_STRATEGIES.join(", ")}`,
    "where the edges lie",
  ),
  refineLastNBins: field(
    z.int().nonnegative().default(0),
    "a non-negative integer",
    "with refined_quantile: how many of the last bins are divided",
  ),
  refineFactor: field(
    z.int().positive().default(1),
    "a positive integer",
    "with refined_quantile: into how many parts each of them",
  ),
  distinct: field(
    z.boolean().default(false),
    "true or false",
    "bin edges from distinct values, as the published code computes them",
  ),
  upstreamLevels: field(
    z.boolean().default(false),
    "true or false",
    "levels as the published code computes them: not clamped to 1, divided by the number of bins asked for",
  ),
  maxSamplesBinEstimation: field(
    z.int().positive().default(100_000),
    "a positive integer",
    "samples that bin edges are computed from",
  ),
  binSeed: field(
    z.int().nonnegative().default(42),
    "a non-negative integer",
    "chooses those samples where there are more",
  ),
  sampler: field(
    z.enum(["shuffled", "chunked", "shard_exclusive", "sequential"]).default("shuffled"),
    "one of shuffled, chunked, shard_exclusive, sequential",
    "order of an epoch: shuffled as a whole, in chunks, or shard by shard; or as stored",
  ),
  samplerSeed: field(
    z.int().nonnegative().optional(),
    "a non-negative integer",
    "chooses the order; by default the recipe's seed",
  ),
  samplerChunksize: field(
    z.int().positive().default(100_000),
    "a positive integer",
    "with chunked: consecutive samples that are shuffled among themselves",
  ),
  windowShards: field(
    z.union([z.int().positive(), z.literal("all")]).default(256),
    'a positive integer or "all"',
    "with shuffled: shards that are mixed at a time; fewer keep reading local",
  ),
  streams: field(
    z.int().positive().default(1),
    "a positive integer",
    "with shard_exclusive: shards that are read side by side",
  ),
  weights: field(
    z.array(z.number().nonnegative()).optional(),
    "a list of numbers, one for each root",
    "how often each root's samples come, relative to one another; without it each sample comes once an epoch",
  ),
  onBadSample: field(
    z.enum(["error", "skip"]).default("skip"),
    '"error" or "skip"',
    "what a shard or sample that cannot be read does",
  ),
  skipBrokenShards: field(
    z.boolean().default(false),
    "true or false",
    "leave out shards that were cut or cannot be read; otherwise they end with an error",
  ),
  maxBadRate: field(
    z.number().min(0).max(1).default(0.01),
    "a number from 0 to 1",
    "with skip: the share of bad samples that is too many",
  ),
});

/** Checked options. */
export type TrainingSetOptions = z.output<typeof trainingSetOptionsSchema>;

/** What opening tells of itself. */
export interface OpenHooks {
  signal?: AbortSignal;
  onMessage?: (message: string) => void;
  /** What is done of what: `indexing`, `reading scores`. */
  onProgress?: (what: string, done: number, all: number) => void;
}

/** A sample as it is trained with in an epoch. */
export interface PlannedSample {
  /** Number in the set of all shards, before filtering. */
  sample: number;
  /** Whether the synthetic caption is used. */
  synthetic: boolean;
  /** A level or raw score for each reward, NaN where the sample has none, in the order of `scores`. */
  rewards: Float32Array;
}

/** Edges of the bins of a data set. */
export interface BinsResult {
  edges: BinEdges;
  /** The file that they are kept in. */
  file: string | null;
  /** What the scores look like; null when the edges were found computed. */
  statistics: Statistics | null;
}

export class TrainingSet {
  private constructor(
    readonly shards: ShardSet,
    /** The samples that pass. */
    readonly selection: Selection,
    readonly options: TrainingSetOptions,
    /** Metadata fields of the rewards. */
    readonly scores: readonly string[],
    /** Edges of the bins by score; null without binning. */
    readonly bins: BinEdges | null,
    private readonly order: SampleOrder,
    private readonly seed: number,
  ) {}

  /**
   * Opens shards for training.
   *
   * @param options as in a recipe, checked here
   * @param run the rewards of the network, the run's seed, and the samples of one batch
   * @throws InvalidInputError when nothing passes the filters, or a reward is in no sample; ShardError naming a bad shard
   */
  static async open(
    input: z.input<typeof trainingSetOptionsSchema>,
    run: { scores: readonly string[]; seed: number; batchSize: number },
    hooks: OpenHooks = {},
  ): Promise<TrainingSet> {
    const options = parseOptions(trainingSetOptionsSchema, input);
    const scores = options.coherenceScores ?? run.scores;
    const roots = rootsOf(options);
    const shards = await openShards(roots, options, hooks);
    try {
      const selection = shards.select({
        members: requiredMembers(options),
        where: filterOf(options),
      });
      if (selection.length === 0)
        throw new InvalidInputError(
          `${roots.join(", ")}: none of the ${shards.length} samples passes the filters (min_image_size ${options.minImageSize}, clip_filter_threshold ${options.clipFilterThreshold}, aesthetic_threshold ${options.aestheticThreshold})`,
        );
      const bins =
        options.binCoherence && scores.length > 0 ? (await binsOf(shards, { ...options, scores }, hooks)).edges : null;
      const order = await orderOf(selection, options, shards, roots, { ...run, seed: options.samplerSeed ?? run.seed });
      return new TrainingSet(shards, selection, options, scores, bins, order, run.seed);
    } catch (error) {
      shards.close();
      throw error;
    }
  }

  /** Samples of an epoch. */
  get length(): number {
    return this.order.length;
  }

  /** The sample at a position of an epoch. */
  at(epoch: number, position: number): PlannedSample {
    return this.planned(epoch, this.selection.at(this.order.index(epoch, position)));
  }

  /** Caption and rewards of a sample in an epoch. */
  planned(epoch: number, sample: number): PlannedSample {
    const { syntheticEmbeddingProb: p, scoreMode } = this.options;
    const { shard, local } = this.shards.locate(sample);
    const table = this.shards.table(shard);
    const original = this.scores.map((name) => table.value(local, name));
    let used = original;
    let synthetic = false;
    if (drawsSynthetic(p, this.seed, epoch, sample)) {
      const scores = this.scores.map((name) => table.value(local, syntheticName(name)));
      const hasSyntheticText = table.has(local, textMember(this.options, true));
      synthetic = canBeSynthetic({ original, synthetic: scores, hasSyntheticText }, scoreMode);
      if (synthetic && scoreMode === "paired") used = scores;
    }
    return { sample, synthetic, rewards: Float32Array.from(this.scores, (name, s) => this.level(name, used[s]!)) };
  }

  /** What the network is told of a raw score. */
  private level(name: string, value: number): number {
    const edges = this.bins?.get(name);
    if (!Number.isFinite(value)) return Number.NaN;
    if (edges === undefined) return Math.fround(value);
    return binValue(
      value,
      edges,
      this.options.upstreamLevels ? { upstreamBins: nominalBins(binOptions(this.options)) } : {},
    );
  }

  close(): void {
    this.shards.close();
  }
}

/** Extension of the text states. */
export function textMember(options: Pick<TrainingSetOptions, "textEmbeddingName">, synthetic: boolean): string {
  return `${synthetic ? "synthetic_" : ""}${options.textEmbeddingName}_embeddings.npy`;
}

/** Options of {@link binsOf}. */
export type BinsOfOptions = Pick<
  TrainingSetOptions,
  | "syntheticEmbeddingProb"
  | "scoreMode"
  | "numBins"
  | "binStrategy"
  | "refineLastNBins"
  | "refineFactor"
  | "distinct"
  | "maxSamplesBinEstimation"
  | "binSeed"
  | "textEmbeddingName"
> & { scores: readonly string[] };

/**
 * The bin edges of a set of shards: those kept in the folder of its first shard where they belong to it, else computed and kept there.
 *
 * @param recompute makes them anew in any case
 * @throws InvalidInputError naming a score that no sample has, or that has one value only
 */
export async function binsOf(
  shards: ShardSet,
  options: BinsOfOptions,
  hooks: OpenHooks = {},
  recompute = false,
): Promise<BinsResult> {
  const { scores } = options;
  const identity = binIdentity(shards, options);
  const { syntheticProb, scoreMode, maxSamples, seed } = identity;
  const folder = folderOf(shards);
  const kept = recompute ? null : readBinCache(folder, identity);
  if (kept !== null) {
    if (kept.foreign)
      hooks.onMessage?.(`${kept.file}: used as it is; nothing beside it says which data it was computed from`);
    return { edges: kept.edges, file: kept.file, statistics: null };
  }
  const counted: CountedShard[] = shards.shards.map(({ count }, i) => ({ count, table: () => shards.table(i) }));
  const statistics = await gatherStatistics(counted, {
    scores,
    syntheticProb,
    syntheticText: textMember(options, true),
    scoreMode,
    maxSamples,
    seed,
    signal: hooks.signal,
    onShard: (done, all) => hooks.onProgress?.("reading scores", done, all),
  });
  const edges: BinEdges = new Map();
  for (const name of scores) {
    const values = statistics.values.get(name)!;
    const some = computeBins(values, binOptions(options));
    if (some === null) {
      const found = values.length === 0 ? "no sample has one" : `all ${values.length} sampled values are ${values[0]}`;
      throw new InvalidInputError(`${name}: no bins can be made, ${found}; leave it out of the rewards`);
    }
    edges.set(name, some);
  }
  try {
    return { edges, file: writeBinCache(folder, identity, edges), statistics };
  } catch (error) {
    hooks.onMessage?.(`${(error as Error).message}; the bin edges will be computed again next time`);
    return { edges, file: null, statistics };
  }
}

/** The kept bin edges of a set of shards, or null where they are still to be computed. @throws MiroError naming a broken file */
export function keptBins(shards: ShardSet, options: BinsOfOptions): { file: string; foreign: boolean } | null {
  return readBinCache(folderOf(shards), binIdentity(shards, options));
}

function binIdentity(shards: ShardSet, options: BinsOfOptions): BinIdentity {
  return {
    scores: options.scores,
    syntheticProb: options.syntheticEmbeddingProb,
    scoreMode: options.scoreMode,
    bins: parseBinOptions(binOptions(options)),
    maxSamples: options.maxSamplesBinEstimation,
    seed: options.binSeed,
    shards: shards.shards.map(({ path, count, header }) => ({
      name: path.split("/").slice(-2).join("/"),
      samples: count,
      ...header.fingerprint,
    })),
  };
}

function binOptions(options: Omit<BinsOfOptions, "scores">): BinOptions {
  const { numBins, binStrategy: strategy, refineLastNBins, refineFactor, distinct } = options;
  return { numBins, strategy, refineLastNBins, refineFactor, distinct };
}

function folderOf(shards: ShardSet): string {
  const first = shards.shards[0]!.path;
  return first.includes("/") ? first.slice(0, Math.max(1, first.lastIndexOf("/"))) : ".";
}

function rootsOf({ root }: Pick<TrainingSetOptions, "root">): string[] {
  return typeof root === "string" ? [root] : root;
}

async function openShards(
  sources: string[],
  options: Pick<TrainingSetOptions, "onBadSample" | "maxBadRate" | "skipBrokenShards">,
  { signal, onProgress, onMessage }: OpenHooks,
): Promise<ShardSet> {
  const { onBadSample, maxBadRate, skipBrokenShards } = options;
  const set = await ShardSet.open({
    sources,
    onBadSample,
    maxBadRate,
    brokenShards: skipBrokenShards ? "skip" : "error",
    signal,
    onShard: (done, all) => onProgress?.("indexing", done, all),
  });
  for (const problem of set.leftOut) onMessage?.(`left out: ${problemText(problem)}`);
  return set;
}

function requiredMembers(options: TrainingSetOptions): string[] {
  const { vaeEmbeddingNameMean: mean, vaeEmbeddingNameStd: std } = options;
  return [`${mean}.npy`, ...(std === null ? [] : [`${std}.npy`]), textMember(options, false)];
}

function filterOf(options: TrainingSetOptions): ((table: ShardTable, sample: number) => boolean) | undefined {
  if (!hasFilter(options) && !options.requirePictureAndCaption) return undefined;
  return (table, i) => {
    if (
      options.requirePictureAndCaption &&
      !(table.has(i, "txt") && IMAGE_EXTENSIONS.some((name) => table.has(i, name)))
    )
      return false;
    return passesIn(table, i, options);
  };
}

/** The order of the passing samples. */
async function orderOf(
  selection: Selection,
  options: TrainingSetOptions,
  shards: ShardSet,
  roots: readonly string[],
  { seed, batchSize }: { seed: number; batchSize: number },
): Promise<SampleOrder> {
  const { shardSizes } = selection;
  const make = (sizes: readonly number[], seed: number): SampleOrder => {
    switch (options.sampler) {
      case "shuffled":
        return new ShuffledOrder({ shardSizes: sizes, seed, windowShards: options.windowShards });
      case "chunked":
        return chunkedOrder({ count: sizes.reduce((a, b) => a + b, 0), chunkSize: options.samplerChunksize, seed });
      case "shard_exclusive":
        return new BlockOrder({ blockLengths: sizes, seed, streams: options.streams, batchSize });
      case "sequential":
        return new BlockOrder({ blockLengths: sizes, seed, shuffle: false });
    }
  };
  const { weights } = options;
  if (weights === undefined) return make(shardSizes, seed);
  if (weights.length !== roots.length)
    throw invalid("weights", `one number for each of the ${roots.length} roots`, weights);
  // A root's shards follow one another: count how many each root gave.
  const counts: number[] = [];
  for (const root of roots) {
    const own = await openShards([root], options, {});
    counts.push(own.shards.length);
    own.close();
  }
  let at = 0;
  const parts = counts.map((count, i) => {
    const sizes = shardSizes.slice(at, at + count);
    at += count;
    return { weight: weights[i]!, order: make(sizes, seed + i) };
  });
  if (at !== shards.shards.length)
    throw new InvalidInputError(`${roots.join(", ")}: the shards changed while they were opened`);
  return new WeightedOrder({ parts, seed, length: selection.length });
}
