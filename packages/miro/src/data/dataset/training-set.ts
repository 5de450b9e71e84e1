/**
 * Shards as training sees them: which samples there are after filtering, in which order they come, with which caption
 * and which reward levels. All of it follows from the tables of the shards and from (seed, epoch, position); pictures
 * and texts are not read here.
 */
import { InvalidInputError } from "../../errors.js";
import { counted, plural } from "../../numbers.js";
import { type OptionsOf, parseOptions } from "../../options.js";
import { IMAGE_EXTENSIONS } from "../../pictures/decode.js";
import type { SampleOrder } from "../shards/order.js";
import type { Selection, ShardSet } from "../shards/shard-set.js";
import type { ShardTable } from "../shards/shard-table.js";
import type { BinEdges } from "./bin-cache.js";
import { binValue, nominalBins } from "./bins.js";
import { binOptions, binsOf } from "./bins-of.js";
import { canBeSynthetic, drawsSynthetic, syntheticName } from "./caption-source.js";
import { type FilterOptions, hasFilter, passesFilter } from "./filters.js";
import { type OpenHooks, openShards, rootsOf } from "./open-shards.js";
import { orderOf } from "./order-of.js";
import { type TrainingSetOptions, textMember, trainingSetOptionsSchema } from "./training-set-options.js";

/** A sample as it is trained with in an epoch. */
export interface PlannedSample {
  /** Number in the set of all shards, before filtering. */
  sample: number;
  /** Whether the synthetic caption is used. */
  synthetic: boolean;
  /** A level or raw score for each reward, NaN where the sample has none, in the order of `scores`. */
  rewards: Float32Array;
}

/** Samples of shards as a training sees them: filtered, with their captions, reward levels and order. */
export class TrainingSet {
  readonly #order: SampleOrder;
  readonly #seed: number;

  private constructor(
    readonly shards: ShardSet,
    /** The samples that pass. */
    readonly selection: Selection,
    readonly options: TrainingSetOptions,
    /** Metadata fields of the rewards. */
    readonly scores: readonly string[],
    /** Edges of the bins by score; null without binning. */
    readonly bins: BinEdges | null,
    order: SampleOrder,
    seed: number,
  ) {
    this.#order = order;
    this.#seed = seed;
  }

  /**
   * Opens shards for training.
   *
   * @param input as in a recipe, checked here
   * @param run the rewards of the network, the run's seed, and the samples of one batch
   * @throws InvalidInputError when nothing passes the filters, or a reward is in no sample; ShardError naming a bad
   *   shard
   */
  static async open(
    input: OptionsOf<typeof trainingSetOptionsSchema>,
    run: { scores: readonly string[]; seed: number; batchSize: number },
    hooks: OpenHooks = {},
  ): Promise<TrainingSet> {
    const options = parseOptions(trainingSetOptionsSchema, input);
    const scores = options.coherenceScores ?? run.scores;
    const roots = rootsOf(options);
    const shards = await openShards(roots, options, hooks);
    try {
      const selection = selectSamples(shards, options);
      if (selection.length === 0)
        throw new InvalidInputError(
          `${roots.join(", ")}: none of ${counted(shards.length, "sample")} passes the filters (${filterWords(options)})`,
        );
      const unfiltered = unfilteredWords(shards, options);
      if (unfiltered !== null) hooks.onMessage?.(`${roots.join(", ")}: ${unfiltered}`);
      const bins =
        options.binCoherence && scores.length > 0 ? (await binsOf(shards, { ...options, scores }, hooks)).edges : null;
      const order = orderOf(selection, options, shards, {
        roots: roots.length,
        seed: options.samplerSeed ?? run.seed,
        batchSize: run.batchSize,
      });
      return new TrainingSet(shards, selection, options, scores, bins, order, run.seed);
    } catch (error) {
      shards.close();
      throw error;
    }
  }

  /** Samples of an epoch. */
  get length(): number {
    return this.#order.length;
  }

  /** The sample at a position of an epoch. */
  at(epoch: number, position: number): PlannedSample {
    return this.planned(epoch, this.selection.at(this.#order.index(epoch, position)));
  }

  /** Caption and rewards of a sample in an epoch. */
  planned(epoch: number, sample: number): PlannedSample {
    const { syntheticEmbeddingProb: p, scoreMode } = this.options;
    const { shard, local } = this.shards.locate(sample);
    const table = this.shards.table(shard);
    const original = this.scores.map((name) => table.value(local, name));
    let used = original;
    let synthetic = false;
    if (drawsSynthetic(p, this.#seed, epoch, sample)) {
      const scores = this.scores.map((name) => table.value(local, syntheticName(name)));
      const hasSyntheticText = table.has(local, textMember(this.options, true));
      synthetic = canBeSynthetic({ original, synthetic: scores, hasSyntheticText }, scoreMode);
      if (synthetic && scoreMode === "paired") used = scores;
    }
    return { sample, synthetic, rewards: Float32Array.from(this.scores, (name, s) => this.#level(name, used[s]!)) };
  }

  /** What the network is told of a raw score. */
  #level(name: string, value: number): number {
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

/** What decides which samples a training sees. */
export type SelectingOptions = FilterOptions &
  Pick<
    TrainingSetOptions,
    "vaeEmbeddingNameMean" | "vaeEmbeddingNameStd" | "textEmbeddingName" | "requirePictureAndCaption"
  >;

/**
 * The samples that a training sees: those with latents and text states that pass the filters.
 * @throws ShardError where more of them lack a member than the policy of the shards allows
 */
export function selectSamples(shards: ShardSet, options: SelectingOptions): Selection {
  const { vaeEmbeddingNameMean: mean, vaeEmbeddingNameStd: std } = options;
  const members = [`${mean}.npy`, ...(std === null ? [] : [`${std}.npy`]), textMember(options, false)];
  return shards.select({ members, where: filterOf(options) });
}

/**
 * What is to be known of samples that pass thresholds of scores because their size is unknown; null where there are
 * none.
 */
export function unfilteredWords(shards: ShardSet, options: FilterOptions): string | null {
  if (options.clipFilterThreshold === 0 && options.aestheticThreshold === 0) return null;
  let count = 0;
  shards.shards.forEach(({ count: samples }, i) => {
    const table = shards.table(i);
    for (let sample = 0; sample < samples; sample++)
      if (["width", "height"].some((side) => Number.isNaN(table.value(sample, side)))) count++;
  });
  if (count === 0) return null;
  const [have, pass] = [plural(count, "has", "have"), plural(count, "passes", "pass")];
  const found = `${count} of ${counted(shards.length, "sample")} ${have} no width and height in the JSON`;
  return `${found}, and so ${pass} the filters whatever the scores, as in the published code`;
}

/** The filters with their values, as a recipe names them. */
export function filterWords({ minImageSize, clipFilterThreshold, aestheticThreshold }: FilterOptions): string {
  return `min_image_size ${minImageSize}, clip_filter_threshold ${clipFilterThreshold}, aesthetic_threshold ${aestheticThreshold}`;
}

function filterOf(options: SelectingOptions): ((table: ShardTable, sample: number) => boolean) | undefined {
  if (!hasFilter(options) && !options.requirePictureAndCaption) return undefined;
  const isWhole = (table: ShardTable, i: number) =>
    table.has(i, "txt") && IMAGE_EXTENSIONS.some((name) => table.has(i, name));
  return (table, i) => (!options.requirePictureAndCaption || isWhole(table, i)) && passesFilter(table, i, options);
}
