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
import { buildInfo, manualSeed } from "@miro-t2i/torch";
import { type BatchSpan, samplesBefore } from "../../data/shards/order.js";
import { InvalidInputError } from "../../errors.js";
import { writeFileAtomic } from "../../files/whole-files.js";
import { parseRinConfig } from "../../networks/config.js";
import { trainingFlops } from "../../networks/flops.js";
import type { Rin } from "../../networks/rin.js";
import { counted } from "../../numbers.js";
import type { StoredCheckpoint } from "../../pipeline/loading/run-checkpoint.js";
import { streamSeed } from "../../random/streams.js";
import { version } from "../../version.js";
import { withThreads } from "../../with-threads.js";
import { checkFrozenParts } from "../batches/part-check.js";
import { RunRecords } from "../logging/run-records.js";
import type { DataParallelGroup } from "../process-group/process-group.js";
import { planOf } from "../recipes/batch-plan.js";
import { type Recipe, recipeToJson, recipeToYaml } from "../recipes/recipe.js";
import { changesSince, recipeDifferences, refuseRecipeChanges } from "../recipes/recipe-changes.js";
import { unusedSettings } from "../recipes/unused-settings.js";
import { openRunSamples, type RunSamples } from "../samples/run-samples.js";
import {
  listCheckpoints,
  readTrainingState,
  restoreFrom,
  setAsideNewer,
  spansAfter,
  type TrainingCheckpoint,
} from "../state/checkpoint.js";
import { CheckpointWriter } from "../state/checkpoint-writer.js";
import { constantsOf, writeConstants } from "../state/data-constants.js";
import { exportRelease, modelTexts } from "../state/export.js";
import { continuePublished, PublishedCheckpoint } from "../state/published-checkpoint.js";
import type { RunLock } from "../state/run-lock.js";
import { assemble, createCapture, peakFlops } from "./assemble.js";
import { checkInitialWeights } from "./initial-weights.js";
import { risingAgain, scheduleOf } from "./lr-schedule.js";
import { openBatches, openValidation } from "./open-data.js";
import { noteData, openRunFolder, withRunLock, writeExport } from "./run-folder.js";
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
  return withThreads(options.recipe.trainer.threads, () =>
    group.isFirst
      ? withRunLock(options, (lock) => trainInGroup(options, group, lock))
      : trainInGroup(options, group, null),
  );
}

