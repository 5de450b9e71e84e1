/**
 * `miro-t2i/rewards`: scorers of pictures, what they measure, and what is done with their scores.
 */
import "../unbundled.js";
import "../emoji/register.js";

export { type OpenTensors, openTensors } from "../files/tensor-files.js";
export { Blip, type BlipConfig, type BlipTower } from "../networks/blip.js";
export { Clip, type ClipActivation, type ClipConfig, type ClipTower, ClipVision } from "../networks/clip.js";
export type { Eva02, Eva02Config } from "../networks/eva02.js";
export { JinaClip, type JinaClipConfig } from "../networks/jina-clip.js";
export type { XlmRoberta, XlmRobertaConfig } from "../networks/xlm-roberta.js";
export {
  type BestOf,
  type BestOfOptions,
  type BestOfResult,
  bestOf,
  type RankedImage,
  type ScoreProgress,
} from "../rewards/best-of.js";
export { CLIP_H, CLIP_L, readClipConfig } from "../rewards/clip-config.js";
export { type ClipPixels, clipPixels } from "../rewards/clip-pixels.js";
export { loadClip, loadClipVision } from "../rewards/clip-weights.js";
export type { ColumnsModel, ColumnsScorer } from "../rewards/columns.js";
export {
  IMAGE_REWARD,
  type ImageRewardConfig,
  imageRewardTokenizer,
  loadBlip,
  readImageRewardConfig,
  readImageRewardHead,
} from "../rewards/image-reward.js";
export { JINA_CLIP_V2, type JinaConfig, type LoraConfig, readJinaConfig } from "../rewards/jina-config.js";
export { loadJinaClip } from "../rewards/jina-weights.js";
export { type LinearHead, readLinearHead } from "../rewards/linear-head.js";
export { colorfulnessScore, haslerColorfulness, laplacianEnergy, sharpnessScore } from "../rewards/measured.js";
export { loadRanker, rankerLoader } from "../rewards/ranker.js";
export { loadScorer, registerScorer, scorerSpec, scorerSpecs } from "../rewards/registry.js";
export {
  type ScoredFile,
  type ScoreFilesOptions,
  type ScoreReport,
  scoreFiles,
  scoreFilesWithReport,
} from "../rewards/score-files.js";
export type { ScoreModel } from "../rewards/score-output.js";
export {
  type LoadedScorer,
  type LoadScorerOptions,
  type OwnScorer,
  type ScoreCall,
  type Scorer,
  type ScorerLicense,
  type ScorerMemory,
  type ScorerModel,
  type ScorerPrecision,
  type ScorerRepository,
  type ScorerSpec,
  storedScore,
} from "../rewards/scorer.js";
export { type ListedRepository, type ListedScorer, listScorers } from "../rewards/scorer-list.js";
export type { WeightsPlace } from "../rewards/strict-weights.js";
export { readVqaConfig, type VqaConfig } from "../rewards/vqa-config.js";
export { VQA_WEIGHTS } from "../rewards/vqa-facts.js";
export { cleanVqaCaption, vqaLabels, vqaRow } from "../rewards/vqa-text.js";
export { loadVqa, type VqaNetworks } from "../rewards/vqa-weights.js";
export { type ClipCleaning, ClipTokenizer } from "../text/clip-tokenizer.js";
export { type WordPieceBatch, WordPieceTokenizer } from "../text/wordpiece-tokenizer.js";
