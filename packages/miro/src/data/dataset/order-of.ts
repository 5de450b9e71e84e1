/** The order in which the samples of a data set come, as its options say. */
import { invalid } from "../../errors.js";
import { type SampleOrder, ShuffledOrder } from "../shards/order.js";
import type { Selection, ShardSet } from "../shards/shard-set.js";
import { BlockOrder, chunkedOrder, WeightedOrder } from "./samplers.js";
import type { TrainingSetOptions } from "./training-set-options.js";

/** The order of the passing samples: of all as one, or of each root by itself, mixed by weight. */
export function orderOf(
  selection: Selection,
  options: TrainingSetOptions,
  { shards }: ShardSet,
  { roots, seed, batchSize }: { roots: number; seed: number; batchSize: number },
): SampleOrder {
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
  if (weights.length !== roots) throw invalid("weights", `one number for each of the ${roots} roots`, weights);
  const parts = weights.map((weight, root) => {
    const sizes = shardSizes.filter((_, shard) => shards[shard]!.source === root);
    return { weight, order: make(sizes, seed + root) };
  });
  return new WeightedOrder({ parts, seed, length: selection.length });
}
