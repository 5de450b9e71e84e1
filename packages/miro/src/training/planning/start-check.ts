/**
 * What would keep a run from starting, or from coming to its end, besides its data: found all at once, without starting
 * it. `miro train --dry-run` and `miro launch` ask the same.
 */
import { accessSync, constants, existsSync, readdirSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { cuda } from "@miro-t2i/torch";
import { MiroError, systemReason } from "../../errors.js";
import { FileLock } from "../../files/file-lock.js";
import { formatMemory, formatSize } from "../../files/sizes.js";
import { readJson } from "../../files/whole-files.js";
import { message, option } from "../../message.js";
import { parseRinConfig, rinConfigToJson } from "../../networks/config.js";
import { wholeNumber } from "../../numbers.js";
import { modelOrBundled } from "../../pipeline/loading/bundled.js";
import { openReleaseFiles } from "../../pipeline/loading/checkpoint.js";
import { checkDevice, cudaIndex } from "../../pipeline/loading/device.js";
import { freeBytes } from "../../pipeline/loading/model-list.js";
import { isRun } from "../../pipeline/loading/run-checkpoint.js";
import { openRunModel } from "../../pipeline/loading/run-model.js";
import { availableMemory } from "../../rewards/memory.js";
import { checkFrozenParts } from "../batches/part-check.js";
import { type DataCheck, sourceOf } from "../batches/sources.js";
import { growsInto } from "../loop/grow-patches.js";
import { checkProcesses } from "../loop/run.js";
import { recipeWithDefaults } from "../loop/train-process.js";
import { rankPlaceOf } from "../process-group/launch-environment.js";
import { type Recipe, recipeToJson } from "../recipes/recipe.js";
import { recipeChanges } from "../recipes/recipe-changes.js";
import { SampleScores } from "../samples/sample-scores.js";
import { readEmbeddedTestbed } from "../samples/testbed.js";
import { checkpointToResume, listCheckpoints, type TrainingState } from "../state/checkpoint.js";
import { PublishedCheckpoint, TORCH_FILE } from "../state/published-checkpoint.js";
import { RUN_LOCK } from "../state/run-lock.js";
import { type MemoryPlan, memoryPlan } from "./memory-plan.js";
import { type ModelSize, modelSize } from "./model-size.js";

/** How a run would be started. */
export interface StartOptions {
  /** Folder of the run. */
  output: string;
  resume?: boolean | number | undefined;
  allowChanges?: boolean | undefined;
  /**
   * False: another machine will train, as those of a cluster do; the devices and the memory of this one say nothing.
   */
  here?: boolean | undefined;
}

/** Looks at everything but the data. */
export async function checkStart(recipe: Recipe, options: StartOptions): Promise<DataCheck[]> {
  const size = modelSize(recipe);
  const { textTokens } = sourceOf(recipe.data).facts(recipe.data, parseRinConfig(recipe.network));
  return [
    ...(options.here === false ? [] : checkMachine(recipe, memoryPlan(recipe, size, textTokens))),
    ...(await checkFrozenParts(recipe.data, parseRinConfig(recipe.network))),
    ...checkInitialWeights(recipe),
    ...checkSamples(recipe),
    ...checkOutput(recipe, options),
    checkDisk(recipe, size, options.output),
  ];
}

/** Runs a check whose errors are findings. @param remedy what puts it right */
function finding(subject: string, check: () => string, remedy?: DataCheck["remedy"]): DataCheck {
  try {
    return { status: "ok", subject, finding: check() };
  } catch (error) {
    if (!(error instanceof Error) || error instanceof TypeError) throw error;
    const told = error.message.startsWith(`${subject}: `) ? error.message.slice(subject.length + 2) : error.message;
    return { status: "missing", subject, finding: told, ...(remedy !== undefined && { remedy }) };
  }
}

/** The devices of this machine, and their memory. */
function checkMachine({ trainer }: Recipe, plan: MemoryPlan): DataCheck[] {
  const { device, devices, numNodes } = trainer;
  if (numNodes > 1)
    return [
      {
        status: "note",
        subject: "trainer.num_nodes",
        finding: `${numNodes} machines train, whose devices and memory are not looked at from here`,
      },
    ];
  const devicesFound = finding("trainer.device", () => {
    checkProcesses(trainer, rankPlaceOf(process.env));
    return `${checkDevice(device, "trainer.device")}${devices > 1 ? ` × ${devices}` : ""}`;
  });
  return devicesFound.status === "missing" ? [devicesFound] : [devicesFound, checkMemory(trainer, plan)];
}

/** Activations are estimated within so much of what they are. */
const ESTIMATE = 0.8;

function checkMemory({ device, devices }: Recipe["trainer"], { total, activations }: MemoryPlan): DataCheck {
  const gpu = cudaIndex(device);
  const there = gpu === null ? availableMemory() : cuda.devices()[gpu]!.memoryBytes;
  const needed = gpu === null ? devices * total : total;
  const least = gpu === null ? devices * (total - activations * (1 - ESTIMATE)) : total - activations * (1 - ESTIMATE);
  const figures = `about ${formatMemory(needed)} of ${formatMemory(there)}${gpu === null ? " that are free" : " of the GPU"}`;
  if (needed <= there) return { status: "ok", subject: "memory", finding: figures };
  return {
    status: least > there ? "missing" : "note",
    subject: "memory",
    finding: figures,
    remedy: "a smaller trainer.device_batch_size computes fewer samples at once, in more accumulation steps",
  };
}

/** Arguments of a network that change none of its tensors. */
const WITHOUT_TENSORS = new Set([
  "num_cond_tokens",
  "compute_dropout",
  "rw_stochastic_depth",
  "compute_stochastic_depth",
  "coherence_dropout",
  "dropout_strategy",
]);

/** The weights that a run starts with. */
function checkInitialWeights({ initialization, network }: Recipe): DataCheck[] {
  const { from } = initialization;
  if (from === undefined) return [];
  const check = () => {
    if (TORCH_FILE.test(from)) {
      PublishedCheckpoint.open(from)[Symbol.dispose]();
      return from;
    }
    using files = isRun(from) ? openRunModel(from) : openReleaseFiles(modelOrBundled(from));
    const there = rinConfigToJson(files.config.network) as Record<string, unknown>;
    const grows = growsInto(files.config.network, parseRinConfig(network));
    const differ = Object.keys(network).filter(
      (key) =>
        !WITHOUT_TENSORS.has(key) &&
        !(key === "patch_size" && grows) &&
        JSON.stringify(there[key]) !== JSON.stringify(network[key]),
    );
    if (differ.length === 0) return from;
    const values = differ.map(
      (key) => `network.${key} is ${JSON.stringify(there[key])} there and ${JSON.stringify(network[key])} here`,
    );
    throw new MiroError(`${from}: is of another network: ${values.join(", ")}`);
  };
  return [finding("initialization.from", check, "name a model with the sizes of the recipe, or leave it out")];
}

/** What is drawn on the way. */
function checkSamples({ name, data, network, samples }: Recipe): DataCheck[] {
  const { everyNSteps, prompts, testbed, scorers } = samples;
  if (everyNSteps === 0 || (testbed === undefined && prompts.length === 0)) return [];
  const config = parseRinConfig(network);
  const { autoencoder, textEncoder, release } = sourceOf(data).facts(data, config);
  const checks: DataCheck[] = [];
  if (testbed === undefined && (autoencoder === undefined || textEncoder === undefined))
    return [
      {
        status: "note",
        subject: "samples",
        finding: "no sheets are drawn: the prompts need data.text_encoder, the pictures data.autoencoder",
      },
    ];
  if (testbed !== undefined) {
    const check = () => {
      if (autoencoder === undefined || release === undefined)
        throw new MiroError("drawing needs data.autoencoder, and data.text_encoder or data.uncond_embedding");
      const { embeddingsName, testbedCount: count } = samples;
      const read = readEmbeddedTestbed(testbed, { embeddingsName, width: config.labelDim, count });
      for (const { embeddings } of read) embeddings.dispose();
      return `${wholeNumber(read.length)} prompts with their embeddings`;
    };
    checks.push(finding("samples.testbed", check));
  }
  if (scorers.length > 0) {
    const check = () => {
      const scores = new SampleScores(samples, { device: "cpu" });
      if (autoencoder !== undefined && existsSync(autoencoder)) scores.checkFor(name, autoencoder);
      return scorers.join(", ");
    };
    checks.push(finding("samples.scorers", check));
  }
  return checks;
}

/** The folder of the run: whether it can be written, and what is in it. */
function checkOutput(recipe: Recipe, { output, resume = false, allowChanges = false }: StartOptions): DataCheck[] {
  const place = existingFolder(output);
  const writable = finding("output", () => {
    if (!statSync(place).isDirectory()) throw new MiroError(`${output}: cannot be made: ${place} is a file`);
    try {
      accessSync(place, constants.W_OK | constants.X_OK);
    } catch (error) {
      throw new MiroError(`${output}: cannot be written: ${systemReason(error)}`);
    }
    return output;
  });
  if (writable.status === "missing")
    return [{ ...writable, remedy: message`${option("output", "DIR")} names another folder` }];
  const checks = [writable];
  const owner = existsSync(output) ? FileLock.holder(output, RUN_LOCK) : null;
  if (owner !== null)
    checks.push({
      status: "missing",
      subject: "output",
      finding: `${output}: ${owner.text} trains here`,
      remedy: message`wait for its end, or name another ${option("output")}`,
    });
  const stored = listCheckpoints(join(output, "checkpoints"));
  if (stored.length === 0) return checks;
  if (resume === false) {
    checks.push({
      status: "missing",
      subject: "output",
      finding: `${output}: holds a run at step ${wholeNumber(stored.at(-1)!.step)}`,
      remedy: message`continue it with ${option("resume", true)}, or name another ${option("output")}`,
    });
    return checks;
  }
  checks.push(
    finding("checkpoint", () => {
      const { path, step } = checkpointToResume(join(output, "checkpoints"), resume)!;
      const state = readJson(join(path, "state.json")) as TrainingState;
      const changes = allowChanges
        ? []
        : recipeChanges(recipeWithDefaults(state.recipe), recipeToJson(recipe)).map(({ key }) => key);
      if (changes.length > 0)
        throw new MiroError(`${path}: the run was made by another recipe, which differs in ${changes.join(", ")}`);
      return `goes on at step ${wholeNumber(step)}`;
    }),
  );
  return checks;
}

/** Whether there is room for the checkpoints that are kept, the one that is being written, and the release. */
function checkDisk({ trainer, ema }: Recipe, size: ModelSize, output: string): DataCheck {
  const FLOAT = 4;
  const trainable = size.network.trainable + size.preconditioning.trainable;
  const all = trainable + size.network.buffers + size.preconditioning.buffers;
  const averages = [ema.decay].flat().length * (size.network.trainable + size.network.buffers);
  const checkpoint = FLOAT * (all + averages + 2 * trainable);
  const { keepLast, keepEveryNSteps, maxSteps } = trainer;
  const milestones = keepEveryNSteps === 0 ? 0 : Math.floor(maxSteps / keepEveryNSteps);
  const count = keepLast + milestones + 1;
  const needed = count * checkpoint + (FLOAT / 2) * all;
  const there = sizeBelow(join(output, "checkpoints"));
  const free = freeBytes(output);
  const words = `${wholeNumber(count)} checkpoints of ${formatSize(checkpoint)} and a release: ${formatSize(needed)}`;
  if (free === null) return { status: "note", subject: "disk", finding: `${words}; what is free is not known` };
  const finding = `${words}; ${formatSize(free)} are free${there > 0 ? `, ${formatSize(there)} are there already` : ""}`;
  if (needed <= free + there) return { status: "ok", subject: "disk", finding };
  return {
    status: "missing",
    subject: "disk",
    finding,
    remedy: message`free some, name an ${option("output")} on another disk, or keep fewer: trainer.keep_last, trainer.keep_every_n_steps`,
  };
}

/** The folder itself, or the nearest above it that is there. */
function existingFolder(path: string): string {
  let at = resolve(path);
  while (!existsSync(at) && dirname(at) !== at) at = dirname(at);
  return at;
}

function sizeBelow(folder: string): number {
  if (!existsSync(folder)) return 0;
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + (statSync(join(parentPath, name), NONE)?.size ?? 0), 0);
}

/** A run that goes on removes checkpoints meanwhile. */
const NONE = { throwIfNoEntry: false } as const;
