/** The order in which the samples of a data set come, as its options say. */
import { InvalidInputError, invalid } from "../../errors.js";
import { type SampleOrder, ShuffledOrder } from "../shards/order.js";
import type { Selection, ShardSet } from "../shards/shard-set.js";
import { openShards } from "./open-shards.js";
import { BlockOrder, chunkedOrder, WeightedOrder } from "./samplers.js";
import type { TrainingSetOptions } from "./training-set-options.js";

/** The order of the passing samples: of all as one, or of each root by itself, mixed by weight. */
export async function orderOf(
  selection: Selection,
  options: TrainingSetOptions,
  shards: ShardSet,
  roots: readonly string[],
  { seed, batchSize }: { seed: number; batchSize: number },
): Promise<SampleOrder> {
  const { shardSizes } = selection;
  const make = (sizes: readonly number[], seed: number): SampleOrder => {
    switch (options.sampler) {
      case "shuffled":
        return new ShuffledOrder({ shardSizes: sizes, seed, windowShards: options.windowShards });
      case "chunked":
        return chunkedOrder({ count: sizes.reduce((a, b) => a + b, 0), chunkSize: options.samplerChunksize, seed });
      case "shard_exclusive":
        return new BlockOrder({ blockLengths: sizes, seed, streams: options.streams, batchSize });
      case "sequential":
        return new BlockOrder({ blockLengths: sizes, seed, shuffle: false });
    }
  };
  const { weights } = options;
  if (weights === undefined) return make(shardSizes, seed);
  if (weights.length !== roots.length)
    throw invalid("weights", `one number for each of the ${roots.length} roots`, weights);
  // A root's shards follow one another: count how many each root gave.
  const counts: number[] = [];
  for (const root of roots) {
    const own = await openShards([root], options, {});
    counts.push(own.shards.length);
    own.close();
  }
  let at = 0;
  const parts = counts.map((count, i) => {
    const sizes = shardSizes.slice(at, at + count);
    at += count;
    return { weight: weights[i]!, order: make(sizes, seed + i) };
  });
  if (at !== shards.shards.length)
    throw new InvalidInputError(`${roots.join(", ")}: the shards changed while they were opened`);
  return new WeightedOrder({ parts, seed, length: selection.length });
}
