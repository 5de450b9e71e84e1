/** The bin edges of a set of shards: those kept beside the shards, else computed from a sample of their scores. */
import { dirname } from "node:path";
import { InvalidInputError } from "../../errors.js";
import type { ShardSet } from "../shards/shard-set.js";
import { type BinEdges, type BinIdentity, readBinCache, writeBinCache } from "./bin-cache.js";
import { type BinOptions, computeBins, parseBinOptions } from "./bins.js";
import { foundFields, numericFields } from "./numeric-fields.js";
import type { OpenHooks } from "./open-shards.js";
import { type CountedShard, gatherStatistics, type Statistics } from "./statistics.js";
import { type TrainingSetOptions, textMember } from "./training-set-options.js";

/** Edges of the bins of a data set. */
export interface BinsResult {
  edges: BinEdges;
  /** The file that they are kept in. */
  file: string | null;
  /** What the scores look like; null when the edges were found computed. */
  statistics: Statistics | null;
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
 * The bin edges of a set of shards: those kept in the folder of its first shard where they belong to it, else computed
 * and kept there.
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
      const found =
        values.length === 0
          ? `no sample has one (${foundFields(numericFields(shards))})`
          : `all ${values.length} sampled values are ${values[0]}`;
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

/**
 * The kept bin edges of a set of shards, or null where they are still to be computed.
 * @throws MiroError naming a broken file
 */
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

/** The options of the bins themselves. */
export function binOptions(options: Omit<BinsOfOptions, "scores">): BinOptions {
  const { numBins, binStrategy: strategy, refineLastNBins, refineFactor, distinct } = options;
  return { numBins, strategy, refineLastNBins, refineFactor, distinct };
}

function folderOf({ shards }: ShardSet): string {
  return dirname(shards[0]!.path);
}