/** What one process of the group does. @param lock of the run's folder, which the process that writes there holds */
async function trainInGroup(options: RunOptions, group: DataParallelGroup, lock: RunLock | null): Promise<RunResult> {
  const { recipe, output, resume = false, allowChanges = false, signal, onProgress } = options;
  const deadline = deadlineOf(recipe.trainer.maxMinutes);
  const checkpoints = join(output, "checkpoints");
  const first = group.isFirst;
  const onMessage = (first && options.onMessage) || (() => {});
  const onWarning = options.onWarning ?? options.onMessage ?? (() => {});
  /** Says what must not get lost, whoever says it. */
  const warn = first ? onWarning : (message: string) => onWarning(`rank ${group.rank}: ${message}`);
  const versions = `miro-t2i ${version()} with libtorch ${buildInfo().torchVersion}`;
  await group.agree("the version", versions, (first) => `here it is ${versions}, there ${first}`);
  const { newest, spans } = await startingPoint(options, group);
  if (resume !== false && !newest) onMessage(`${output}: no checkpoint yet, starting at step 0`);

  const { trainer: settings } = recipe;
  const { device, replicas: threads = 1 } = settings;
  onMessage("opening the data");
  const json = recipeToJson(recipe);
  await group.agree("the recipe", JSON.stringify(json), (first) => recipeDifferences(JSON.parse(first), json));
  await refuseMissingModels(recipe, newest === undefined);
  const source = await group.firstRankFirst("opening the data", () =>
    openBatches(recipe, group, { spans, signal, onMessage, warn }),
  );
  let replicas: Replicas | null = null;
  let validation: Validation | null = null;
  let samples: RunSamples | null = null;
  const { keepLast, keepEveryNSteps } = settings;
  const writer = new CheckpointWriter(checkpoints, { keepLast, keepEveryNSteps });
  const records = new RunRecords();
  try {
    await group.agree("the data", source.identity ?? "", () => "the shards that this machine sees are others");
    validation = await group.firstRankFirst("opening the validation's data", () =>
      openValidation(recipe, source, group, { signal, onMessage }),
    );
    manualSeed(streamSeed(recipe.seed, "initialWeights"));
    const { constants } = source;
    const parts = assemble(recipe, { uncondEmbedding: constants?.uncondEmbedding, initializes: !newest });
    const { network, preconditioning, ema, emas } = parts;
    const rising = risingAgain(scheduleOf(recipe), settings.maxSteps);
    if (first && rising !== null) warn(`lr_scheduler.total_steps ${rising}`);
    for (const { subject, finding } of unusedSettings(recipe)) onMessage(`${subject} ${finding}`);

    replicas = threads > 1 ? new Replicas(recipe, threads, parts) : null;
    const drawn = { recipe, source, network: ema.module, preconditioning };
    samples = first ? await openRunSamples({ ...drawn, output, records, onTrouble: warn, signal }) : null;
    const [draws] = await group.sum([Number(samples !== null)]);
    const texts = first ? await modelTexts(recipe, [...emas.keys()]) : {};
    const capture = createCapture(recipe, warn);
    await group.agree("whether CUDA graphs are there", String(capture !== null));
    const store = async () => {
      lock?.check();
      if (first) await writer.begin({ ...withOrigin(trainer.checkpoint(recipeToJson(recipe)), recipe), texts });
    };
    const networks = { network, average: ema.module, preconditioning };
    const trainer = new Trainer(
      { ...parts, source, capture, replicas, group },
      {
        ...trainerOptions(recipe, network, group),
        spans,
        resumes: newest !== undefined,
        samples: draws ? recipe.samples : { everyNSteps: 0, offset: 0 },
      },
      {
        onLog: (record) => records.figures(record),
        onProgress: (progress) => {
          writer.check();
          onProgress?.(progress);
        },
        onWarning: (step, message) => {
          warn(message);
          records.warning(step, message);
        },
        onCheckpoint: store,
        beforeChange: () => writer.copied(),
        onSamples: async (step) => {
          if (samples === null || (step === newest?.step && samples.isDrawn(step))) return;
          group.note(`drawing the samples of step ${step}`);
          records.measured(step, await samples.draw(step));
        },
        onValidate: async (step) => {
          const [isMeasured] = await group.sum([Number(records.has(step, "val/loss"))]);
          if (isMeasured || validation === null) return true;
          group.note(`validating step ${step}`);
          const figures = await validation.measure(networks, signal);
          records.measured(step, figures);
          return figures !== null;
        },
      },
    );
    // The first that is written: a run that cannot start leaves nothing.
    if (first) noteData(join(output, "data.json"), source, { step: newest?.step ?? 0, allowChanges, onMessage });
    const known = constantsOf(source);
    if (first && known !== null) writeConstants(output, known);
    restore(trainer, recipe, newest?.path, onMessage);
    if (newest && first)
      for (const path of setAsideNewer(checkpoints, newest.step)) onMessage(`a later checkpoint is set aside: ${path}`);
    await group.synchronize({ network, preconditioning }, { reduces: capture === null });
    if (first) {
      writeFileAtomic(join(output, "recipe.yaml"), recipeToYaml(recipe), { overwrite: true });
      records.begin({ output, step: trainer.step, tensorboard: recipe.logger.tensorboard, onTrouble: warn });
    }
    onMessage(describe(recipe, network, group));
    if (first && device !== "cpu") writer.reserve(trainer.checkpointForms());
    const finished = await trainer.run(signal, deadline);
    group.note("writing the checkpoint");
    await writer.settled();
    const outOfTime = trainer.isOutOfTime;
    let exported: string | null = null;
    if (first && (finished || outOfTime) && constants) {
      group.note("writing the release");
      exported = await writeExport(output, (folder) =>
        exportRelease({ recipe, output: folder, network: ema.module, preconditioning, constants }),
      );
    }
    // The launcher may end all processes some time after the first has gone; so none goes before rank 0 has stored all.
    await group.barrier();
    const checkpoint = listCheckpoints(checkpoints).at(-1)?.path ?? null;
    return { finished, ...(outOfTime && { outOfTime }), step: trainer.step, checkpoint, exported };
  } finally {
    records.close();
    await writer.close();
    samples?.dispose();
    await replicas?.close();
    await validation?.close();
    await source.close();
  }
}

