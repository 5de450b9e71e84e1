/** Shards: tar archives of samples, their index, and reading from them. */
export {
  Permutation,
  type Sampler as SampleOrder,
  SequentialOrder,
  ShuffledOrder,
  type ShuffledOrderOptions,
  stepPosition,
} from "./order.js";
export type { FileFingerprint } from "./positional-file.js";
export { groupSamples, type Sample, splitMemberName, type TarMember } from "./sample-key.js";
export { problemText, ShardError, type ShardProblem } from "./shard-error.js";
export { TarFile, type TarFileOptions } from "./tar-file.js";
export { type TarSummary, TarWriter, type TarWriterOptions } from "./tar-writer.js";
