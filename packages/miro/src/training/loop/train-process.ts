/**
 * A training run as a folder:
 *
 *   RUN/recipe.yaml      the resolved recipe
 *   RUN/data.json        digest of the data, where the recipe alone does not decide them
 *   RUN/log.jsonl        one JSON object a line, each with its step
 *   RUN/tensorboard/     the same figures and the sheets, as event files
 *   RUN/checkpoints/     see ../state/checkpoint.ts; each is a model that draws
 *   RUN/samples/         sheets by step
 *   RUN/export/          the EMA weights in the release layout, after the last step or when the time is over
 */
import { join } from "node:path";
import { buildInfo, manualSeed, scope, setNumThreads, zeros } from "@miro-t2i/torch";
import { GradScaler } from "@miro-t2i/torch/optim";
import { InvalidInputError } from "../../errors.js";
import { writeFileAtomic } from "../../files/whole-files.js";
import { parseRinConfig } from "../../networks/config.js";
import { trainingFlops } from "../../networks/flops.js";
import { wholeNumber } from "../../numbers.js";
import { streamSeed } from "../../random/streams.js";
import { version } from "../../version.js";
import { checkFrozenParts } from "../batches/part-check.js";
import { MetricsLog } from "../logging/logging.js";
import { EventWriter } from "../logging/tensorboard.js";
import type { DataParallelGroup } from "../process-group/process-group.js";
import { planOf } from "../recipes/batch-plan.js";
import { parseRecipe, type Recipe, recipeToJson, recipeToYaml } from "../recipes/recipe.js";
import { recipeChanges, refuseRecipeChanges } from "../recipes/recipe-changes.js";
import { openRunSamples, type RunSamples } from "../samples/run-samples.js";
import {
  listCheckpoints,
  loadTrainingCheckpoint,
  readTrainingState,
  setAsideNewer,
  type TrainingCheckpoint,
} from "../state/checkpoint.js";
import { CheckpointWriter } from "../state/checkpoint-writer.js";
import { constantsOf, writeConstants } from "../state/data-constants.js";
import { exportRelease, modelTexts } from "../state/export.js";
import { continuePublished, PublishedCheckpoint } from "../state/published-checkpoint.js";
import { replaceFolder } from "../state/replace-folder.js";
import type { RunLock } from "../state/run-lock.js";
import { createAverages, createCapture, createOptimizer, peakFlops } from "./assemble.js";
import { risingAgain, scheduleOf, WarmupCosine } from "./lr-schedule.js";
import { createLoss, createNetworks, startFrom } from "./model.js";
import { openBatches, openValidation } from "./open-data.js";
import { noteData, openRunFolder, withRunLock } from "./run-folder.js";
import type { RunOptions, RunResult } from "./run-options.js";
import { Replicas } from "./thread-replicas.js";
import { deadlineOf, within } from "./time-budget.js";
import { Trainer } from "./trainer.js";
import type { Validation } from "./validation.js";

/**
 * Trains by a recipe, in one process.
 * @param group the processes that share the work; the first of them alone writes to the folder of the run
 */
export async function trainProcess(options: RunOptions, group: DataParallelGroup): Promise<RunResult> {
  if (!group.isFirst) return trainAlone(options, group, null);
  return withRunLock(options, (lock) => trainAlone(options, group, lock));
}

