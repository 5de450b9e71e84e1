/** Shards: tar archives of samples, their index, their order, and reading batches from them. */
export {
  type LoaderStats,
  type RowRequest,
  type ShardBatch,
  ShardLoader,
  type ShardLoaderOptions,
} from "./loader.js";
export {
  type SampleOrder,
  ShuffledOrder,
  type ShuffledOrderOptions,
  stepPosition,
} from "./order.js";
export type { FileFingerprint } from "./positional-file.js";
export { type PrepareTablesOptions, prepareTables } from "./prepare-tables.js";
export { groupSamples, type Sample, splitMemberName, type TarMember } from "./sample-key.js";
export { CUT_REMEDY, cutProblem, problemText, ShardError, type ShardProblem } from "./shard-error.js";
export {
  type BadSamplePolicy,
  Selection,
  type SelectOptions,
  type ShardInfo,
  ShardSet,
  type ShardSetOptions,
  tarsIn,
} from "./shard-set.js";
export { type ArrayPlace, ShardTable } from "./shard-table.js";
export { type TableProblem, tablePath } from "./table-file.js";
export { TarFile, type TarFileOptions } from "./tar-file.js";
export { type TarSummary, TarWriter, type TarWriterOptions } from "./tar-writer.js";
export {
  checkWidsIndex,
  type IndexedShard,
  readWidsIndex,
  WIDS_INDEX_NAME,
  type WidsIndex,
  type WriteWidsIndexOptions,
  writeWidsIndex,
} from "./wids-index.js";
