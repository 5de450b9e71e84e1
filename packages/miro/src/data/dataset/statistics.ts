/**
 * What the scores of a data set look like: exact count, mean, deviation, extremes of every score over all samples, and
 * a sample of samples for quantiles and bin edges. Shards are looked at one after another, so memory does not grow with
 * their number.
 *
 * The sample: all samples where there are at most `maxSamples`; otherwise that many different ones, the very samples
 * that the published code draws in a single process (Python's `random.Random(seed).sample`), grouped by shard.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { checkList, checkObject, isObject } from "../../arguments.js";
import { PythonRandom } from "../../random/python.js";
import type { ShardTable } from "../shards/shard-table.js";
import { canBeSynthetic, drawsSynthetic, type ScoreMode, syntheticName } from "./caption-source.js";

/** One score over all samples that have it. */
export class ScoreSummary {
  count = 0;
  /** Samples without the score, or with one that is not finite. */
  missing = 0;
  min = Number.POSITIVE_INFINITY;
  max = Number.NEGATIVE_INFINITY;
  mean = 0;
  #squares = 0;

  /** Takes in a value (Welford's update). */
  add(value: number): void {
    if (!Number.isFinite(value)) {
      this.missing++;
      return;
    }
    this.count++;
    const off = value - this.mean;
    this.mean += off / this.count;
    this.#squares += off * (value - this.mean);
    if (value < this.min) this.min = value;
    if (value > this.max) this.max = value;
  }

  /** Standard deviation, unbiased; NaN for fewer than two values. */
  get std(): number {
    return this.count > 1 ? Math.sqrt(this.#squares / (this.count - 1)) : Number.NaN;
  }

  /** For a JSON file: null for what has no value. */
  toJSON(): SummaryJson {
    const some = (value: number) => (this.count > 0 && Number.isFinite(value) ? value : null);
    const { count, missing } = this;
    return { count, missing, mean: some(this.mean), std: some(this.std), min: some(this.min), max: some(this.max) };
  }
}

/** A {@link ScoreSummary} in a JSON file. */
export interface SummaryJson {
  count: number;
  missing: number;
  mean: number | null;
  std: number | null;
  min: number | null;
  max: number | null;
}

/** What to gather. */
export interface StatisticsOptions {
  /** Scores, in the order wanted. */
  scores: readonly string[];
  /** Probability that a sampled sample counts with its synthetic scores. */
  syntheticProb: number;
  /** Extension of the synthetic caption's text states: samples without it keep their original scores. */
  syntheticText: string;
  /** Which scores of a sample with several captions count. */
  scoreMode: ScoreMode;
  /** Samples that the sample holds at most. */
  maxSamples: number;
  /** Decides which samples are in the sample. */
  seed: number;
  /** Stops the work. */
  signal?: AbortSignal | undefined;
  /** Called for each shard that is done. */
  onShard?: ((done: number, all: number) => void) | undefined;
}

/** A shard as statistics see it. */
export interface CountedShard {
  /** Samples. */
  readonly count: number;
  /** The numbers of the samples' metadata, and which members they have. */
  table(): Pick<ShardTable, "columns" | "has">;
}

/** What was gathered. */
export interface Statistics {
  /** Samples looked at. */
  samples: number;
  /** By field name: each score, and its synthetic one where any sample has it. */
  summaries: Map<string, ScoreSummary>;
  /** Finite values of the sampled samples, float32, by score. */
  values: Map<string, Float32Array>;
}

/**
 * Gathers statistics.
 *
 * @param shards their number is not limited: each one's numbers are read once, in order
 */
export async function gatherStatistics(
  shards: readonly CountedShard[],
  options: StatisticsOptions,
): Promise<Statistics> {
  checkList("shards", shards, "a list of counted shards", isObject);
  checkObject("options", options, "{ scores, … }", ["scores"]);
  const { scores, syntheticProb, syntheticText, scoreMode, maxSamples, seed } = options;
  const total = shards.reduce((sum, { count }) => sum + count, 0);
  const drawn = total > maxSamples ? Float64Array.from(new PythonRandom(seed).sample(total, maxSamples)).sort() : null;
  const summaries = new Map<string, ScoreSummary>();
  const values = scores.map(() => new Float32Array(Math.min(total, maxSamples)));
  const filled = scores.map(() => 0);

  let first = 0;
  let next = 0;
  for (const [shard, { count, table: read }] of shards.entries()) {
    options.signal?.throwIfAborted();
    const table = read();
    const named = (name: string) => table.columns.get(name) ?? new Float64Array(count).fill(Number.NaN);
    const original = scores.map(named);
    const synthetic = scores.map((name) => named(syntheticName(name)));
    scores.forEach((name, s) => {
      summarise(summaries, name, original[s]!);
      summarise(summaries, syntheticName(name), synthetic[s]!);
    });
    const take = (local: number) => {
      const pair = {
        original: original.map((c) => c[local]!),
        synthetic: synthetic.map((c) => c[local]!),
        hasSyntheticText: table.has(local, syntheticText),
      };
      const synthetically =
        scoreMode === "paired" &&
        drawsSynthetic(syntheticProb, seed, 0, first + local) &&
        canBeSynthetic(pair, scoreMode);
      (synthetically ? pair.synthetic : pair.original).forEach((value, s) => {
        if (Number.isFinite(value)) values[s]![filled[s]!++] = value;
      });
    };
    if (drawn === null) for (let local = 0; local < count; local++) take(local);
    else for (; next < drawn.length && drawn[next]! < first + count; next++) take(drawn[next]! - first);
    first += count;
    options.onShard?.(shard + 1, shards.length);
    if (shard % 16 === 15) await nextTurn();
  }
  for (const name of scores) if (summaries.get(syntheticName(name))!.count === 0) summaries.delete(syntheticName(name));
  return {
    samples: total,
    summaries,
    values: new Map(scores.map((name, s) => [name, values[s]!.subarray(0, filled[s])])),
  };
}

function summarise(summaries: Map<string, ScoreSummary>, name: string, values: Float64Array): void {
  const summary = summaries.get(name) ?? new ScoreSummary();
  for (const value of values) summary.add(value);
  summaries.set(name, summary);
}
