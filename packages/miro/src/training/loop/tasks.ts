/**
 * What `miro train` can train besides the diffusion network: tasks by the `kind` of their recipes.
 *
 * A task says what its network, its loss, its measurements and its finished form are; the folder of the run, the steps,
 * checkpoints, resuming and the log are the same for all (run-task.ts).
 */
import type { nn, Tensor } from "@miro-t2i/torch";
import { z } from "zod";
import { checkName } from "../../arguments.js";
import { describe, InvalidInputError, invalid } from "../../errors.js";
import { setting } from "../../options.js";
import { deviceName } from "../../pipeline/loading/device.js";
import type { DataCheck } from "../batches/finding.js";

const count = z.int().positive();

/** The `trainer` section of a task's recipe. */
const trainerShape = z.strictObject({
  maxSteps: setting(count, "optimizer steps of the whole run"),
  maxMinutes: setting(
    z.number().positive().optional(),
    "after so many minutes the run stops as at its end; counted anew by each start",
  ),
  batchSize: setting(count, "samples of one optimizer step"),
  lr: setting(z.number().positive(), "learning rate after the warm-up"),
  betas: setting(
    z.tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)]).default([0.9, 0.99]),
    "AdamW's decay of the first and of the second moment",
  ),
  weightDecay: setting(z.number().min(0).default(0.01), "decay of the weights in each step"),
  warmupSteps: setting(z.int().nonnegative().default(50), "steps over which the learning rate rises from 0"),
  gradientClipVal: setting(
    z.number().min(0).nullable().default(1),
    "largest norm of all gradients together; larger ones are scaled down to it. 0 or null: none are",
  ),
  device: setting(deviceName.default("cpu"), "where network and batches lie: cpu, cuda or cuda:N"),
  threads: setting(z.int().nonnegative().default(0), "threads of one tensor operation; 0 leaves libtorch's choice"),
  logEveryNSteps: setting(count.default(20), "steps from one line of the log to the next"),
  evaluateEveryNSteps: setting(count.default(500), "steps from one measurement to the next"),
  checkpointEveryNSteps: setting(count.default(500), "steps from one checkpoint to the next"),
});

const taskTrainerSchema = trainerShape.superRefine(({ warmupSteps, maxSteps }, context) => {
  if (warmupSteps >= maxSteps)
    context.addIssue({
      code: "custom",
      path: ["warmupSteps"],
      message: `expected fewer than the ${maxSteps} steps of the run`,
    });
});

/** What every task's recipe has; most have more. */
export interface TaskRecipe {
  kind: string;
  /** Names the folder of the run. */
  name: string;
  seed: number;
  trainer: z.output<typeof taskTrainerSchema>;
}

/** The schema of a task's recipe, from what it has of its own. */
export function taskRecipeSchema<K extends string, S extends z.ZodRawShape>(kind: K, shape: S) {
  return z.strictObject({
    kind: setting(z.literal(kind), "what is trained"),
    name: setting(z.string(), "names the folder of the run, runs/NAME"),
    seed: setting(z.int().nonnegative().default(3407), "seed of everything random"),
    ...shape,
    trainer: setting(taskTrainerSchema, "steps, batch and what is stored"),
  });
}

/** What is trained. */
export interface Task {
  readonly network: nn.Module;
  /**
   * The loss of a batch, counted from 0, and figures for the log. Runs in a scope, with the global generator seeded by
   * (seed, step).
   */
  loss(step: number): { loss: Tensor; figures?: Record<string, Tensor> };
  /** Measures on data that training never sees. Called with the network in evaluation mode. */
  evaluate(step: number): Promise<Record<string, number>> | Record<string, number>;
  /** Writes the finished network into an empty folder. */
  export(folder: string, figures: Record<string, number>): void | Promise<void>;
  /** Frees what the task holds besides the network. */
  dispose?(): void;
}

/** What a task is built with. */
export interface TaskContext {
  /** Folder of the run. */
  output: string;
  /** Seeds the global generator for the initial weights: to be called right before the network is made. */
  seedInitialWeights(): void;
  onMessage(message: string): void;
}

/** What a dry run finds out about a task, besides what every run needs: device, memory, folder and disk. */
export interface TaskReport {
  checks: DataCheck[];
  /** The network, which the caller frees; null where it cannot be made. Its weights may be of any value. */
  network: nn.Module | null;
  /** Bytes of a sample, and of what its first layers make of it: the least that training keeps of it. */
  sampleBytes: number;
}

/** A kind of task. */
export interface TaskSpec<R extends TaskRecipe = TaskRecipe> {
  /** Checks a recipe in camelCase; see {@link taskRecipeSchema}. */
  readonly schema: z.ZodType<R>;
  /** Keys of the recipe's file that a resumed run may change, because they decide nothing that it computes. */
  readonly freeKeys?: readonly string[];
  build(recipe: R, context: TaskContext): Task | Promise<Task>;
  /** Looks at everything that `build` and the steps need, without training or drawing anything, for a dry run. */
  check?(recipe: R): TaskReport | Promise<TaskReport>;
}

const specs = new Map<string, TaskSpec>();

/**
 * Makes a kind of task known: `miro train` takes recipes with this `kind`.
 * @throws InvalidInputError when the kind is taken
 */
export function registerTask<R extends TaskRecipe>(kind: string, spec: TaskSpec<R>): void {
  checkName("kind", kind, "the kind of a task");
  if (!/^[a-z][a-z0-9-]*$/.test(kind)) throw invalid("kind", "lower-case letters, digits and -", kind);
  if (specs.has(kind)) throw invalid("kind", "one that no task has", kind);
  if (typeof spec?.schema?.safeParse !== "function" || typeof spec.build !== "function")
    throw invalid(kind, "a task { schema: taskRecipeSchema(kind, { … }), build }", spec);
  specs.set(kind, spec as unknown as TaskSpec);
}

/** The kinds of tasks that are known, with what they are. */
export function taskSpecs(): ReadonlyMap<string, TaskSpec> {
  return specs;
}

/**
 * The task of a recipe's `kind`, or null for a recipe of the diffusion network, which has none.
 * @param file of the recipe, for the error
 * @throws InvalidInputError for a kind that is not registered
 */
export function taskOf({ kind }: Record<string, unknown>, file = "recipe"): TaskSpec | null {
  if (kind === undefined) return null;
  const spec = specs.get(String(kind));
  if (spec) return spec;
  const known = [...specs.keys()].join(", ");
  throw new InvalidInputError(
    `${file}: kind: expected one of ${known}, or a task that a module registers (received ${describe(kind)})`,
  );
}
