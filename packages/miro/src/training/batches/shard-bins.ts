/** What `miro index` must be asked for, so that a training finds the bin edges of its rewards. */
import { type IndexOptions, indexOptionsSchema } from "../../data/dataset/index-shards.js";
import { declarationOf } from "../../options.js";
import { rootsOf, type ShardData, scoresOf } from "./shard-data.js";

/** The folders, scores and bins of a recipe's data. */
export function indexOptionsOf(data: ShardData, coherenceKeys: readonly string[]): IndexOptions {
  return {
    folders: rootsOf(data),
    scores: [...scoresOf(data, coherenceKeys)],
    syntheticProb: data.syntheticEmbeddingProb,
    scoreMode: data.scoreMode,
    numBins: data.numBins,
    strategy: data.binStrategy,
    refineLastNBins: data.refineLastNBins,
    refineFactor: data.refineFactor,
    distinct: data.distinct,
    maxSamples: data.maxSamplesBinEstimation,
    seed: data.binSeed,
    textEmbeddingName: data.textEmbeddingName,
    skipBrokenShards: data.skipBrokenShards,
  };
}

/** The command that computes the bins; flags whose value is the default are left out. */
export function binsCommand({ folders, ...options }: IndexOptions): string {
  const flags = Object.entries(options).flatMap(([name, value]) => {
    const schema = indexOptionsSchema.shape[name as keyof typeof options];
    if (value === schema.safeParse(undefined).data) return [];
    const [flag] = declarationOf(schema).flag!.split(" ");
    return value === true ? [flag] : [`${flag} ${value}`];
  });
  return ["miro index", ...folders, "--bins", ...flags].join(" ");
}
