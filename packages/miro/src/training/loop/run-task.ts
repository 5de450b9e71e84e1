/**
 * The run of a registered task, which the same loop trains as the diffusion network: without EMA weights, in one
 * process.
 *
 * One step: loss of batch k → backward → clip by global norm → AdamW under warm-up and cosine. The batch and every
 * random number of step k follow from (seed, k), so that a resumed run computes what an undisturbed one would.
 *
 *   RUN/recipe.yaml     the resolved recipe
 *   RUN/log.jsonl       one JSON object a line
 *   RUN/checkpoints/    as in ../state/checkpoint.ts, without EMA weights
 *   RUN/export/         the finished network
 */
import { join } from "node:path";
import { manualSeed, scope, type Tensor } from "@miro-t2i/torch";
import { AdamW, clipGradNorm_ } from "@miro-t2i/torch/optim";
import { stringify } from "yaml";
import { checkObject } from "../../arguments.js";
import { invalid, MiroError } from "../../errors.js";
import { makeFolder } from "../../files/make-folder.js";
import { writeFileAtomic } from "../../files/whole-files.js";
import { checkDevice } from "../../pipeline/loading/device.js";
import type { StoredCheckpoint } from "../../pipeline/loading/run-checkpoint.js";
import { streamSeed } from "../../random/streams.js";
import { withThreads } from "../../with-threads.js";
import { type LogRecord, MetricsLog } from "../logging/logging.js";
import { SmoothMean } from "../logging/smooth-mean.js";
import { DataParallelGroup } from "../process-group/process-group.js";
import { recipeToJson } from "../recipes/recipe.js";
import { type RecipeChange, recipeChanges, refuseRecipeChanges } from "../recipes/recipe-changes.js";
import {
  readTrainingState,
  restoreFrom,
  saveTrainingCheckpoint,
  setAsideNewer,
  type TrainingCheckpoint,
} from "../state/checkpoint.js";
import type { RunLock } from "../state/run-lock.js";
import { runLoop, type Work } from "./loop.js";
import { WarmupCosine } from "./lr-schedule.js";
import { openRunFolder, withRunLock, writeExport } from "./run-folder.js";
import type { RunOptions, RunResult } from "./run-options.js";
import { type Task, type TaskRecipe, type TaskSpec, taskOf } from "./tasks.js";
import { deadlineOf } from "./time-budget.js";

/** What a resumed run may change in its recipe, whatever its task; the rest decides what is computed. */
const FREE = [
  "name",
  "trainer.max_minutes",
  "trainer.threads",
  "trainer.device",
  "trainer.log_every_n_steps",
  "trainer.evaluate_every_n_steps",
  "trainer.checkpoint_every_n_steps",
];

/**
 * Trains by the recipe of a registered task, to the end with its measurements and its export, or until the signal with
 * a checkpoint.
 * @throws InvalidInputError when no task of the recipe's kind is registered, or the folder holds a run and is not to be
 *   resumed
 */
export async function runTask(options: RunOptions<TaskRecipe>): Promise<RunResult> {
  checkObject("options", options, "{ recipe, output, … }", ["recipe", "output"]);
  checkObject("recipe", options.recipe, "the recipe of a task", ["kind", "trainer"]);
  const { recipe, output, allowChanges = false, onMessage = () => {} } = options;
  const deadline = deadlineOf(recipe.trainer.maxMinutes);
  const spec = taskOf({ ...recipe });
  if (spec === null) throw invalid("recipe.kind", "the kind of a registered task", recipe.kind);
  const run = async (lock: RunLock): Promise<RunResult> => {
    checkDevice(recipe.trainer.device, "trainer.device");
    const newest = await openRunFolder(options, DataParallelGroup.alone());
    if (newest && !allowChanges) {
      const changes = taskRecipeChanges(spec, readTrainingState(newest.path).recipe, recipe);
      refuseRecipeChanges(newest.path, changes, "start a new run");
    }
    makeFolder(output);
    const seedInitialWeights = () => void manualSeed(streamSeed(recipe.seed, "initialWeights"));
    const task = await spec.build(recipe, { output, seedInitialWeights, onMessage });
    try {
      return await trainTask(task, spec, { lock, newest, deadline }, options);
    } finally {
      task.dispose?.();
    }
  };
  return withThreads(recipe.trainer.threads, () => withRunLock(options, run));
}

