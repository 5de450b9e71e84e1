/**
 * `miro-t2i/rewards`: scorers of pictures, what they measure, and what is done with their scores.
 */
import "../unbundled.js";
import "../emoji/register.js";

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
  CLIP_H,
  CLIP_L,
  type ClipPixels,
  cleanVqaCaption,
  clipPixels,
  colorfulnessScore,
  haslerColorfulness,
  IMAGE_REWARD,
  type ImageRewardConfig,
  imageRewardTokenizer,
  JINA_CLIP_V2,
  type JinaConfig,
  type LinearHead,
  type ListedRepository,
  type ListedScorer,
  type LoadedScorer,
  type LoadScorerOptions,
  type LoraConfig,
  laplacianEnergy,
  listScorers,
  loadBlip,
  loadClip,
  loadClipVision,
  loadJinaClip,
  loadScorer,
  loadVqa,
  type OpenTensors,
  openTensors,
  type RankedImage,
  readClipConfig,
  readImageRewardConfig,
  readImageRewardHead,
  readJinaConfig,
  readLinearHead,
  readVqaConfig,
  registerScorer,
  type ScoreCall,
  type ScoredFile,
  type ScoreFilesOptions,
  type ScoreModel,
  type ScoreProgress,
  type ScoreReport,
  type Scorer,
  type ScorerLicense,
  type ScorerMemory,
  type ScorerModel,
  type ScorerPrecision,
  type ScorerRepository,
  type ScorerSpec,
  scoreFiles,
  scoreFilesWithReport,
  scorerSpec,
  scorerSpecs,
  sharpnessScore,
  storedScore,
  VQA_WEIGHTS,
  type VqaConfig,
  type VqaNetworks,
  vqaLabels,
  vqaRow,
  type WeightsPlace,
} from "../rewards/index.js";
export { loadRanker, rankerLoader } from "../rewards/ranker.js";
export { type ClipCleaning, ClipTokenizer } from "../text/clip-tokenizer.js";
export { type WordPieceBatch, WordPieceTokenizer } from "../text/wordpiece-tokenizer.js";
