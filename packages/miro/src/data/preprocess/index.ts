/** Data preparation: raw samples to scores, latents and text embeddings. */
export type { PreprocessOptions, PreprocessProgress, Stage } from "./options.js";
export { type PreprocessResult, preprocess } from "./preprocess.js";
export { readScores, type ScoreRow, type ScoreTable } from "./scores-csv.js";
export type { ShardReport } from "./shard-work.js";
