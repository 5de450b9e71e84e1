/**
 * Everything that can be known of a training before it starts: sizes, arithmetic, memory, and whether the data are
 * there.
 */
import { parseRinConfig } from "../../networks/config.js";
import { trainingFlops } from "../../networks/flops.js";
import { sourceOf } from "../batches/sources.js";
import { type BatchPlan, planOf } from "../recipes/batch-plan.js";
import type { Recipe } from "../recipes/recipe.js";
import { checkData, type DataReport } from "./data-check.js";
import { type MemoryPlan, memoryPlan } from "./memory-plan.js";
import { type ModelSize, modelSize } from "./model-size.js";

/** What {@link dryRun} finds. */
export interface DryRunReport {
  /** Name of the recipe. */
  name: string;
  size: ModelSize;
  batch: BatchPlan;
  /**
   * Floating-point operations, the backward pass and the pass of self-conditioning included; two for each multiply-add.
   */
  flops: { textTokens: number; perSample: number; perStep: number; perDeviceStep: number; total: number };
  /** Bytes on each device. */
  memory: MemoryPlan;
  data: DataReport;
  /** Passes over the data, where their number is known. */
  epochs: number | null;
  /** Whether a release folder is written at the end. */
  release: boolean;
}

/** Plans a training without doing any of it. */
export async function dryRun(recipe: Recipe): Promise<DryRunReport> {
  const config = parseRinConfig(recipe.network);
  const batch = planOf(recipe.trainer);
  const { maxSteps } = recipe.trainer;
  const size = modelSize(recipe);
  const { textTokens, release } = sourceOf(recipe.data).facts(recipe.data, config);
  const perSample = trainingFlops(config, textTokens, config.useSelfConditioning && recipe.loss.selfCondRate > 0);
  const data = await checkData(recipe);
  return {
    name: recipe.name,
    size,
    batch,
    flops: {
      textTokens,
      perSample,
      perStep: perSample * batch.batchSize,
      perDeviceStep: (perSample * batch.batchSize) / batch.worldSize,
      total: perSample * batch.batchSize * maxSteps,
    },
    memory: memoryPlan(recipe, size, textTokens),
    data,
    epochs: data.samples === null ? null : (maxSteps * batch.batchSize) / data.samples,
    release: release !== undefined,
  };
}
