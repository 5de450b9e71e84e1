/**
 * Makes folders of shards ready for training: an index that Python's `wids` and the published code read, the tables of
 * the shards, and, where wanted, the bin edges of their scores under the published name.
 */
import { join } from "node:path";
import { z } from "zod";
import { InvalidInputError } from "../../errors.js";
import { proveWritable } from "../../files/writable.js";
import { message, option } from "../../message.js";
import { REWARD_KEYS } from "../../networks/config.js";
import { asFlag, commaSeparated, field, flag, type OptionsOf, parseOptions } from "../../options.js";
import type { ShardProblem } from "../shards/shard-error.js";
import { ShardSet, tarsIn } from "../shards/shard-set.js";
import { warnUnfinished } from "../shards/unfinished.js";
import { checkWidsIndex, WIDS_INDEX_NAME, writeWidsIndex } from "../shards/wids-index.js";
import { binsOf } from "./bins-of.js";
import { type FilterOptions, passesFilter } from "./filters.js";
import { foundFields, numericFields, scoreFields } from "./numeric-fields.js";
import type { OpenHooks } from "./open-shards.js";
import { writeSizeCache } from "./size-cache.js";
import type { ScoreSummary } from "./statistics.js";
import { trainingSetOptionsSchema } from "./training-set-options.js";

const training = trainingSetOptionsSchema.shape;

/** Options of {@link indexShards}. */
export const indexOptionsSchema = z.strictObject({
  /** Folders with *.tar. */
  folders: field(z.array(z.string().min(1)).min(1), {
    expected: "paths of folders",
    help: "folders with *.tar",
    flag: "<dir...>",
  }),
  /** Absolute paths in the index, for the published training code. */
  absolute: flag("absolute paths in the index, for the published training code", "--absolute"),
  /** Write nothing; say what no longer fits the indexes. */
  check: flag("write nothing; say what no longer fits the indexes", "--check"),
  /** Compute the bin edges of the scores over all folders and keep them in the first. */
  bins: flag("compute the bin edges of the scores over all folders and keep them in the first", "--bins"),
  /**
   * Scores to bin. Default: the published rewards that the shards have; where they have none, the scores of this
   * program's scorers and every field that ends in `_score`.
   */
  scores: field(z.array(z.string().min(1)).min(1).optional(), {
    expected: "names of scores",
    help: "scores to bin, separated by commas",
    flag: "--scores <names>",
    parse: commaSeparated,
    otherwise:
      "the published rewards that the shards have; where they have none, the scores of this program's scorers and every field that ends in _score",
  }),
  /** How often a sample's synthetic caption is trained with, from 0 to 1. */
  syntheticProb: asFlag(training.syntheticEmbeddingProb, "--synthetic-prob <p>"),
  /** Scores that go with a synthetic caption: its own (`paired`), or those of the original caption (`original`). */
  scoreMode: asFlag(training.scoreMode, "--score-mode <mode>"),
  /** Bins of each reward. */
  numBins: asFlag(training.numBins, "--num-bins <n>"),
  /** Where the edges lie. */
  strategy: asFlag(training.binStrategy, "--strategy <name>"),
  /** With `refined_quantile`: how many of the last bins are divided. */
  refineLastNBins: asFlag(training.refineLastNBins, "--refine-last-n-bins <n>"),
  /** With `refined_quantile`: into how many parts each of them. */
  refineFactor: asFlag(training.refineFactor, "--refine-factor <n>"),
  /** Bin edges from distinct values, as the published code computes them. */
  distinct: asFlag(training.distinct, "--distinct"),
  /** Samples that bin edges are computed from. */
  maxSamples: asFlag(training.maxSamplesBinEstimation, "--max-samples <n>"),
  /** Chooses those samples where there are more. */
  seed: asFlag(training.binSeed, "--seed <n>"),
  /** Text states: the members NAME_embeddings.npy. */
  textEmbeddingName: asFlag(training.textEmbeddingName, "--text-embedding-name <name>"),
  /** Leave out shards that were cut or cannot be read; otherwise they end with an error. */
  skipBrokenShards: asFlag(training.skipBrokenShards, "--skip-broken-shards"),
  /** Also count what passes a filter, and keep the number for the published code. */
  sizes: flag("also count what passes a filter, and keep the number for the published code", "--sizes"),
  /** Shorter side that a picture must have. */
  minImageSize: asFlag(training.minImageSize, "--min-image-size <n>"),
  /** Least CLIP similarity of picture and caption. */
  clipFilterThreshold: asFlag(training.clipFilterThreshold, "--clip-filter-threshold <n>"),
  /** Least aesthetic score. */
  aestheticThreshold: asFlag(training.aestheticThreshold, "--aesthetic-threshold <n>"),
});

/** Options of {@link indexShards}, defaults left out. */
export type IndexOptions = OptionsOf<typeof indexOptionsSchema>;

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
  if (!options.check) for (const folder of options.folders) proveWritable(folder, "folder", "folders");
  for (const folder of options.folders) {
    const path = join(folder, WIDS_INDEX_NAME);
    if (options.check) {
      const set = await ShardSet.open({ sources: [path], onBadSample: "skip", maxBadRate: 1, brokenShards: "read" });
      const problems = checkWidsIndex(path);
      folders.push({ folder, index: path, shards: set.shards.length, samples: set.length, problems });
      set.close();
      continue;
    }
    warnUnfinished(folder, hooks.onMessage);
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
    const passing = shards.select({ where: (table, sample) => passesFilter(table, sample, options) }).length;
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

/**
 * The scores that shards have: the published rewards; where there are none, what the scorers of this program have
 * measured, and every other field that is called a score.
 */
function scoresOf(shards: ShardSet): string[] {
  const fields = numericFields(shards);
  const published = REWARD_KEYS.filter((key) => fields.includes(key));
  if (published.length > 0) return [...published];
  const other = scoreFields(fields);
  if (other.length === 0)
    throw new InvalidInputError(
      message`${shards.shards[0]!.path}: no sample's metadata has the score of a scorer, or a field that ends in _score; ${foundFields(fields)}; name fields with ${option("scores")}`,
    );
  return other;
}
