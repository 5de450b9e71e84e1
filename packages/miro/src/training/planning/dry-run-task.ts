/** A dry run of a recipe that trains a part: what is known of it before it starts, and all that would stop it. */
import { join } from "node:path";
import { invalid } from "../../errors.js";
import { checkDevice } from "../../pipeline/loading/device.js";
import { type DataCheck, finding, missing } from "../batches/finding.js";
import { taskRecipeChanges } from "../loop/run-task.js";
import { type TaskRecipe, type TaskReport, taskOf } from "../loop/tasks.js";
import { checkDisk, checkOutput, type StartOptions } from "./folder-check.js";
import { checkMemory } from "./memory-check.js";
import { countValues, type ValueCount } from "./model-size.js";

/** What {@link dryRunTask} finds. */
export interface TaskDryRunReport {
  name: string;
  kind: string;
  /** Null where the network cannot be made. */
  size: ValueCount | null;
  batchSize: number;
  maxSteps: number;
  /** What was looked at. */
  start: DataCheck[];
  /** Nothing would stop the run. */
  ready: boolean;
}

const FLOAT = 4;
const HALF = 2;

/** Looks at everything that the training of a part needs; trains and draws nothing. */
export async function dryRunTask(recipe: TaskRecipe, options: Partial<StartOptions> = {}): Promise<TaskDryRunReport> {
  const spec = taskOf({ ...recipe });
  if (spec === null) throw invalid("recipe.kind", "the kind of a registered task", recipe.kind);
  const { output = join("runs", recipe.name), ...start } = options;
  const { device, batchSize, maxSteps } = recipe.trainer;
  const report = (await spec.check?.(recipe)) ?? unchecked(recipe);
  const size = report.network && countValues(report.network);
  report.network?.dispose();
  const found = finding("trainer.device", () => checkDevice(device, "trainer.device"));
  const checks = [
    found,
    ...(size && found.status === "ok" ? [memory(size, recipe, report.sampleBytes)] : []),
    ...report.checks,
    ...checkOutput({ output, ...start }, (stored) => taskRecipeChanges(spec, stored, recipe)),
    ...(size ? [disk(size, output)] : []),
  ];
  const { name, kind } = recipe;
  return { name, kind, size, batchSize, maxSteps, start: checks, ready: missing(checks).length === 0 };
}

/** Of a kind that does not say what it needs. */
function unchecked({ kind }: TaskRecipe): TaskReport {
  const finding = "says nothing of what it needs: the start finds out";
  return { checks: [{ status: "note", subject: `kind ${kind}`, finding }], network: null, sampleBytes: 0 };
}

/** Weights, gradients and both moments; of the batch the least that is kept of it. */
function memory({ trainable, buffers }: ValueCount, { trainer }: TaskRecipe, sampleBytes: number): DataCheck {
  const least = FLOAT * (4 * trainable + buffers) + trainer.batchSize * sampleBytes;
  return checkMemory(trainer.device, { needed: least, least }, "a smaller trainer.batch_size needs less");
}

/** The checkpoint that is kept, the one that is being written, and the finished network. */
function disk({ trainable, buffers }: ValueCount, output: string): DataCheck {
  const all = trainable + buffers;
  return checkDisk({ checkpoints: 2, checkpoint: FLOAT * (all + 2 * trainable), release: HALF * all }, output);
}
