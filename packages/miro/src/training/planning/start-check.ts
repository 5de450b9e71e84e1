/**
 * What would keep a run from starting, or from coming to its end, besides its data: found all at once, without starting
 * it. `miro train --dry-run` and `miro launch` ask the same.
 */
import { existsSync } from "node:fs";
import { MiroError } from "../../errors.js";
import { parseRinConfig } from "../../networks/config.js";
import { counted } from "../../numbers.js";
import { checkDevice, cudaIndex } from "../../pipeline/loading/device.js";
import { type DataCheck, finding } from "../batches/finding.js";
import { checkFrozenParts } from "../batches/part-check.js";
import { sourceFacts } from "../batches/sources.js";
import { checkInitialWeights } from "../loop/initial-weights.js";
import { risingAgain, scheduleOf } from "../loop/lr-schedule.js";
import { checkProcesses } from "../loop/run.js";
import { rankPlaceOf } from "../process-group/launch-environment.js";
import type { Recipe } from "../recipes/recipe.js";
import { changesSince } from "../recipes/recipe-changes.js";
import { unusedSettings } from "../recipes/unused-settings.js";
import { SampleScores } from "../samples/sample-scores.js";
import { readEmbeddedTestbed } from "../samples/testbed.js";
import { checkDisk, checkOutput, type DiskNeeds, type StartOptions } from "./folder-check.js";
import { checkMemory } from "./memory-check.js";
import { type MemoryPlan, memoryPlan } from "./memory-plan.js";
import { type ModelSize, modelSize } from "./model-size.js";

/** Looks at everything but the data. */
export async function checkStart(recipe: Recipe, options: StartOptions): Promise<DataCheck[]> {
  const size = modelSize(recipe);
  const { textTokens } = sourceFacts(recipe.data, parseRinConfig(recipe.network));
  return [
    ...(options.here === false ? [] : checkMachine(recipe, memoryPlan(recipe, size, textTokens))),
    ...(await checkFrozenParts(recipe.data, parseRinConfig(recipe.network))),
    ...checkInitialWeights(recipe),
    ...checkSchedule(recipe),
    ...checkSamples(recipe),
    ...unusedSettings(recipe).map((unused) => ({ status: "note" as const, ...unused })),
    ...checkOutput(options, (stored) => changesSince(stored, recipe)),
    checkDisk(needsOfDisk(recipe, size), options.output),
  ];
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
  return devicesFound.status === "missing" ? [devicesFound] : [devicesFound, checkRunMemory(trainer, plan)];
}

/** Activations are estimated within so much of what they are. */
const ESTIMATE = 0.8;

function checkRunMemory({ device, devices }: Recipe["trainer"], { total, activations }: MemoryPlan): DataCheck {
  const processes = cudaIndex(device) === null ? devices : 1;
  const least = processes * (total - activations * (1 - ESTIMATE));
  return checkMemory(device, { needed: processes * total, least }, SMALLER_BATCH);
}

const SMALLER_BATCH = "a smaller trainer.device_batch_size computes fewer samples at once, in more accumulation steps";

/** Whether the run ends where its learning rate does. */
function checkSchedule(recipe: Recipe): DataCheck[] {
  const finding = risingAgain(scheduleOf(recipe), recipe.trainer.maxSteps);
  return finding === null ? [] : [{ status: "note", subject: "lr_scheduler.total_steps", finding }];
}

/** What is drawn on the way. */
function checkSamples({ name, data, network, samples }: Recipe): DataCheck[] {
  const { everyNSteps, prompts, testbed, scorers } = samples;
  if (everyNSteps === 0 || (testbed === undefined && prompts.length === 0)) return [];
  const config = parseRinConfig(network);
  const { autoencoder, textEncoder, release } = sourceFacts(data, config);
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
      return `${counted(read.length, "prompt")} with their embeddings`;
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

/** The checkpoints that are kept, the one that is being written, and the release. */
function needsOfDisk({ trainer, ema }: Recipe, size: ModelSize): DiskNeeds {
  const trainable = size.network.trainable + size.preconditioning.trainable;
  const all = trainable + size.network.buffers + size.preconditioning.buffers;
  const averages = [ema.decay].flat().length * (size.network.trainable + size.network.buffers);
  const { keepLast, keepEveryNSteps, maxSteps } = trainer;
  const milestones = keepEveryNSteps === 0 ? 0 : Math.floor(maxSteps / keepEveryNSteps);
  return {
    checkpoints: keepLast + milestones + 1,
    checkpoint: FLOAT * (all + averages + 2 * trainable),
    release: (FLOAT / 2) * all,
  };
}

const FLOAT = 4;
