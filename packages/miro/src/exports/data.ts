/**
 * `miro-t2i/data`: from raw samples to training batches. Shards and their index, data preparation, the training set
 * with its bins, filters and orders, and pictures decoded, resized and cropped as the published preparation does.
 */
import "../unbundled.js";

export { BIN_STRATEGIES, binLevels, computeBins } from "../data/dataset/bins.js";
export { SCORE_MODES, type ScoreMode } from "../data/dataset/caption-source.js";
export { cleanCaption } from "../data/dataset/clean-caption.js";
export type { FilterOptions } from "../data/dataset/filters.js";
export { type IndexOptions, type IndexResult, indexShards } from "../data/dataset/index-shards.js";
export {
  BlockOrder,
  type BlockOrderOptions,
  WeightedOrder,
  type WeightedOrderOptions,
} from "../data/dataset/samplers.js";
export {
  type CountedShard,
  gatherStatistics,
  ScoreSummary,
  type Statistics,
  type StatisticsOptions,
} from "../data/dataset/statistics.js";
export { type PlannedSample, TrainingSet } from "../data/dataset/training-set.js";
export type { TrainingSetOptions } from "../data/dataset/training-set-options.js";
export type { PreprocessOptions, PreprocessProgress, Stage } from "../data/preprocess/options.js";
export { type PreprocessResult, preprocess } from "../data/preprocess/preprocess.js";
export { readScores, type ScoreRow, type ScoreTable } from "../data/preprocess/scores-csv.js";
export type { ShardReport } from "../data/preprocess/shard-work.js";
export {
  type LoaderStats,
  type RowRequest,
  type ShardBatch,
  ShardLoader,
  type ShardLoaderOptions,
} from "../data/shards/loader.js";
export {
  type BatchSpan,
  type SampleOrder,
  ShuffledOrder,
  type ShuffledOrderOptions,
  stepPosition,
} from "../data/shards/order.js";
export { type PrepareTablesOptions, prepareTables } from "../data/shards/prepare-tables.js";
export { groupSamples, type Sample, type TarMember } from "../data/shards/sample-key.js";
export { ShardError, type ShardProblem } from "../data/shards/shard-error.js";
export {
  type BadSamplePolicy,
  Selection,
  type SelectOptions,
  type ShardInfo,
  ShardSet,
  type ShardSetOptions,
  tarsIn,
} from "../data/shards/shard-set.js";
export { TarFile, type TarFileOptions } from "../data/shards/tar-file.js";
export { type TarSummary, TarWriter, type TarWriterOptions } from "../data/shards/tar-writer.js";
export {
  readWidsIndex,
  type WidsIndex,
  type WriteWidsIndexOptions,
  writeWidsIndex,
} from "../data/shards/wids-index.js";
export { type CropRounding, centreSquare, cropCentre, cropOffset, resizeThenCrop } from "../pictures/crop.js";
export {
  type DecodedFormat,
  type DecodeOptions,
  decodeImage,
  IMAGE_EXTENSIONS,
  ImageError,
  type ImageProblem,
  imageFormat,
  MAX_PIXELS,
} from "../pictures/decode.js";
export { type PassOrder, type PictureSize, type ResizeFilter, resize } from "../pictures/resize.js";
