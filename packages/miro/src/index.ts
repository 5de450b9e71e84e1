/** The public surface of `miro-t2i`. */
import "./emoji/register.js";

export { Lamb } from "@miro-t2i/torch/optim";
export * from "./autoencoder/index.js";
export * from "./data/dataset/index.js";
export * from "./data/preprocess/index.js";
export * from "./data/shards/index.js";
export { InvalidInputError, MiroError } from "./errors.js";
export { type Axis, parseAxis } from "./evaluation/sweep/axis.js";
export { sweepSheet, sweepToJson } from "./evaluation/sweep/report.js";
export { runSweep, type SweepOptions, type SweepResult } from "./evaluation/sweep/run.js";
export { combine, type Guidance, guidanceWeight } from "./flow/guidance.js";
export {
  type Draw,
  type DrawPurpose,
  drawFrom,
  FlowMatchingLoss,
  type FlowMatchingLossOptions,
  type LossBatch,
  type LossCallOptions,
  type LossTerms,
} from "./flow/loss.js";
export {
  evaluationsOf,
  registerSampler,
  type SamplerOption,
  type SamplerOptionValue,
  samplerMethod,
  samplerNames,
  samplerOptionsOfAll,
  stepsWithin,
} from "./flow/samplers/index.js";
export {
  type Evaluation,
  type Method,
  type SampleOptions,
  type Step,
  type StepReport,
  sample,
  type VelocityModel,
  type VelocityOutput,
} from "./flow/sampling.js";
export { dynamicShift, LinearSchedule, type ScheduleOptions } from "./flow/schedule.js";
export {
  type FlowPrecondConfig,
  parsePrecondConfig,
  parseRinConfig,
  precondConfigToJson,
  REWARD_KEYS,
  type RinConfig,
  rinConfigToJson,
} from "./networks/config.js";
export { type ForwardWork, forwardFlops, forwardWork, trainingFlops } from "./networks/flops.js";
export { FlowPrecond, type Network } from "./networks/precond.js";
export {
  type Conditioning,
  type ConditioningInput,
  Rin,
  type RinInput,
  type RinOptions,
  type RinOutput,
  type UpstreamBatch,
} from "./networks/rin.js";
export {
  encodeImage,
  IMAGE_FORMATS,
  type ImageFile,
  type ImageFileOptions,
  type ImageFormat,
  readImageFile,
} from "./pictures/image-files.js";
export * from "./pictures/index.js";
export { type LabelledSheetOptions, labelledSheet, type SheetCell } from "./pictures/labelled-sheet.js";
export { encodePng, type PngInfo, type PngText, readPng } from "./pictures/png.js";
export { contactSheet, type RgbImage } from "./pictures/rgb.js";
export type { PromptEmbedding, TextStates } from "./pipeline/conditioning.js";
export type { GenerateOptions, GenerateProgress } from "./pipeline/generate-options.js";
export { GeneratedImage, type SaveOptions } from "./pipeline/generated-image.js";
export { type Checkpoint, type LoadCheckpointOptions, loadCheckpoint } from "./pipeline/loading/checkpoint.js";
export { availableDevices, type ComputeDType, resolveDType } from "./pipeline/loading/device.js";
export type { DownloadProgress } from "./pipeline/loading/hub-repository.js";
export type { WeightsIdentity } from "./pipeline/loading/identity.js";
export type { FromPretrainedOptions } from "./pipeline/loading/load-options.js";
export {
  type CachedRepository,
  type CachedRevision,
  type ListedRelease,
  listModels,
  type ModelList,
} from "./pipeline/loading/model-list.js";
export { type ReleaseConfig, readReleaseConfig } from "./pipeline/loading/release-config.js";
export { RELEASES, type Release } from "./pipeline/loading/releases.js";
export { type SaveCheckpointOptions, saveCheckpoint } from "./pipeline/loading/save-checkpoint.js";
export { type GenerateResult, MiroPipeline } from "./pipeline/pipeline.js";
export { type PromptRequest, readPromptFile } from "./pipeline/requests/prompt-file.js";
export {
  type ImageSettings,
  readSettings,
  settingsToText,
  textToSettings,
} from "./pipeline/settings.js";
export {
  type BestOf,
  type BestOfOptions,
  type BestOfResult,
  bestOf,
  type LoadScorerOptions,
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
  scorerSpecs,
} from "./rewards/index.js";
export { T5Encoder } from "./text/t5.js";
export { type EncodeBatchOptions, type EncodedBatch, Tokenizer } from "./text/tokenizer.js";
export { type BatchSource, RandomBatches, type RandomBatchesOptions } from "./training/batches/batches.js";
export {
  type DataCheck,
  registerSource,
  type SourceContext,
  type SourceData,
  type SourceFacts,
  type SourceReport,
  type SourceSpec,
  type ValidationBatches,
} from "./training/batches/sources.js";
export { type Job, type JobRun, jobScript } from "./training/cluster/job-script.js";
export { type JobPlan, type LaunchOptions, planJob } from "./training/cluster/plan.js";
export { type SubmittedJob, submitJob } from "./training/cluster/submission.js";
export {
  type CurveSummary,
  type RunChart,
  type RunChartOptions,
  runChart,
} from "./training/logging/run-chart.js";
export { type RunLog, readRunLog, type Series, smooth } from "./training/logging/run-log.js";
export { type EventImage, EventWriter, type EventWriterOptions } from "./training/logging/tensorboard.js";
export { Ema, type EmaOptions, emaName } from "./training/loop/ema.js";
export { inPrecision } from "./training/loop/gradients.js";
export { WarmupCosine, type WarmupCosineOptions } from "./training/loop/lr-schedule.js";
export { createLoss, createNetworks } from "./training/loop/model.js";
export { type ParameterGroup, parameterGroups } from "./training/loop/parameter-groups.js";
export { type RunOptions, type RunResult, runTraining } from "./training/loop/run.js";
export { runTask } from "./training/loop/run-task.js";
export {
  registerTask,
  type Task,
  type TaskContext,
  type TaskRecipe,
  type TaskSpec,
  taskRecipeSchema,
} from "./training/loop/tasks.js";
export type { DataReport } from "./training/planning/data-check.js";
export { type DryRunReport, dryRun } from "./training/planning/dry-run.js";
export {
  type Environment,
  readEnvironment,
  type SiteSettings,
  siteSettings,
  type Variable,
} from "./training/recipes/environment.js";
export { PRECISIONS, type PrecisionName } from "./training/recipes/precision.js";
export { loadRecipe, parseRecipe, type Recipe, recipeToJson } from "./training/recipes/recipe.js";
export { type ComposedRecipe, composeRecipe, type Origins, recipeNames } from "./training/recipes/recipe-source.js";
export { type ResolvedValue, resolvedValues, resolvedYaml } from "./training/recipes/resolved-recipe.js";
export {
  type EmbeddedPrompt,
  prepareTestbed,
  readEmbeddedTestbed,
  readTestbed,
  type TestbedOptions,
  type TestbedPrompt,
  type TestbedResult,
} from "./training/samples/testbed.js";
export {
  listCheckpoints,
  loadTrainingCheckpoint,
  saveTrainingCheckpoint,
  type TrainingCheckpoint,
  type TrainingState,
} from "./training/state/checkpoint.js";
export { CheckpointWriter } from "./training/state/checkpoint-writer.js";
export { version } from "./version.js";