/**
 * The checkpoint that a run goes on from, if any, and the sizes that its batches have.
 * @throws InvalidInputError where the recipe is another than that of the checkpoint, unless that is allowed
 */
async function startingPoint(
  { recipe, output, resume = false, allowChanges = false }: RunOptions,
  group: DataParallelGroup,
): Promise<{ newest: StoredCheckpoint | undefined; spans: BatchSpan[] }> {
  const { batchSize } = recipe.trainer;
  const newest = await openRunFolder({ output, resume }, group);
  if (newest === undefined) return { newest, spans: [{ from: 0, batchSize }] };
  const stored = readTrainingState(newest.path);
  if (!allowChanges) refuseRecipeChanges(newest.path, changesSince(stored.recipe, recipe));
  return { newest, spans: spansAfter(stored, batchSize) };
}

/** What the recipe says of the steps. */
function trainerOptions(recipe: Recipe, network: Rin, group: DataParallelGroup) {
  const { trainer, seed, ema, validation, loss } = recipe;
  const selfConditioning = network.config.useSelfConditioning && loss.selfCondRate > 0;
  return {
    ...trainer,
    accumulateGradBatches: planOf(trainer).accumulateGradBatches,
    seed,
    ema,
    validation,
    work: {
      flopsPerImage: (textTokens: number) => trainingFlops(network.config, textTokens, selfConditioning),
      peakFlops: peakFlops(recipe, group),
    },
  };
}

/** Takes over where a checkpoint ended: of this run, or of the one that the recipe continues. */
function restore(
  trainer: Trainer,
  recipe: Recipe,
  checkpoint: string | undefined,
  onMessage: (message: string) => void,
): void {
  const { from, continue: continues } = recipe.initialization;
  if (checkpoint !== undefined) {
    restoreFrom(checkpoint, (stored) => trainer.restore(stored));
    onMessage(`resumed at step ${trainer.step} from ${checkpoint}`);
  } else if (from !== undefined && continues) {
    using published = PublishedCheckpoint.open(from);
    for (const difference of continuePublished(published, trainer, recipe)) onMessage(difference);
    onMessage(`continues at step ${trainer.step} from ${from}`);
  }
}

/** What is trained, for how long and where. */
function describe({ trainer }: Recipe, network: Rin, group: DataParallelGroup): string {
  const { maxSteps, batchSize, maxMinutes, precision, device } = trainer;
  const parameters = [...network.parameters()].reduce((sum, parameter) => sum + parameter.numel, 0);
  const steps = `${counted(maxSteps, "step")} of ${counted(batchSize, "sample")}${within(maxMinutes)}`;
  const where = `${device}${group.isAlone ? "" : ` × ${group.worldSize}`}`;
  return `network of ${counted(parameters, "parameter")}, ${steps}, ${precision}, ${where}`;
}

/**
 * A frozen model that is not there would be missed at the end, by the release; weights to start with, once the data are
 * open. @throws InvalidInputError
 */
async function refuseMissingModels(recipe: Recipe, initializes: boolean): Promise<void> {
  const parts = await checkFrozenParts(recipe.data, parseRinConfig(recipe.network));
  const checks = [...parts, ...(initializes ? checkInitialWeights(recipe) : [])];
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
    samplesSeen: samplesBefore(state.step, state.batches!),
    processes: planOf(trainer).worldSize,
    code: { miro: version(), torch: buildInfo().torchVersion },
  };
  return { ...checkpoint, state: { ...state, origin } };
}