/** How the recipe of a checkpoint differs from the run's, in values that decide what is computed. */
export function taskRecipeChanges(
  { schema, freeKeys = [] }: TaskSpec,
  storedRecipe: unknown,
  recipe: TaskRecipe,
): RecipeChange[] {
  const before = schema.safeParse(storedRecipe); // with the defaults of what is newer than the run
  const asFile = (of: unknown) => recipeToJson(of as object, schema);
  return recipeChanges(asFile(before.data ?? storedRecipe), asFile(recipe), [...FREE, ...freeKeys]);
}

async function trainTask(
  task: Task,
  spec: TaskSpec,
  { lock, newest, deadline }: { lock: RunLock; newest: StoredCheckpoint | undefined; deadline: number },
  { recipe, output, signal, onProgress, onMessage = () => {} }: RunOptions<TaskRecipe>,
): Promise<RunResult> {
  const { trainer } = recipe;
  const checkpoints = join(output, "checkpoints");
  const training = new TaskTraining(task, recipe);
  if (newest) {
    training.restore(newest.path);
    for (const path of setAsideNewer(checkpoints, newest.step)) onMessage(`a later checkpoint is set aside: ${path}`);
  }
  const log = new MetricsLog(join(output, "log.jsonl"), training.step, onMessage);
  const save = () => {
    lock.check();
    return saveTrainingCheckpoint(checkpoints, training.checkpoint(), { keepLast: 1 });
  };
  const evaluate = async () => {
    const { step } = training;
    const figures = await training.evaluate();
    log.write({ step, ...figures, seconds: training.seconds });
    const text = Object.entries(figures).map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`);
    onMessage(`step ${step}: ${text.join(", ")}`);
    return figures;
  };

  const startStep = training.step;
  const isLate = () => training.step > startStep && performance.now() >= deadline;
  try {
    writeFileAtomic(join(output, "recipe.yaml"), stringify(recipeToJson(recipe, spec.schema)), { overwrite: true });
    const steps: Work = {
      get step() {
        return training.step;
      },
      advance: () => training.advance(),
      pace: () => training.pace(),
      log: () => log.write(training.figures()),
    };
    const finished = await runLoop(steps, {
      ...trainer,
      stop: () => signal?.aborted === true || isLate(),
      signal,
      onProgress: (progress) => {
        const secondsLeft = Math.min(progress.secondsLeft, (deadline - performance.now()) / 1000);
        onProgress?.({ ...progress, secondsLeft });
      },
      recurring: [
        {
          everyNSteps: trainer.evaluateEveryNSteps,
          run: async (step) => void (step < trainer.maxSteps && (await evaluate())),
        },
        { everyNSteps: trainer.checkpointEveryNSteps, run: () => void save() },
      ],
    });
    const { step } = training;
    const outOfTime = !finished && signal?.aborted !== true;
    const checkpoint = save();
    if (!finished && !outOfTime) return { finished, step, checkpoint, exported: null };
    const measured = await evaluate();
    training.network.eval();
    const exported = await writeExport(output, (folder) => task.export(folder, measured));
    return { finished, ...(outOfTime && { outOfTime }), step, checkpoint, exported };
  } finally {
    log.close();
  }
}

/** The network of a task with its optimizer, the steps that were made, and the figures of the last one. */
class TaskTraining {
  readonly network: Task["network"];
  step = 0;
  readonly #task: Task;
  readonly #recipe: TaskRecipe;
  readonly #parameters: Tensor[];
  readonly #optimizer: AdamW;
  readonly #schedule: WarmupCosine;
  /** When all steps would have begun, had they been made in one go, by performance.now(). */
  #startedAt = performance.now();
  /** The step and the time that the pace is measured from. */
  #began = { step: 0, at: performance.now() };
  #figures: { loss: number; [name: string]: number } = { loss: Number.NaN };
  readonly #smoothLoss = new SmoothMean(0.95);

  constructor(task: Task, recipe: TaskRecipe) {
    const { lr, betas, weightDecay, warmupSteps, maxSteps, device } = recipe.trainer;
    this.#task = task;
    this.#recipe = recipe;
    this.network = task.network.to({ device });
    this.network.train();
    this.#parameters = [...this.network.parameters()].filter((parameter) => parameter.requiresGrad);
    this.#optimizer = new AdamW(this.#parameters, { lr, betas, weightDecay });
    this.#schedule = new WarmupCosine(this.#optimizer, { warmupSteps, totalSteps: maxSteps });
  }

  /** Seconds of all steps, those before the run was resumed too. */
  get seconds(): number {
    return Math.round(this.#seconds);
  }

  get #seconds(): number {
    return (performance.now() - this.#startedAt) / 1000;
  }

  /** Goes on from a checkpoint. */
  restore(path: string): void {
    restoreFrom(path, ({ state, network, optimizer }) => {
      this.network.loadStateDict(network);
      const { groups } = this.#optimizer.stateDict();
      this.#optimizer.loadStateDict({ step: state.optimizerStep, tensors: optimizer, groups });
      this.step = state.step;
      this.#startedAt = performance.now() - state.seconds * 1000;
      this.#began = { step: state.step, at: performance.now() };
    });
  }

  /** What {@link restore} needs. */
  checkpoint(): TrainingCheckpoint {
    const { step } = this;
    return {
      state: {
        format: 1,
        step,
        emaUpdates: 0,
        skippedSteps: 0,
        seconds: this.#seconds,
        optimizerStep: step,
        recipe: this.#recipe,
      },
      network: Object.fromEntries(this.network.stateDict()),
      emas: {},
      optimizer: this.#optimizer.stateDict().tensors,
    };
  }

  /** Makes one step. @throws MiroError when its gradient is not finite */
  advance(): void {
    const { seed, trainer } = this.#recipe;
    this.#figures = scope(() => {
      manualSeed(streamSeed(seed, "partStep", this.step));
      const terms = this.#task.loss(this.step);
      terms.loss.backward();
      const gradientNorm = clipGradNorm_(this.#parameters, trainer.gradientClipVal || Number.POSITIVE_INFINITY).item();
      if (!Number.isFinite(gradientNorm))
        throw new MiroError(`step ${this.step + 1}: the gradient is not finite; lower trainer.lr`);
      this.#schedule.apply(this.step + 1);
      this.#optimizer.step();
      this.#optimizer.zeroGrad();
      const named = Object.entries(terms.figures ?? {}).map(([name, value]) => [name, round(value.item())]);
      return { loss: round(terms.loss.item()), gradient_norm: round(gradientNorm), ...Object.fromEntries(named) };
    });
    this.step++;
    this.#smoothLoss.add(this.#figures.loss);
  }

  pace(): { loss: number; stepsPerSecond: number } {
    const { step, at } = this.#began;
    return { loss: this.#smoothLoss.value, stepsPerSecond: ((this.step - step) * 1000) / (performance.now() - at) };
  }

  /** The figures of the last step, for the log. */
  figures(): LogRecord {
    return { step: this.step, ...this.#figures, seconds: this.seconds };
  }

  /** What the task measures of its network as it is. */
  async evaluate(): Promise<Record<string, number>> {
    this.network.eval();
    manualSeed(streamSeed(this.#recipe.seed, "validation", this.step)); // a resumed run measures the same
    const figures = await this.#task.evaluate(this.step);
    this.network.train();
    return figures;
  }
}

function round(value: number): number {
  return Number(value.toPrecision(5));
}
