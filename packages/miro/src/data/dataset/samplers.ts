/**
 * Orders of samples: which sample comes at which position of an epoch. Every order is a pure function of (seed, epoch,
 * position), the same in every process and whatever was read before, so a run can begin at any position and any rank
 * can compute its own share.
 *
 * In one epoch every sample comes exactly once (with weights: as often as its data set's weight says).
 */
import { invalid } from "../../errors.js";
import { Permutation } from "../../random/permutation.js";
import { type SampleOrder, sums, upperBound } from "../shards/order.js";

/** What a data set of several archives looks like to an order: samples 0 … N-1, those of the first block first. */
export interface BlockOrderOptions {
  /** Samples of each block. */
  blockLengths: readonly number[];
  /** Decides the order. */
  seed: number;
  /** False keeps blocks and samples in their order. */
  shuffle?: boolean | undefined;
  /**
   * Readers that each stay within blocks of their own: batch i of the epoch comes from stream i mod `streams`. With R
   * ranks of W workers and R · W streams, rank r takes the batches r, r + R, r + 2R, …, and each of its workers reads
   * few blocks at a time.
   */
  streams?: number | undefined;
  /** Samples of a batch, needed with several streams. */
  batchSize?: number | undefined;
}

/** The order of an epoch: its blocks, where each begins, and the order of the samples within the blocks met so far. */
interface DrawnEpoch {
  number: number;
  blocks: number[];
  starts: Float64Array;
  within: Permutation[];
}

/**
 * Blocks in an order drawn anew in each epoch, samples shuffled within their block. With blocks that are shards,
 * reading stays local.
 *
 * Streams get equal numbers of samples: the shuffled sequence of blocks is cut into equal parts, so that neighbouring
 * streams may share a block. When the streams run out of whole batches, what they have left is put together into
 * further batches.
 */
export class BlockOrder implements SampleOrder {
  readonly length: number;
  readonly #starts: Float64Array;
  #epoch: DrawnEpoch | null = null;
  readonly #options: BlockOrderOptions;

  constructor(options: BlockOrderOptions) {
    this.#options = options;
    const { blockLengths, streams = 1, batchSize } = options;
    if (streams > 1 && !(batchSize !== undefined && batchSize >= 1))
      throw invalid("batchSize", "at least 1 where there are several streams", batchSize);
    this.#starts = sums(blockLengths);
    this.length = this.#starts.at(-1)!;
  }

  index(epoch: number, position: number): number {
    checkPosition(position, this.length);
    if (this.#epoch?.number !== epoch) this.#epoch = this.#drawn(epoch);
    return this.#sampleAt(this.#epoch, this.#sequencePosition(position));
  }

  /** Where in the sequence of blocks a position of the epoch lies. */
  #sequencePosition(position: number): number {
    const { streams = 1, batchSize = 1 } = this.#options;
    if (streams === 1) return position;
    const cut = (stream: number) => Math.floor((stream * this.length) / streams);
    const rounds = Math.floor(Math.floor(this.length / streams) / batchSize);
    const whole = rounds * streams * batchSize;
    if (position < whole) {
      const batch = Math.floor(position / batchSize);
      return cut(batch % streams) + Math.floor(batch / streams) * batchSize + (position % batchSize);
    }
    let rest = position - whole;
    for (let stream = 0; ; stream++) {
      const left = cut(stream + 1) - cut(stream) - rounds * batchSize;
      if (rest < left) return cut(stream) + rounds * batchSize + rest;
      rest -= left;
    }
  }

  #sampleAt({ number, blocks, starts, within }: DrawnEpoch, place: number): number {
    const at = upperBound(starts, place);
    const block = blocks[at]!;
    const i = place - starts[at]!;
    if (this.#options.shuffle === false) return this.#starts[block]! + i;
    within[block] ??= new Permutation(this.#options.blockLengths[block]!, "blockSamples", [
      this.#options.seed,
      number,
      block,
    ]);
    return this.#starts[block]! + within[block].at(i);
  }

  /** The order of the blocks in an epoch. */
  #drawn(epoch: number): DrawnEpoch {
    const { blockLengths, seed, shuffle } = this.#options;
    const order = new Permutation(blockLengths.length, "epochBlocks", [seed, epoch, 0]);
    const blocks = blockLengths.map((_, i) => (shuffle === false ? i : order.at(i)));
    return { number: epoch, blocks, starts: sums(blocks.map((block) => blockLengths[block]!)), within: [] };
  }
}

