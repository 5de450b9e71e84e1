/**
 * In which order samples are visited: a pure function of (seed, epoch, position). It knows nothing of workers,
 * processes and accumulation, and any position is found at once, so a run goes on in mid-epoch without reading what it
 * has consumed.
 *
 * Whole-set order reads from every shard all the time. Where shards are many and the disk is slow at jumping,
 * `windowShards` keeps reading local: each epoch shuffles the shards, takes that many at a time, and shuffles all
 * samples of those.
 */
import { z } from "zod";
import { invalid } from "../../errors.js";
import { field, type OptionsOf, parseOptions, readOnly } from "../../options.js";
import { Permutation } from "../../random/permutation.js";

/** An order of samples. */
export interface SampleOrder {
  /** Samples that one epoch visits. */
  readonly length: number;
  /**
   * The sample at a position of an epoch.
   * @param epoch from 0 on
   * @param position from 0 to length - 1
   */
  index(epoch: number, position: number): number;
}

const shuffledOptions = z.strictObject({
  /** How many samples each shard has; samples are numbered through them. */
  shardSizes: field(readOnly(z.array(z.int().min(0))), {
    expected: "an array of non-negative integers",
    help: "how many samples each shard has; samples are numbered through them",
  }),
  /** Chooses the order; each epoch has another one. Default: 0. */
  seed: field(z.int().min(0).default(0), {
    expected: "a non-negative integer",
    help: "chooses the order; each epoch has another one",
  }),
  /** How many shards are mixed at a time; fewer make reading local. Default: all. */
  windowShards: field(z.union([z.int().positive(), z.literal("all")]).default("all"), {
    expected: 'a positive integer or "all"',
    help: "how many shards are mixed at a time; fewer make reading local",
  }),
});

/** Options of {@link ShuffledOrder}. */
export type ShuffledOrderOptions = OptionsOf<typeof shuffledOptions>;

/** Each sample once an epoch, in an order drawn anew for each epoch. */
export class ShuffledOrder implements SampleOrder {
  readonly length: number;
  readonly seed: number;
  readonly #sizes: readonly number[];
  /** Number of the first sample of each shard. */
  readonly #starts: Float64Array;
  readonly #window: number;
  #epoch: EpochLayout | null = null;

  constructor(options: ShuffledOrderOptions) {
    const { shardSizes, seed, windowShards } = parseOptions(shuffledOptions, options);
    this.seed = seed;
    this.#sizes = shardSizes;
    this.#starts = sums(shardSizes);
    this.length = this.#starts[shardSizes.length]!;
    this.#window = windowShards === "all" ? shardSizes.length : windowShards;
  }

  index(epoch: number, position: number): number {
    if (!(Number.isInteger(position) && position >= 0 && position < this.length))
      throw invalid("position", `an integer from 0 to ${this.length - 1}`, position);
    if (this.#window >= this.#sizes.length) {
      if (this.#epoch?.epoch !== epoch) this.#epoch = this.#wholeEpoch(epoch);
      return this.#epoch.permutations[0]!.at(position);
    }
    if (this.#epoch?.epoch !== epoch) this.#epoch = this.#windowedEpoch(epoch);
    const { shards, starts, permutations } = this.#epoch;
    const window = Math.floor(upperBound(starts, position) / this.#window);
    const first = window * this.#window;
    const last = Math.min(first + this.#window, shards.length);
    permutations[window] ??= new Permutation(starts[last]! - starts[first]!, "windowSamples", [
      this.seed,
      epoch,
      window,
    ]);
    const shuffled = starts[first]! + permutations[window].at(position - starts[first]!);
    const place = upperBound(starts, shuffled);
    return this.#starts[shards[place]!]! + (shuffled - starts[place]!);
  }

  #wholeEpoch(epoch: number): EpochLayout {
    const permutations = [new Permutation(this.length, "epochSamples", [this.seed, epoch, 0])];
    return { epoch, shards: [], starts: this.#starts, permutations };
  }

  #windowedEpoch(epoch: number): EpochLayout {
    const permutation = new Permutation(this.#sizes.length, "epochShards", [this.seed, epoch, 0]);
    const shards = this.#sizes.map((_, i) => permutation.at(i));
    return { epoch, shards, starts: sums(shards.map((shard) => this.#sizes[shard]!)), permutations: [] };
  }
}

interface EpochLayout {
  epoch: number;
  /** The shards in this epoch's order. */
  shards: readonly number[];
  /** Position where each of them begins, and the length. */
  starts: Float64Array;
  /** One for each window, made when first needed. */
  permutations: Permutation[];
}

/** From a step on, counted from 0, each step has so many samples. */
export interface BatchSpan {
  /** The first step. */
  from: number;
  batchSize: number;
}

/**
 * Where a training step begins: epochs are whole numbers of batches, what is left over is left out.
 * @param batchSize samples of a step; of a run whose batches have changed, every size with the step that it began at,
 *   the first from step 0 on. A size goes on behind the last sample of the one before
 * @param length samples of an epoch
 */
export function stepPosition(
  step: number,
  batchSize: number | readonly BatchSpan[],
  length: number,
): { epoch: number; position: number } {
  const spans = typeof batchSize === "number" ? [{ from: 0, batchSize }] : batchSize;
  const last = spans.at(-1)!.batchSize;
  if (last > length) throw invalid("batchSize", `at most ${length}, the samples of the data set`, last);
  let epoch = 0;
  let position = 0;
  for (const [i, { from, batchSize }] of spans.entries()) {
    if (from > step) break;
    const steps = Math.min(step, spans[i + 1]?.from ?? step) - from;
    // Data may have been more once: a batch of all that there are now is an epoch.
    const whole = Math.max(1, Math.floor(length / batchSize));
    /** Steps that end the epoch which the size before has begun. */
    const rest = Math.floor((length - position) / batchSize);
    if (steps < rest) position += steps * batchSize;
    else {
      epoch += 1 + Math.floor((steps - rest) / whole);
      position = ((steps - rest) % whole) * batchSize;
    }
  }
  return { epoch, position };
}

/** Samples of all steps before this one. */
export function samplesBefore(step: number, spans: readonly BatchSpan[]): number {
  const ends = spans.map((_, i) => Math.min(step, spans[i + 1]?.from ?? step));
  return spans.reduce((sum, { from, batchSize }, i) => sum + Math.max(0, ends[i]! - from) * batchSize, 0);
}

/** 0, a[0], a[0] + a[1], … */
export function sums(values: readonly number[]): Float64Array {
  const result = new Float64Array(values.length + 1);
  for (const [i, value] of values.entries()) result[i + 1] = result[i]! + value;
  return result;
}

/** The last i with starts[i] <= value; of equal ones the last, so that empty parts are stepped over. */
export function upperBound(starts: Float64Array, value: number): number {
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (starts[middle]! <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}
