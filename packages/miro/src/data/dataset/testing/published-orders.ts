/**
 * The orders in which the published code's samplers visit a data set, faults included, for those who must repeat a
 * published run:
 *
 *   shard exclusive   ranks own fixed contiguous shards for all epochs; the last worker owns the remainder, most of
 *                     which is cut off, while the others repeat their first batch
 *   chunked           ranks own fixed contiguous ranges, shuffled within chunks; epoch 0 leaves the chunks in order
 *   local             contiguous blocks, padded by repeating the beginning
 *
 * `samplers.ts` has orders without these faults. Each function gives one rank's indices of one epoch.
 */
import { Generator, randperm, scope } from "@miro-t2i/torch";
import { PythonRandom } from "../../../random/python.js";

/** Whose share of an epoch is asked for. */
export interface RankOptions {
  ranks: number;
  /** 0 … ranks - 1. */
  rank: number;
  seed: number;
  epoch: number;
  shuffle: boolean;
}

export interface ShardExclusiveOptions extends RankOptions {
  /** Samples of each shard. */
  shardLengths: readonly number[];
  /** Loader workers of each rank; the loader hands batch i to worker i mod workers. */
  workers: number;
  /** Samples of a batch of one rank. */
  batchSize: number;
}

/** The published `ShardExclusiveSampler`. */
export function publishedShardExclusive(options: ShardExclusiveOptions): number[] {
  const { shardLengths, ranks, rank, batchSize, shuffle } = options;
  const workers = Math.max(1, options.workers);
  const random = new PythonRandom(options.seed + options.epoch);
  const starts = [0];
  for (const length of shardLengths) starts.push(starts.at(-1)! + length);
  const [first, end] = part(shardLengths.length, ranks, rank);
  const shards = random.shuffle(range(first, end));
  const streams: number[][] = [];
  for (let worker = 0; worker < workers; worker++) {
    const own = shards.slice(...part(shards.length, workers, worker));
    if (shuffle) random.shuffle(own);
    const samples = (shard: number) => range(starts[shard]!, starts[shard + 1]!);
    streams.push(own.flatMap((shard) => (shuffle ? random.shuffle(samples(shard)) : samples(shard))));
  }
  const batches = Math.max(
    ...range(0, ranks).map((r) => {
      const [from, to] = part(shardLengths.length, ranks, r);
      return Math.floor(Math.floor((starts[to]! - starts[from]!) / workers) / batchSize);
    }),
  );
  const order: number[] = [];
  for (let batch = 0; batch < batches; batch++)
    for (const stream of streams) {
      const start = batch * batchSize;
      if (start + batchSize <= stream.length) order.push(...stream.slice(start, start + batchSize));
      else if (stream.length > 0) order.push(...range(0, batchSize).map((i) => stream[i % stream.length]!));
    }
  return order;
}

/** Part i of n things divided among `parts`, the last with what remains over. */
function part(n: number, parts: number, i: number): [number, number] {
  const size = Math.floor(n / parts);
  return [i * size, i < parts - 1 ? (i + 1) * size : n];
}

export interface ChunkedOptions extends RankOptions {
  /** Samples of the data set. */
  count: number;
  chunkSize: number;
}

/** `DistributedChunkedSampler` of the PyPI package `wids`. */
export function publishedChunked({ count, chunkSize, ranks, rank, seed, epoch, shuffle }: ChunkedOptions): number[] {
  const random = new PythonRandom(BigInt(seed) + 1289738273n * BigInt(epoch));
  const share = Math.ceil(count / ranks);
  const end = Math.min((rank + 1) * share, count);
  const chunks: [number, number][] = [];
  for (let start = rank * share; start < end; start += chunkSize)
    chunks.push([start, Math.min(start + chunkSize, end)]);
  if (shuffle && epoch > 0) random.shuffle(chunks);
  return chunks.flatMap((chunk) => (shuffle ? random.shuffle(range(...chunk)) : range(...chunk)));
}

export interface LocalOptions extends RankOptions {
  /** Samples of the data set. */
  count: number;
  /** Cut what does not divide by the ranks; otherwise the beginning is repeated. */
  dropLast: boolean;
}

/** The published `DistributedLocalSampler`: each rank a contiguous block. */
export function publishedLocal({ count, ranks, rank, seed, epoch, shuffle, dropLast }: LocalOptions): number[] {
  const share = dropLast && count % ranks !== 0 ? Math.ceil((count - ranks) / ranks) : Math.ceil(count / ranks);
  const all = shuffle
    ? scope(() => {
        const generator = new Generator().manualSeed(seed + epoch);
        return Array.from(randperm(count, { generator }).data() as BigInt64Array, Number);
      })
    : range(0, count);
  return range(rank * share, (rank + 1) * share).map((i) => all[i % count]!);
}

function range(start: number, end: number): number[] {
  return Array.from({ length: Math.max(0, end - start) }, (_, i) => start + i);
}
