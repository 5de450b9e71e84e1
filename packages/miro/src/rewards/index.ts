/** Scorers: what scores pictures, and what is done with the scores. */
export {
  type BestOf,
  type BestOfOptions,
  type BestOfResult,
  bestOf,
  bestOfSchema,
  type RankedImage,
  type ScoreProgress,
} from "./best-of.js";
export { colorfulnessScore, haslerColorfulness, laplacianEnergy, sharpnessScore } from "./measured.js";
export { loadScorer, registerScorer, scorerSpec, scorerSpecs } from "./registry.js";
export { type ScoredFile, type ScoreFilesOptions, scoreFiles } from "./score-files.js";
export type { LoadScorerOptions, Scorer, ScorerModel, ScorerSpec } from "./scorer.js";
