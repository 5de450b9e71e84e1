/** From shards to training samples: bins, filters, captions, latents, orders. */
export { type BinEdges, type BinIdentity, binCacheName, readBinCache, writeBinCache } from "./bin-cache.js";
export {
  BIN_STRATEGIES,
  type BinOptions,
  type BinValueOptions,
  binLevels,
  binValue,
  computeBins,
  nominalBins,
} from "./bins.js";
export { canBeSynthetic, drawsSynthetic, type SampleScores, SCORE_MODES, type ScoreMode } from "./caption-source.js";
export { cleanCaption } from "./clean-caption.js";
export { type FilteredFields, type FilterOptions, passesFilter } from "./filters.js";
export { type IndexOptions, type IndexResult, indexShards } from "./index-shards.js";
export { LATENT_DTYPES, type LatentDtype, sampleLatents } from "./latents.js";
export type { OpenHooks } from "./open-shards.js";
export {
  BlockOrder,
  type BlockOrderOptions,
  chunkedOrder,
  WeightedOrder,
  type WeightedOrderOptions,
} from "./samplers.js";
export {
  type CountedShard,
  gatherStatistics,
  ScoreSummary,
  type Statistics,
  type StatisticsOptions,
} from "./statistics.js";
export { type PlannedSample, TrainingSet } from "./training-set.js";
export type { TrainingSetOptions } from "./training-set-options.js";