/**
 * The published chunked sampler's idea without its faults: chunks of consecutive samples, in an order drawn anew in
 * each epoch.
 */
export function chunkedOrder({
  count,
  chunkSize,
  seed,
}: {
  count: number;
  chunkSize: number;
  seed: number;
}): BlockOrder {
  const blockLengths = Array.from({ length: Math.ceil(count / chunkSize) }, (_, i) =>
    Math.min(chunkSize, count - i * chunkSize),
  );
  return new BlockOrder({ blockLengths, seed });
}

/** Options of {@link WeightedOrder}. */
export interface WeightedOrderOptions {
  /** Data sets, one after another in the numbering of samples. */
  parts: readonly { order: SampleOrder; weight: number }[];
  /** Decides how positions are dealt out. */
  seed: number;
  /** Positions of an epoch; by default the number of samples of all data sets. */
  length?: number | undefined;
}

/** Positions that are dealt out at a time. */
const DEAL = 1024;

/**
 * Several data sets mixed by weight: of each 1,024 consecutive positions (in which order, is drawn) every data set gets
 * its share to within one. A data set that comes to its end begins its next epoch, so that each is walked evenly
 * whatever its weight.
 *
 * Here epochs follow one another without a seam: position p of epoch e is position e · length + p of one endless
 * mixture.
 */
export class WeightedOrder implements SampleOrder {
  readonly length: number;
  readonly #offsets: Float64Array;
  readonly #shares: number[];
  #deal: { number: number; parts: Uint8Array } | null = null;
  readonly #options: WeightedOrderOptions;

  constructor(options: WeightedOrderOptions) {
    this.#options = options;
    const { parts } = options;
    const total = parts.reduce((sum, { weight }) => sum + weight, 0);
    for (const { weight, order } of parts)
      if (!(weight >= 0) || (weight > 0 && order.length === 0) || !(total > 0) || !Number.isFinite(total))
        throw invalid("weight", "numbers of at least 0, not all 0, and 0 for an empty data set", weight);
    if (parts.length > 255) throw invalid("parts", "at most 255 data sets", parts.length);
    this.#offsets = sums(parts.map(({ order }) => order.length));
    this.length = options.length ?? this.#offsets.at(-1)!;
    this.#shares = parts.map(({ weight }) => weight / total);
  }

  index(epoch: number, position: number): number {
    checkPosition(position, this.length);
    const at = epoch * this.length + position;
    const deal = Math.floor(at / DEAL);
    if (this.#deal?.number !== deal) this.#deal = { number: deal, parts: this.#dealt(deal) };
    const { parts } = this.#deal;
    const part = parts[at % DEAL]!;
    let drawn = this.#before(part, deal);
    for (let i = 0; i < at % DEAL; i++) if (parts[i] === part) drawn++;
    const { order } = this.#options.parts[part]!;
    return this.#offsets[part]! + order.index(Math.floor(drawn / order.length), drawn % order.length);
  }

  /**
   * Positions that a data set has had before a deal: the rounded cumulative shares, whose differences sum to the deal.
   */
  #before(part: number, deal: number): number {
    const cumulative = (last: number) =>
      Math.round(deal * DEAL * this.#shares.slice(0, last).reduce((sum, share) => sum + share, 0));
    const end = part === this.#shares.length - 1 ? deal * DEAL : cumulative(part + 1);
    return end - cumulative(part);
  }

  #dealt(deal: number): Uint8Array {
    const parts = new Uint8Array(DEAL);
    let at = 0;
    for (let part = 0; part < this.#shares.length; part++) {
      const count = this.#before(part, deal + 1) - this.#before(part, deal);
      parts.fill(part, at, at + count);
      at += count;
    }
    const places = new Permutation(DEAL, "mixture", [this.#options.seed, 0, deal]);
    return parts.map((_, i) => parts[places.at(i)]!);
  }
}

function checkPosition(position: number, length: number): void {
  if (!(Number.isInteger(position) && position >= 0 && position < length))
    throw invalid("position", `an integer from 0 to ${length - 1}`, position);
}
