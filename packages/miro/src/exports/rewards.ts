/**
 * `miro-t2i/rewards`: scorers of pictures, what they measure, and what is done with their scores.
 */
import "../emoji/register.js";

export {
  type BestOf,
  type BestOfOptions,
  type BestOfResult,
  bestOf,
  colorfulnessScore,
  haslerColorfulness,
  type LoadScorerOptions,
  laplacianEnergy,
  loadScorer,
  type RankedImage,
  registerScorer,
  type ScoredFile,
  type ScoreFilesOptions,
  type ScoreProgress,
  type Scorer,
  type ScorerModel,
  type ScorerSpec,
  scoreFiles,
  scorerSpec,
  scorerSpecs,
  sharpnessScore,
} from "../rewards/index.js";
export { loadRanker } from "../rewards/ranker.js";
