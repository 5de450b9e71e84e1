/**
 * Everything that can be known of a training before it starts: sizes, arithmetic, memory, whether the data are there,
 * and what else would stop it.
 */
import { join } from "node:path";
import { checkObject } from "../../arguments.js";
import { parseRinConfig } from "../../networks/config.js";
import { trainingFlops } from "../../networks/flops.js";
import { type DataCheck, missing } from "../batches/finding.js";
import { sourceFacts } from "../batches/sources.js";
import { type BatchPlan, planOf } from "../recipes/batch-plan.js";
import type { Recipe } from "../recipes/recipe.js";
import { checkData, type DataReport } from "./data-check.js";
import type { StartOptions } from "./folder-check.js";
import { type MemoryPlan, memoryPlan } from "./memory-plan.js";
import { type ModelSize, modelSize } from "./model-size.js";
import { checkStart } from "./start-check.js";

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
  /** What was looked at besides the data: devices, memory, frozen models, the folder of the run, the disk. */
  start: DataCheck[];
  /** Nothing would stop the run. */
  ready: boolean;
  /** Passes over the data, where there are some and their number is known. */
  epochs: number | null;
  /** Whether a release folder is written at the end. */
  release: boolean;
}

/**
 * Plans a training without doing any of it.
 * @param options how it would be started; by default as `miro train` does, in runs/NAME; `readAll`: see checkData
 */
export async function dryRun(
  recipe: Recipe,
  how: Partial<StartOptions> & { readAll?: boolean | undefined } = {},
): Promise<DryRunReport> {
  checkObject("options", how, "an object of options");
  const { readAll = false, ...options } = how;
  checkObject("recipe", recipe, "a recipe, as loadRecipe gives it", ["network", "trainer", "data"]);
  const config = parseRinConfig(recipe.network);
  const batch = planOf(recipe.trainer);
  const { maxSteps } = recipe.trainer;
  const size = modelSize(recipe);
  const { textTokens, release } = sourceFacts(recipe.data, config);
  const perSample = trainingFlops(config, textTokens, config.useSelfConditioning && recipe.loss.selfCondRate > 0);
  const { data, start } = await checkRun(recipe, { output: join("runs", recipe.name), ...options }, readAll);
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
    start,
    ready: blocking({ data, start }).length === 0,
    epochs: data.samples ? (maxSteps * batch.batchSize) / data.samples : null,
    release: release !== undefined,
  };
}

/** What {@link checkRun} looked at. */
export interface RunChecks {
  data: DataReport;
  start: DataCheck[];
}

/** Looks at everything that a run needs: its data, and all else. */
export async function checkRun(recipe: Recipe, options: StartOptions, readAll = false): Promise<RunChecks> {
  const data = await checkData(recipe, readAll);
  const told = new Set(data.checks.map(({ subject, status }) => `${subject} ${status}`));
  const start = (await checkStart(recipe, options)).filter(({ subject, status }) => !told.has(`${subject} ${status}`));
  return { data, start };
}

/** What of it would stop the run. */
export function blocking({ data, start }: RunChecks): DataCheck[] {
  return missing([...data.checks, ...start]);
}
