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
import { manualSeed, scope, setNumThreads } from "@miro-t2i/torch";
import { AdamW, clipGradNorm_ } from "@miro-t2i/torch/optim";
import { stringify } from "yaml";
import { checkObject } from "../../arguments.js";
import { invalid, MiroError } from "../../errors.js";
import { makeFolder } from "../../files/make-folder.js";
import { writeFileAtomic } from "../../files/whole-files.js";
import { checkDevice } from "../../pipeline/loading/device.js";
import type { StoredCheckpoint } from "../../pipeline/loading/run-checkpoint.js";
import { streamSeed } from "../../random/streams.js";
import { MetricsLog } from "../logging/logging.js";
import { DataParallelGroup } from "../process-group/process-group.js";
import { recipeToJson } from "../recipes/recipe.js";
import { type RecipeChange, recipeChanges, refuseRecipeChanges } from "../recipes/recipe-changes.js";
import {
  loadTrainingCheckpoint,
  readTrainingState,
  saveTrainingCheckpoint,
  setAsideNewer,
} from "../state/checkpoint.js";
import { replaceFolder } from "../state/replace-folder.js";
import type { RunLock } from "../state/run-lock.js";
import { runLoop, type Work } from "./loop.js";
import { WarmupCosine } from "./lr-schedule.js";
import { openRunFolder, withRunLock } from "./run-folder.js";
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
  const deadline = deadlineOf(recipe.trainer);
  const spec = taskOf({ ...recipe });
  if (spec === null) throw invalid("recipe.kind", "the kind of a registered task", recipe.kind);
  return withRunLock(options, async (lock) => {
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
  });
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
  const { trainer, seed } = recipe;
  if (trainer.threads > 0) setNumThreads(trainer.threads);
  const network = task.network.to({ device: trainer.device });
  const parameters = [...network.parameters()].filter((parameter) => parameter.requiresGrad);
  const { lr, betas, weightDecay, warmupSteps, maxSteps } = trainer;
  const optimizer = new AdamW(parameters, { lr, betas, weightDecay });
  const schedule = new WarmupCosine(optimizer, { warmupSteps, totalSteps: maxSteps });
  const checkpoints = join(output, "checkpoints");

  let step = 0;
  let trainedSeconds = 0;
  if (newest) {
    scope(() => {
      const stored = loadTrainingCheckpoint(newest.path);
      network.loadStateDict(stored.network);
      const groups = optimizer.stateDict().groups;
      optimizer.loadStateDict({ step: stored.state.optimizerStep, tensors: stored.optimizer, groups });
      step = stored.state.step;
      trainedSeconds = stored.state.seconds;
    });
    for (const path of setAsideNewer(checkpoints, newest.step)) onMessage(`a later checkpoint is set aside: ${path}`);
  }
  const log = new MetricsLog(join(output, "log.jsonl"), step, onMessage);
  const startedAt = performance.now() - trainedSeconds * 1000;
  const seconds = () => (performance.now() - startedAt) / 1000;
  const save = () => {
    lock.check();
    return saveTrainingCheckpoint(
      checkpoints,
      {
        state: { format: 1, step, emaUpdates: 0, skippedSteps: 0, seconds: seconds(), optimizerStep: step, recipe },
        network: Object.fromEntries(network.stateDict()),
        emas: {},
        optimizer: optimizer.stateDict().tensors,
      },
      { keepLast: 1 },
    );
  };
  const evaluate = async () => {
    network.eval();
    const figures = await task.evaluate(step);
    network.train();
    log.write({ step, ...figures, seconds: Math.round(seconds()) });
    const text = Object.entries(figures).map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`);
    onMessage(`step ${step}: ${text.join(", ")}`);
    return figures;
  };

  const startStep = step;
  const beganAt = performance.now();
  let figures: { loss: number; [name: string]: number } = { loss: Number.NaN };
  let smoothLoss = Number.NaN;
  const steps: Work = {
    get step() {
      return step;
    },
    advance() {
      figures = scope(() => {
        manualSeed(streamSeed(seed, "partStep", step));
        const terms = task.loss(step);
        terms.loss.backward();
        const gradientNorm = clipGradNorm_(parameters, trainer.gradientClipVal || Number.POSITIVE_INFINITY).item();
        if (!Number.isFinite(gradientNorm))
          throw new MiroError(`step ${step + 1}: the gradient is not finite; lower trainer.lr`);
        schedule.apply(step + 1);
        optimizer.step();
        optimizer.zeroGrad();
        const named = Object.entries(terms.figures ?? {}).map(([name, value]) => [name, round(value.item())]);
        return { loss: terms.loss.item(), gradient_norm: round(gradientNorm), ...Object.fromEntries(named) };
      });
      step++;
      smoothLoss = Number.isNaN(smoothLoss) ? figures.loss : smoothLoss + 0.05 * (figures.loss - smoothLoss);
    },
    pace: () => ({
      loss: smoothLoss,
      stepsPerSecond: ((step - startStep) * 1000) / (performance.now() - beganAt),
    }),
    log: () => log.write({ step, ...figures, loss: round(smoothLoss), seconds: Math.round(seconds()) }),
  };

  const isLate = () => step > startStep && performance.now() >= deadline;
  try {
    writeFileAtomic(join(output, "recipe.yaml"), stringify(recipeToJson(recipe, spec.schema)), { overwrite: true });
    network.train();
    const finished = await runLoop(steps, {
      ...trainer,
      stop: () => signal?.aborted === true || isLate(),
      signal,
      onProgress: (progress) => {
        const secondsLeft = Math.min(progress.secondsLeft, (deadline - performance.now()) / 1000);
        onProgress?.({ ...progress, secondsLeft });
      },
      recurring: [
        { everyNSteps: trainer.evaluateEveryNSteps, run: async () => void (step < maxSteps && (await evaluate())) },
        { everyNSteps: trainer.checkpointEveryNSteps, run: () => void save() },
      ],
    });
    const outOfTime = !finished && signal?.aborted !== true;
    if (!finished && !outOfTime) return { finished, step, checkpoint: save(), exported: null };
    const measured = await evaluate();
    network.eval();
    const exported = join(output, "export");
    await replaceFolder(exported, (folder) => task.export(folder, measured));
    return { finished, ...(outOfTime && { outOfTime }), step, checkpoint: save(), exported };
  } finally {
    log.close();
  }
}

function round(value: number): number {
  return Number(value.toPrecision(5));
}
