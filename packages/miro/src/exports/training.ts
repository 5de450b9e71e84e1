/**
 * `miro-t2i/training`: recipes, runs, what they log and keep, and jobs on clusters.
 */
import "../unbundled.js";
import "../emoji/register.js";

// The optimizer of the published recipes.
export { Lamb, type LambOptions } from "@miro-t2i/torch/optim";
export type { Rows } from "../training/batches/batch-slices.js";
export {
  type BatchSource,
  type DataConstants,
  type FrozenModels,
  RandomBatches,
  type RandomBatchesOptions,
} from "../training/batches/batches.js";
export type { DataCheck } from "../training/batches/finding.js";
export { type RecipeFault, recipeFault } from "../training/batches/recipe-fault.js";
export {
  type FrozenNeeds,
  registerSource,
  type SourceContext,
  type SourceData,
  type SourceFacts,
  type SourceRecipe,
  type SourceReport,
  type SourceSpec,
  type ValidationBatches,
} from "../training/batches/sources.js";
export type { ContainerRuntime, JobContainer } from "../training/cluster/container.js";
export { type Job, type JobRun, jobScript } from "../training/cluster/job-script.js";
export { type JobPlan, type LaunchOptions, planJob } from "../training/cluster/plan.js";
export type { Prologue } from "../training/cluster/prologue.js";
export type { RuntimeFile } from "../training/cluster/runtime-files.js";
export type { Staging } from "../training/cluster/staging.js";
export { type SubmittedJob, submitJob, type WrittenJob, writeJob } from "../training/cluster/submission.js";
export {
  type CurveSummary,
  type RunChart,
  type RunChartOptions,
  runChart,
} from "../training/logging/run-chart.js";
export { type RunLog, readRunLog, type Series, smooth } from "../training/logging/run-log.js";
export { type EventImage, EventWriter, type EventWriterOptions } from "../training/logging/tensorboard.js";
export { Ema, type EmaOptions, emaName } from "../training/loop/ema.js";
export { inPrecision } from "../training/loop/gradients.js";
export { WarmupCosine, type WarmupCosineOptions } from "../training/loop/lr-schedule.js";
export { createLoss, createNetworks } from "../training/loop/model.js";
export { type ParameterGroup, parameterGroups } from "../training/loop/parameter-groups.js";
export { type RunOptions, type RunResult, runTraining } from "../training/loop/run.js";
export { runTask } from "../training/loop/run-task.js";
export {
  registerTask,
  type Task,
  type TaskContext,
  type TaskRecipe,
  type TaskReport,
  type TaskSpec,
  taskRecipeSchema,
} from "../training/loop/tasks.js";
export type { DataReport } from "../training/planning/data-check.js";
export { type DryRunReport, dryRun } from "../training/planning/dry-run.js";
export {
  type Environment,
  readEnvironment,
  type SiteSettings,
  siteSettings,
  type Variable,
} from "../training/recipes/environment.js";
export { PRECISIONS, type PrecisionName } from "../training/recipes/precision.js";
export { loadRecipe, parseRecipe, type Recipe, recipeToJson } from "../training/recipes/recipe.js";
export { type ComposedRecipe, composeRecipe, type Origins, recipeNames } from "../training/recipes/recipe-source.js";
export { type ResolvedValue, resolvedValues, resolvedYaml } from "../training/recipes/resolved-recipe.js";
export {
  type EmbeddedPrompt,
  prepareTestbed,
  readEmbeddedTestbed,
  readTestbed,
  type TestbedOptions,
  type TestbedPrompt,
  type TestbedResult,
} from "../training/samples/testbed.js";
export {
  listCheckpoints,
  loadTrainingCheckpoint,
  saveTrainingCheckpoint,
  type TrainingCheckpoint,
  type TrainingState,
} from "../training/state/checkpoint.js";
export { CheckpointWriter } from "../training/state/checkpoint-writer.js";