/** @param lock of the run's folder, which the process that writes there holds */
async function trainAlone(
  { recipe, output, resume = false, allowChanges = false, signal, onProgress, ...told }: RunOptions,
  group: DataParallelGroup,
  lock: RunLock | null,
): Promise<RunResult> {
  const deadline = deadlineOf(recipe.trainer);
  const checkpoints = join(output, "checkpoints");
  const first = group.isFirst;
  const onMessage = (first && told.onMessage) || (() => {});
  const onWarning = told.onWarning ?? told.onMessage ?? (() => {});
  /** Says what must not get lost, whoever says it. */
  const warn = first ? onWarning : (message: string) => onWarning(`rank ${group.rank}: ${message}`);
  const newest = await openRunFolder({ output, resume }, group);
  if (newest && !allowChanges) {
    const stored = readTrainingState(newest.path).recipe;
    refuseRecipeChanges(newest.path, recipeChanges(recipeWithDefaults(stored), recipeToJson(recipe)));
  }
  if (resume !== false && !newest) onMessage(`${output}: no checkpoint yet, starting at step 0`);
  if (recipe.trainer.threads > 0) setNumThreads(recipe.trainer.threads);

  const { trainer: settings } = recipe;
  const { device, replicas: threads = 1 } = settings;
  onMessage("opening the data");
  await group.agree("the recipe", JSON.stringify(recipeToJson(recipe)));
  await refuseMissingParts(recipe);
  const source = await group.firstRankFirst(() => openBatches(recipe, group, { signal, onMessage, warn }));
  let replicas: Replicas | null = null;
  let validation: Validation | null = null;
  let samples: RunSamples | null = null;
  const { keepLast, keepEveryNSteps } = settings;
  const writer = new CheckpointWriter(checkpoints, { keepLast, keepEveryNSteps });
  try {
    await group.agree("the data", source.identity ?? "");
    if (first) noteData(join(output, "data.json"), source, { step: newest?.step ?? 0, allowChanges, onMessage });
    const known = constantsOf(source);
    if (first && known !== null) writeConstants(output, known);
    validation = await group.firstRankFirst(() => openValidation(recipe, source, group, { signal, onMessage }));
    manualSeed(streamSeed(recipe.seed, "initialWeights")); // initial weights
    const { network, preconditioning } = createNetworks(recipe);
    const { from, average, continue: goOn } = recipe.initialization;
    if (from !== undefined && !newest) startFrom(from, network, preconditioning, average);
    network.to({ device });
    preconditioning.to({ device });
    const emas = createAverages(recipe, network);
    const ema = [...emas.values()][recipe.ema.defaultIndex]!;
    const loss = createLoss(
      recipe,
      source.constants?.uncondEmbedding ?? zeros([1, network.config.labelDim], { device }),
    );
    const optimizer = createOptimizer(recipe, network, preconditioning);
    const schedule = scheduleOf(recipe);
    const rising = risingAgain(schedule, settings.maxSteps);
    if (first && rising !== null) warn(`lr_scheduler.total_steps ${rising}`);

    replicas = threads > 1 ? new Replicas(recipe, threads, { network, preconditioning, loss }) : null;
    samples = first
      ? await openRunSamples({
          recipe,
          source,
          network: ema.module,
          preconditioning,
          output,
          events: () => events,
          onTrouble: warn,
          signal,
        })
      : null;
    const texts = first ? await modelTexts(recipe, [...emas.keys()]) : {};
    const selfConditioning = network.config.useSelfConditioning && recipe.loss.selfCondRate > 0;
    let log: MetricsLog | null = null;
    let events: EventWriter | null = null;
    const trainer = new Trainer(
      {
        network,
        preconditioning,
        ema,
        emas,
        scaler:
          settings.precision === "16-mixed"
            ? new GradScaler({ initScale: settings.lossScale.init, growthInterval: settings.lossScale.growthInterval })
            : null,
        loss,
        optimizer,
        schedule: new WarmupCosine(optimizer, schedule),
        source,
        capture: createCapture(recipe, warn),
        replicas,
        group,
      },
      {
        ...settings,
        accumulateGradBatches: planOf(settings).accumulateGradBatches,
        seed: recipe.seed,
        ema: recipe.ema,
        samples: samples === null ? { everyNSteps: 0, offset: 0 } : recipe.samples,
        validation: recipe.validation,
        work: {
          flopsPerImage: (textTokens) => trainingFlops(network.config, textTokens, selfConditioning),
          peakFlops: peakFlops(recipe, group),
        },
      },
      {
        onLog: ({ step, ...figures }) => {
          log?.write({ step, ...figures });
          events?.scalars(step, figures);
        },
        onProgress: (progress) => {
          writer.check();
          onProgress?.(progress);
        },
        onWarning: (step, message) => {
          warn(message);
          log?.write({ step, warning: message });
        },
        onCheckpoint: () => {
          lock?.check();
          if (!first) return undefined;
          return writer.begin({ ...withOrigin(trainer.checkpoint(recipeToJson(recipe)), recipe), texts });
        },
        beforeChange: () => writer.copied(),
        onSamples: async (step) => {
          const figures = (await samples?.draw(step)) ?? {};
          if (Object.keys(figures).length === 0) return;
          log?.write({ step, ...figures });
          events?.scalars(step, figures);
        },
        onValidate: async (step) => {
          const networks = { network, average: ema.module, preconditioning };
          const figures = await validation!.measure(networks, signal);
          if (figures === null) return; // asked to stop
          log?.write({ step, ...figures });
          events?.scalars(step, figures);
        },
      },
    );
    if (newest) {
      scope(() => {
        trainer.restore(loadTrainingCheckpoint(newest.path));
      });
      onMessage(`resumed at step ${trainer.step} from ${newest.path}`);
      if (first)
        for (const path of setAsideNewer(checkpoints, newest.step))
          onMessage(`a later checkpoint is set aside: ${path}`);
    } else if (from !== undefined && goOn) {
      using published = PublishedCheckpoint.open(from);
      for (const difference of continuePublished(published, trainer, recipe)) onMessage(difference);
      onMessage(`continues at step ${trainer.step} from ${from}`);
    }
    // Without reweighting the loss does not depend on the preconditioning, whose only parameters are the log-
    // variance's.
    const reweights = recipe.preconditioning.do_gradnorm_reweighting === true;
    await group.synchronize({ network, ...(reweights && { preconditioning }) });
    if (first) {
      writeFileAtomic(join(output, "recipe.yaml"), recipeToYaml(recipe), { overwrite: true });
      log = new MetricsLog(join(output, "log.jsonl"), trainer.step, warn);
    }
    if (first && recipe.logger.tensorboard)
      events = new EventWriter({
        folder: join(output, "tensorboard"),
        firstStep: trainer.step === 0 ? 0 : trainer.step + 1,
        onTrouble: warn,
      });
    const parameters = [...network.parameters()].reduce((sum, parameter) => sum + parameter.numel, 0);
    onMessage(
      `network of ${wholeNumber(parameters)} parameters, ${wholeNumber(settings.maxSteps)} steps of ${wholeNumber(settings.batchSize)} samples${within(settings.maxMinutes)}, ${settings.precision}, ${device}${group.isAlone ? "" : ` × ${group.worldSize}`}`,
    );
    if (first && device !== "cpu") writer.reserve(trainer.checkpointForms());
    let finished: boolean;
    try {
      finished = await trainer.run(signal, deadline);
      await writer.settled();
    } finally {
      log?.close();
      events?.close();
    }
    const { constants } = source;
    const outOfTime = trainer.isOutOfTime;
    const exported = first && (finished || outOfTime) && constants ? join(output, "export") : null;
    if (exported !== null && constants)
      await replaceFolder(exported, (folder) =>
        exportRelease({ recipe, output: folder, network: ema.module, preconditioning, constants }),
      );
    // The launcher may end all processes some time after the first has gone; so none goes before rank 0 has stored all.
    await group.barrier();
    const checkpoint = listCheckpoints(checkpoints).at(-1)?.path ?? null;
    return { finished, ...(outOfTime && { outOfTime }), step: trainer.step, checkpoint, exported };
  } finally {
    await writer.close();
    samples?.dispose();
    await replicas?.close();
    await validation?.close();
    await source.close();
  }
}

/** A frozen model that is not there would be missed at the end, by the release. @throws InvalidInputError */
async function refuseMissingParts({ data, network }: Recipe): Promise<void> {
  const checks = await checkFrozenParts(data, parseRinConfig(network));
  const missing = checks.filter(({ status }) => status === "missing");
  if (missing.length > 0)
    throw new InvalidInputError(
      missing.map(({ subject, finding, remedy }) => `${subject}: ${finding}; ${remedy}`).join("; "),
    );
}

/** Adds what is known beside of the run. */
function withOrigin(checkpoint: TrainingCheckpoint, { trainer }: Recipe): TrainingCheckpoint {
  const { state } = checkpoint;
  const origin = {
    globalBatch: trainer.batchSize,
    samplesSeen: state.step * trainer.batchSize,
    processes: planOf(trainer).worldSize,
    code: { miro: version(), torch: buildInfo().torchVersion },
  };
  return { ...checkpoint, state: { ...state, origin } };
}

/**
 * A stored recipe with the settings that have come since, at their defaults; as it is where it is no longer a valid
 * one.
 */
export function recipeWithDefaults(stored: unknown): unknown {
  try {
    return recipeToJson(parseRecipe(stored));
  } catch {
    return stored;
  }
}
