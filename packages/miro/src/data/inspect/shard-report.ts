/**
 * What shards hold: samples, members with the shapes of their arrays, numbers of the metadata with histograms, and what
 * is wrong. Works from the tables beside the shards (which it makes where they are missing), one shard after another.
 */
import { statSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { ScoreSummary, type SummaryJson } from "../dataset/statistics.js";
import { problemText, saysCut } from "../shards/shard-error.js";
import { type ShardInfo, ShardSet } from "../shards/shard-set.js";
import { ShardTable } from "../shards/shard-table.js";

/** Members with one extension. */
export interface MemberReport {
  /** Samples that have one. */
  count: number;
  bytes: number;
  /** Set where they are arrays. */
  arrays?: { dtype: string; shape: string /** Lengths of the first axis where they differ. */; lengths?: LengthReport };
}

/** Smallest, mean and largest length. */
export interface LengthReport {
  min: number;
  mean: number;
  max: number;
}

/** A numeric field of the metadata. */
export interface FieldReport extends SummaryJson {
  /** Equal bins from min to max, the last one closed; the middle one where all are equal. */
  histogram: number[];
}

/** What {@link reportShards} found. */
export interface ShardReport {
  paths: string[];
  shards: number;
  bytes: number;
  samples: number;
  /** By extension. */
  members: Record<string, MemberReport>;
  /** By name: sizes and scores of the samples' metadata. */
  fields: Record<string, FieldReport>;
  /** At most a hundred. */
  problems: string[];
  problemCount: number;
  /** Shards among these that were cut. */
  broken: number;
}

/** Options of {@link reportShards}. */
export interface ShardReportOptions {
  /** Bins of the histograms, default 24. */
  bins?: number;
  /** Leave out shards that were cut or cannot be read, default false: what is left of them is reported. */
  skipBrokenShards?: boolean;
  signal?: AbortSignal;
  onProgress?: (done: number, total: number) => void;
}

const MOST_PROBLEMS = 100;
const MOST_SHAPES = 64;

/**
 * Looks at shards. Damaged ones are reported, not refused.
 *
 * @param sources tar files, folders of tar files, index files
 * @throws InvalidInputError when there are none; the signal's reason when it is aborted
 */
export async function reportShards(
  sources: string | readonly string[],
  { bins = 24, skipBrokenShards = false, signal, onProgress }: ShardReportOptions = {},
): Promise<ShardReport> {
  const set = await ShardSet.open({
    sources,
    onBadSample: "skip",
    maxBadRate: 1,
    brokenShards: skipBrokenShards ? "skip" : "read",
    signal,
  });
  const { shards } = set;
  try {
    const members = new Map<string, MemberTally>();
    const fields = new Map<string, ScoreSummary>();
    let bytes = 0;
    await each(shards, signal, (shard, i) => {
      const table = ShardTable.load(shard.path);
      bytes += statSync(shard.path).size;
      tallyMembers(table, members);
      for (const [name, values] of table.columns) {
        const summary = fields.get(name) ?? new ScoreSummary();
        for (const value of values) summary.add(value);
        fields.set(name, summary);
      }
      onProgress?.(i + 1, shards.length);
    });
    const samples = shards.reduce((sum, { count }) => sum + count, 0);
    const histograms = new Map([...fields.keys()].map((name) => [name, new Array<number>(bins).fill(0)]));
    await each(shards, signal, ({ path }) => {
      for (const [name, values] of ShardTable.load(path).columns)
        countInto(histograms.get(name)!, values, fields.get(name)!);
    });
    return {
      paths: shards.map(({ path }) => path),
      shards: shards.length,
      bytes,
      samples,
      members: Object.fromEntries([...members].map(([extension, tally]) => [extension, tally.report()])),
      fields: Object.fromEntries(
        [...fields].map(([name, summary]) => {
          // Samples of shards that have the field nowhere lack it, too.
          const missing = samples - summary.count;
          return [name, { ...summary.toJSON(), missing, histogram: histograms.get(name)! }];
        }),
      ),
      problems: set.problems.slice(0, MOST_PROBLEMS).map(problemText),
      problemCount: set.problems.length,
      broken: skipBrokenShards ? 0 : set.problems.filter(saysCut).length,
    };
  } finally {
    set.close();
  }
}

/** Visits shards one by one and yields to the event loop between them. */
async function each(
  shards: readonly ShardInfo[],
  signal: AbortSignal | undefined,
  visit: (shard: ShardInfo, index: number) => void,
): Promise<void> {
  for (const [i, shard] of shards.entries()) {
    await nextTurn();
    signal?.throwIfAborted();
    visit(shard, i);
  }
}

/** Members of one extension, summed up over samples. */
class MemberTally {
  count = 0;
  bytes = 0;
  readonly #dtypes = new Set<string>();
  /** Shapes without the first axis. */
  readonly #rows = new Set<string>();
  readonly #lengths = new ScoreSummary();

  add(sizeBytes: number, array: { dtype: string; shape: readonly number[] } | null): void {
    this.count++;
    this.bytes += sizeBytes;
    if (array === null) return;
    this.#dtypes.add(array.dtype);
    if (this.#rows.size < MOST_SHAPES) this.#rows.add(array.shape.slice(1).join(" x "));
    this.#lengths.add(array.shape[0] ?? 0);
  }

  report(): MemberReport {
    const { count, bytes } = this;
    const { min, mean, max } = this.#lengths;
    if (this.#lengths.count === 0) return { count, bytes };
    const first = min === max ? String(min) : "n";
    const rows = this.#rows.size === 1 ? [...this.#rows][0]! : `${this.#rows.size} shapes`;
    return {
      count,
      bytes,
      arrays: {
        dtype: [...this.#dtypes].join(", "),
        shape: rows === "" ? first : `${first} x ${rows}`,
        ...(min !== max && { lengths: { min, mean, max } }),
      },
    };
  }
}

function tallyMembers(table: ShardTable, members: Map<string, MemberTally>): void {
  for (const extension of table.extensions) {
    const tally = members.get(extension) ?? new MemberTally();
    members.set(extension, tally);
    for (let sample = 0; sample < table.count; sample++) {
      const member = table.member(sample, extension);
      if (member) tally.add(member.size, table.array(sample, extension));
    }
  }
}

function countInto(histogram: number[], values: Float64Array, { min, max }: ScoreSummary): void {
  const width = (max - min) / histogram.length;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    const bin = width > 0 ? Math.min(Math.floor((value - min) / width), histogram.length - 1) : histogram.length >> 1;
    histogram[bin] = histogram[bin]! + 1;
  }
}
