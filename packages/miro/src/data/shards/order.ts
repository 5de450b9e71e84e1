/**
 * In which order samples are visited: a pure function of (seed, epoch, position). It knows nothing of workers, processes and
 * accumulation, and any position is found at once, so a run goes on in mid-epoch without reading what it has consumed.
 *
 * A permutation of n numbers needs no memory: a Feistel network (Luby and Rackoff, 1988) permutes the next power of four, and
 * what falls outside is sent through again until it falls inside ("cycle walking", Black and Rogaway, 2002).
 *
 * Whole-set order reads from every shard all the time. Where shards are many and the disk is slow at jumping, `windowShards` keeps
 * reading local: each epoch shuffles the shards, takes that many at a time, and shuffles all samples of those.
 */
import { z } from "zod";
import { invalid } from "../../errors.js";
import { field, parseOptions } from "../../options.js";

/** An order of samples. */
export interface Sampler {
  /** Samples that one epoch visits. */
  readonly length: number;
  /**
   * The sample at a position of an epoch.
   * @param epoch from 0 on
   * @param position from 0 to length - 1
   */
  index(epoch: number, position: number): number;
}

const ROUNDS = 6;

/** Mixes 32 bits (the finaliser of MurmurHash3). */
function mix(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A permutation of the integers from 0 to n - 1. */
export class Permutation {
  readonly #half: number;
  readonly #keys: Uint32Array;

  /**
   * @param n from 0 to 2⁵²
   * @param key non-negative integers below 2⁵³ that choose the permutation
   */
  constructor(
    readonly n: number,
    key: readonly number[],
  ) {
    let bits = 1;
    while (4 ** bits < n) bits++;
    this.#half = 2 ** bits;
    let state = 0x9e3779b9;
    for (const part of key) {
      state = mix(state ^ (part >>> 0));
      state = mix(state + 0x7f4a7c15 + Math.floor(part / 2 ** 32));
    }
    this.#keys = Uint32Array.from({ length: ROUNDS }, (_, round) => mix(state + Math.imul(round + 1, 0x9e3779b9)));
  }

  /** Where `i` is sent. */
  at(i: number): number {
    if (!(i >= 0 && i < this.n)) throw new RangeError(`position ${i} of a permutation of ${this.n}`);
    const half = this.#half;
    let value = i;
    do {
      let left = Math.floor(value / half);
      let right = value % half;
      for (let round = 0; round < ROUNDS; round++) {
        // `half` is a power of two of at most 2²⁶: the lower bits of the mixed word are kept.
        const next = (left ^ (mix(right ^ this.#keys[round]!) & (half - 1))) >>> 0;
        left = right;
        right = next;
      }
      value = left * half + right;
    } while (value >= this.n);
    return value;
  }
}

const shuffledOptions = z.strictObject({
  shardSizes: field(
    z.array(z.int().min(0)).readonly(),
    "an array of non-negative integers",
    "how many samples each shard has; samples are numbered through them",
  ),
  seed: field(z.int().min(0).default(0), "a non-negative integer", "chooses the order; each epoch has another one"),
  windowShards: field(
    z.union([z.int().positive(), z.literal("all")]).default("all"),
    'a positive integer or "all"',
    "how many shards are mixed at a time; fewer make reading local",
  ),
});

export type ShuffledOrderOptions = z.input<typeof shuffledOptions>;

/** Each sample once an epoch, in an order drawn anew for each epoch. */
export class ShuffledOrder implements Sampler {
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
      invalid("position", `an integer from 0 to ${this.length - 1}`, position);
    if (this.#window >= this.#sizes.length) {
      if (this.#epoch?.epoch !== epoch) this.#epoch = this.wholeEpoch(epoch);
      return this.#epoch.permutations[0]!.at(position);
    }
    if (this.#epoch?.epoch !== epoch) this.#epoch = this.windowedEpoch(epoch);
    const { shards, starts, permutations } = this.#epoch;
    const window = Math.floor(upperBound(starts, position) / this.#window);
    const first = window * this.#window;
    const last = Math.min(first + this.#window, shards.length);
    permutations[window] ??= new Permutation(starts[last]! - starts[first]!, [this.seed, epoch, window, 2]);
    const shuffled = starts[first]! + permutations[window].at(position - starts[first]!);
    const place = upperBound(starts, shuffled);
    return this.#starts[shards[place]!]! + (shuffled - starts[place]!);
  }

  private wholeEpoch(epoch: number): EpochLayout {
    const permutations = [new Permutation(this.length, [this.seed, epoch, 0, 1])];
    return { epoch, shards: [], starts: this.#starts, permutations };
  }

  private windowedEpoch(epoch: number): EpochLayout {
    const permutation = new Permutation(this.#sizes.length, [this.seed, epoch, 0, 3]);
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

/** Samples in their stored order, for validation. */
export class SequentialOrder implements Sampler {
  constructor(readonly length: number) {}

  index(_epoch: number, position: number): number {
    if (!(Number.isInteger(position) && position >= 0 && position < this.length))
      invalid("position", `an integer from 0 to ${this.length - 1}`, position);
    return position;
  }
}

/** Where a training step begins: epochs are whole numbers of batches, what is left over is left out. */
export function stepPosition(step: number, batchSize: number, length: number): { epoch: number; position: number } {
  const steps = Math.floor(length / batchSize);
  if (steps === 0) invalid("batchSize", `at most ${length}, the samples of the data set`, batchSize);
  return { epoch: Math.floor(step / steps), position: (step % steps) * batchSize };
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
