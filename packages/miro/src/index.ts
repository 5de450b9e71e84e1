/**
 * `miro-t2i`: pictures from text, on this machine. This root has the pipeline, pictures, scorers and errors; what they
 * are made of is in `miro-t2i/networks`, `/data`, `/training`, `/evaluation` and `/rewards`. Importing loads no native
 * code: libtorch is loaded when the first function needs it.
 */
import "./unbundled.js";
import "./emoji/register.js";

// Errors. Everything that is thrown on purpose is one of them, or the reason of the signal that was given.
export { TorchError } from "@miro-t2i/torch";
export { InterruptedError, InvalidInputError, MiroError } from "./errors.js";
// The pipeline.
export { registerSampler, samplerNames } from "./flow/samplers/index.js";
export type { Method as SamplerMethod } from "./flow/sampling.js";
// Pictures.
export {
  encodeImage,
  type ImageFile,
  type ImageFileOptions,
  type ImageFormat,
  readImageFile,
} from "./pictures/image-files.js";
export { contactSheet, type RgbImage } from "./pictures/rgb.js";
export type { PromptEmbedding } from "./pipeline/conditioning.js";
export type { GenerateOptions, GenerateProgress } from "./pipeline/generate-options.js";
export { GeneratedImage, type SaveOptions } from "./pipeline/generated-image.js";
export { availableDevices } from "./pipeline/loading/device.js";
export type { DownloadProgress } from "./pipeline/loading/hub-repository.js";
export type { FromPretrainedOptions } from "./pipeline/loading/load-options.js";
export { listModels, type ModelList } from "./pipeline/loading/model-list.js";
export { type GenerateResult, type GenerateResultWithLatents, MiroPipeline } from "./pipeline/pipeline.js";
// Many pictures, to files: what `miro generate` does.
export {
  type DrawHooks,
  type DrawReport,
  DrawRequest,
  type DrawRequestOptions,
} from "./pipeline/requests/draw-request.js";
export { planPictures } from "./pipeline/requests/plan-pictures.js";
export { type PromptRequest, readPromptFile } from "./pipeline/requests/prompt-file.js";
export { type ImageSettings, readSettings, settingsToText } from "./pipeline/settings.js";
export type {
  WorkerGenerateOptions,
  WorkerPipeline,
  WorkerProgress,
  WorkerResult,
} from "./pipeline/worker-pipeline.js";
// Scorers.
export { type BestOfOptions, type BestOfResult, bestOf } from "./rewards/best-of.js";
export { loadScorer, registerScorer, scorerSpecs } from "./rewards/registry.js";
export { type ScoredFile, type ScoreFilesOptions, scoreFiles } from "./rewards/score-files.js";
export type { OwnScorer, Scorer, ScorerSpec } from "./rewards/scorer.js";
export { version } from "./version.js";
