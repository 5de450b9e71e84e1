/** What the sections of a recipe must have to do with each other. */
import { describe } from "../../errors.js";
import { checkRinConfig, parseRinConfig, type RinConfig, rinConfigToJson } from "../../networks/config.js";
import { counted } from "../../numbers.js";
import { type RecipeFault, recipeFault } from "../batches/recipe-fault.js";
import { sourceOf } from "../batches/sources.js";
import { batchPlan } from "./batch-plan.js";
import { unknownKey } from "./checked-yaml.js";
import type { Recipe } from "./schema.js";

/**
 * Checks the rules.
 * @param refuseAll called with the faults, where there are some
 * @returns the network's arguments
 */
export function checkRules(recipe: Recipe, refuseAll: (faults: RecipeFault[]) => never): RinConfig {
  const refuse = (faults: RecipeFault[]) => {
    if (faults.length > 0) refuseAll(faults);
  };
  const unknown = Object.keys(recipe.network).filter((key) => !networkKeys.includes(key));
  if (unknown.length > 0) refuse(unknown.map((key) => unknownKey(["network", key], networkKeys)));
  refuse(initializationFaults(recipe.initialization));
  const { warmupSteps, totalSteps = recipe.trainer.maxSteps } = recipe.lrScheduler;
  if (totalSteps <= warmupSteps)
    refuse([
      recipeFault(
        "lr_scheduler.warmup_steps",
        `expected fewer than the ${counted(totalSteps, "step")} of the schedule (received ${warmupSteps})`,
      ),
    ]);
  const { condDropRate, textDropRate } = recipe.loss;
  if (condDropRate + textDropRate > 1)
    refuse([
      recipeFault(
        "loss.text_drop_rate",
        `expected at most 1 together with loss.cond_drop_rate ${condDropRate} (received ${textDropRate})`,
      ),
    ]);
  const { replicas = 1, device, devices, numNodes, cudaGraphs } = recipe.trainer;
  const plan = batchPlan(recipe.trainer);
  if ("key" in plan) refuse([plan]);
  else if (replicas > plan.deviceBatchSize)
    refuse([
      recipeFault(
        "trainer.replicas",
        `expected at most the ${counted(plan.deviceBatchSize, "sample")} that are computed at once (received ${replicas})`,
      ),
    ]);
  if (replicas > 1 && device !== "cpu")
    refuse([recipeFault("trainer.replicas", `expected 1 on ${device} (received ${replicas})`)]);
  const processes = devices * numNodes;
  if (cudaGraphs && device === "cpu")
    refuse([recipeFault("trainer.cuda_graphs", "expected false on cpu (received true)")]);
  if (processes > 1 && replicas > 1)
    refuse([
      recipeFault(
        "trainer.replicas",
        `expected 1 with ${processes} processes, which divide the batch already (received ${replicas})`,
      ),
    ]);
  if (processes > 1 && /^cuda:/.test(device))
    refuse([
      recipeFault(
        "trainer.device",
        `expected cuda with ${processes} processes; each takes a GPU of its own (received ${device})`,
      ),
    ]);
  refuse(emaFaults(recipe.ema));
  if (recipe.validation.everyNSteps > 0 && recipe.validation.root === undefined)
    refuse([
      recipeFault("validation.root", "expected the folder of the validation shards, or validation.every_n_steps: 0"),
    ]);
  const network = parseNetwork(recipe.network, refuseAll);
  const source = sourceOf(recipe.data);
  if (recipe.validation.everyNSteps > 0 && source.openValidation === undefined)
    refuse([
      recipeFault(
        "validation.every_n_steps",
        `expected 0 with data.kind ${recipe.data.kind}; only shards are validated with`,
      ),
    ]);
  refuse(source.faults?.(recipe.data, { network, loss: recipe.loss, batchSize: recipe.trainer.batchSize }) ?? []);
  return network;
}

/** The network's arguments. */
function parseNetwork(network: Record<string, unknown>, refuseAll: (faults: RecipeFault[]) => never): RinConfig {
  const checked = checkRinConfig(network);
  if ("config" in checked) return checked.config;
  return refuseAll(checked.problems.map(({ key, problem }) => recipeFault(key, problem)));
}

/** What in the EMA settings of a recipe does not fit together. */
function emaFaults({ decay, defaultIndex }: Recipe["ema"]): RecipeFault[] {
  const decays = [decay].flat();
  const faults: RecipeFault[] = [];
  if (new Set(decays).size < decays.length)
    faults.push(recipeFault("ema.decay", `expected different values (received ${decays.join(", ")})`));
  if (defaultIndex >= decays.length)
    faults.push(
      recipeFault(
        "ema.default_index",
        `expected at most ${decays.length - 1}, the last of ema.decay (received ${defaultIndex})`,
      ),
    );
  return faults;
}

/** Settings that need a training checkpoint to start from, or exclude each other. */
function initializationFaults({ from, average, continue: goOn }: Recipe["initialization"]): RecipeFault[] {
  const ofCheckpoint = from !== undefined && /\.ckpt$/i.test(from);
  if (goOn && average !== undefined)
    return [
      recipeFault(
        "initialization.average",
        "a run that continues takes the network as it was; set either average or continue, not both",
      ),
    ];
  if ((goOn || average !== undefined) && !ofCheckpoint)
    return [
      recipeFault(
        `initialization.${goOn ? "continue" : "average"}`,
        `needs a training checkpoint (FILE.ckpt) as initialization.from (received ${describe(from ?? null)})`,
      ),
    ];
  return [];
}

const networkKeys = Object.keys(
  rinConfigToJson(
    parseRinConfig({
      data_size: 2,
      num_input_channels: 1,
      label_dim: 1,
      num_cond_tokens: 1,
      data_dim: 16,
      num_latents: 8,
      latents_dim: 16,
      num_processing_layers: 1,
      num_blocks: 1,
      patch_size: 1,
      coherence_keys: ["clip_score"],
    }),
  ),
);
