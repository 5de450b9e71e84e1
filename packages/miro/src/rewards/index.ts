/** Scorers: what scores pictures, and what is done with the scores. */

export { type OpenTensors, openTensors } from "../files/tensor-files.js";
export {
  type BestOf,
  type BestOfOptions,
  type BestOfResult,
  bestOf,
  bestOfSchema,
  type RankedImage,
  type ScoreProgress,
  type WeightedScorer,
} from "./best-of.js";
export { CLIP_H, CLIP_L, readClipConfig } from "./clip-config.js";
export { type ClipPixels, clipPixels } from "./clip-pixels.js";
export { loadClip, loadClipVision } from "./clip-weights.js";
export {
  IMAGE_REWARD,
  type ImageRewardConfig,
  imageRewardTokenizer,
  loadBlip,
  readImageRewardConfig,
  readImageRewardHead,
} from "./image-reward.js";
export { JINA_CLIP_V2, type JinaConfig, type LoraConfig, readJinaConfig } from "./jina-config.js";
export { loadJinaClip } from "./jina-weights.js";
export { type LinearHead, readLinearHead } from "./linear-head.js";
export { colorfulnessScore, haslerColorfulness, laplacianEnergy, sharpnessScore } from "./measured.js";
export { availableMemory, checkMemory, scorerBytes, scorerParameters } from "./memory.js";
export { loadScorer, registerScorer, scorerSpec, scorerSpecs } from "./registry.js";
export {
  type ScoredFile,
  type ScoreFilesOptions,
  type ScoreReport,
  scoreFiles,
  scoreFilesWithReport,
} from "./score-files.js";
export {
  type AskedOptions,
  type AskedPicture,
  askedPictures,
  genevalFolders,
  pictureFiles,
} from "./score-inputs.js";
export type { ScoreModel } from "./score-output.js";
export {
  type LoadedScorer,
  type LoadScorerOptions,
  type ScoreCall,
  type Scorer,
  type ScorerLicense,
  type ScorerMemory,
  type ScorerModel,
  type ScorerPrecision,
  type ScorerRepository,
  type ScorerSpec,
  storedScore,
} from "./scorer.js";
export { type ListedRepository, type ListedScorer, listScorers } from "./scorer-list.js";
export type { WeightsPlace } from "./strict-weights.js";
export { readVqaConfig, type VqaConfig } from "./vqa-config.js";
export { VQA_WEIGHTS } from "./vqa-facts.js";
export { cleanVqaCaption, vqaLabels, vqaRow } from "./vqa-text.js";
export { loadVqa, type VqaNetworks } from "./vqa-weights.js";
