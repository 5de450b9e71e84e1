/**
 * Makes folders of shards ready for training: an index that Python's `wids` and the published code read, the tables of the shards,
 * and, where wanted, the bin edges of their scores under the published name.
 */
import { join } from "node:path";
import { z } from "zod";
import { InvalidInputError } from "../../errors.js";
import { message, option } from "../../message.js";
import { REWARD_KEYS } from "../../networks/config.js";
import { field, parseOptions } from "../../options.js";
import {
  checkWidsIndex,
  type ShardProblem,
  ShardSet,
  tarsIn,
  WIDS_INDEX_NAME,
  writeWidsIndex,
} from "../shards/index.js";
import { binsOf } from "./bins-of.js";
import { syntheticName } from "./caption-source.js";
import type { FilterOptions } from "./filters.js";
import type { OpenHooks } from "./open-shards.js";
import { passesIn, writeSizeCache } from "./size-cache.js";
import type { ScoreSummary } from "./statistics.js";
import { trainingSetOptionsSchema } from "./training-set-options.js";

const training = trainingSetOptionsSchema.shape;

/** Options of {@link indexShards}. */
export const indexOptionsSchema = z.strictObject({
  folders: field(z.array(z.string().min(1)).min(1), "paths of folders", "folders with *.tar"),
  absolute: field(
    z.boolean().default(false),
    "true or false",
    "absolute paths in the index, for the published training code",
  ),
  check: field(z.boolean().default(false), "true or false", "write nothing; say what no longer fits the indexes"),
  bins: field(
    z.boolean().default(false),
    "true or false",
    "compute the bin edges of the scores over all folders and keep them in the first",
  ),
  scores: field(
    z.array(z.string().min(1)).min(1).optional(),
    "names of scores",
    "scores to bin; by default the published rewards that the shards have, or every field that ends in _score",
  ),
  syntheticProb: training.syntheticEmbeddingProb,
  scoreMode: training.scoreMode,
  numBins: training.numBins,
  strategy: training.binStrategy,
  refineLastNBins: training.refineLastNBins,
  refineFactor: training.refineFactor,
  distinct: training.distinct,
  maxSamples: training.maxSamplesBinEstimation,
  seed: training.binSeed,
  textEmbeddingName: training.textEmbeddingName,
  skipBrokenShards: training.skipBrokenShards,
  sizes: field(
    z.boolean().default(false),
    "true or false",
    "also count what passes a filter, and keep the number for the published code",
  ),
  minImageSize: training.minImageSize,
  clipFilterThreshold: training.clipFilterThreshold,
  aestheticThreshold: training.aestheticThreshold,
});

/** Options of {@link indexShards}, defaults left out. */
export type IndexOptions = z.input<typeof indexOptionsSchema>;

/** What {@link indexShards} did. */
export interface IndexResult {
  folders: {
    folder: string;
    index: string;
    shards: number;
    samples: number;
    /** Samples that pass the filter, and the file that says so; only with `sizes`. */
    passing?: number;
    sizeFile?: string;
    problems: ShardProblem[];
  }[];
  /** Null without bins. */
  bins: {
    /** The file; null where it could not be written. */
    file: string | null;
    edges: Record<string, number[]>;
    /** Each score over all samples; null when the edges of an earlier call were still good. */
    scores: Record<string, ReturnType<ScoreSummary["toJSON"]>> | null;
  } | null;
}

/**
 * Writes the index of each folder, and the bin edges where wanted.
 * @throws InvalidInputError naming a wrong option or score; ShardError naming a shard that cannot be read
 */
export async function indexShards(input: IndexOptions, hooks: OpenHooks = {}): Promise<IndexResult> {
  const options = parseOptions(indexOptionsSchema, input);
  const folders: IndexResult["folders"] = [];
  for (const folder of options.folders) {
    const path = join(folder, WIDS_INDEX_NAME);
    if (options.check) {
      const set = await ShardSet.open({ sources: [path], onBadSample: "skip", maxBadRate: 1, brokenShards: "read" });
      const problems = checkWidsIndex(path);
      folders.push({ folder, index: path, shards: set.shards.length, samples: set.length, problems });
      set.close();
      continue;
    }
    const { index, problems } = await writeWidsIndex(path, {
      shards: tarsIn(folder),
      paths: options.absolute ? "absolute" : "relative",
      skipBrokenShards: options.skipBrokenShards,
      signal: hooks.signal,
      onShard: (done, all) => hooks.onProgress?.(`indexing ${folder}`, done, all),
    });
    const samples = index.shards.reduce((sum, { nsamples }) => sum + nsamples, 0);
    const counted = options.sizes ? await countPassing(folder, options, options.skipBrokenShards) : {};
    folders.push({ folder, index: path, shards: index.shards.length, samples, ...counted, problems });
  }
  return { folders, bins: options.bins && !options.check ? await computeAndKeep(options, hooks) : null };
}

async function countPassing(
  folder: string,
  options: FilterOptions,
  skipBrokenShards: boolean,
): Promise<{ passing: number; sizeFile: string }> {
  const brokenShards = skipBrokenShards ? "skip" : "read";
  const shards = await ShardSet.open({ sources: [folder], onBadSample: "skip", maxBadRate: 1, brokenShards });
  try {
    const passing = shards.select({ where: (table, sample) => passesIn(table, sample, options) }).length;
    return { passing, sizeFile: writeSizeCache(folder, options, passing) };
  } finally {
    shards.close();
  }
}

async function computeAndKeep(
  options: z.output<typeof indexOptionsSchema>,
  hooks: OpenHooks,
): Promise<IndexResult["bins"]> {
  const brokenShards = options.skipBrokenShards ? "skip" : "error";
  const shards = await ShardSet.open({ sources: options.folders, onBadSample: "skip", brokenShards });
  try {
    const scores = options.scores ?? scoresOf(shards);
    const { edges, file, statistics } = await binsOf(
      shards,
      {
        ...options,
        scores,
        syntheticEmbeddingProb: options.syntheticProb,
        binStrategy: options.strategy,
        maxSamplesBinEstimation: options.maxSamples,
        binSeed: options.seed,
      },
      hooks,
    );
    return {
      file,
      edges: Object.fromEntries([...edges].map(([name, values]) => [name, [...values]])),
      scores:
        statistics && Object.fromEntries([...statistics.summaries].map(([name, summary]) => [name, summary.toJSON()])),
    };
  } finally {
    shards.close();
  }
}

/** The scores that shards have. */
function scoresOf(shards: ShardSet): string[] {
  const fields = new Set(shards.shards.flatMap(({ header }) => header.columns));
  const published = REWARD_KEYS.filter((key) => fields.has(key));
  if (published.length > 0) return [...published];
  const other = [...fields].filter((name) => name.endsWith("_score") && !name.startsWith(syntheticName("")));
  if (other.length === 0)
    throw new InvalidInputError(
      message`${shards.shards[0]!.path}: no sample's metadata has a field that ends in _score; name fields with ${option("scores")}`,
    );
  return other;
}
