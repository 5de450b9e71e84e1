/** What a training is made of, by its recipe: networks, EMA weights, the optimizer, and what the machine can do. */
import { hasCudaGraphs, nn, type Tensor, zeros } from "@miro-t2i/torch";
import { AdamW, GradScaler, Lamb } from "@miro-t2i/torch/optim";
import { type Capture, graphsOn } from "../../flow/recording.js";
import type { FlowPrecond } from "../../networks/precond.js";
import type { Rin } from "../../networks/rin.js";
import { cudaIndex } from "../../pipeline/loading/device.js";
import { measurePeakFlops } from "../logging/peak-flops.js";
import type { DataParallelGroup } from "../process-group/process-group.js";
import { MATMUL_DTYPE } from "../recipes/precision.js";
import type { Recipe } from "../recipes/recipe.js";
import { Ema, emaName } from "./ema.js";
import { scheduleOf, WarmupCosine } from "./lr-schedule.js";
import { createLoss, createNetwork, createNetworks, startFrom } from "./model.js";
import { parameterGroups } from "./parameter-groups.js";
import type { TrainerParts, TrainingOptimizer } from "./trainer-parts.js";

/** What {@link assemble} starts from. */
export interface AssembleOptions {
  /** Text states of the empty prompt, (1, tokens, label dimension); default: zeros. */
  uncondEmbedding?: Tensor | undefined;
  /** Whether weights are taken from where the recipe says; else they are drawn from the global generator. */
  initializes?: boolean;
}

/** What is trained, and what trains it, on the recipe's device. */
export function assemble(recipe: Recipe, { uncondEmbedding, initializes = false }: AssembleOptions = {}) {
  const { device, precision, lossScale } = recipe.trainer;
  const { network, preconditioning } = createNetworks(recipe);
  const { from, average } = recipe.initialization;
  if (from !== undefined && initializes) startFrom(from, network, preconditioning, average);
  network.to({ device });
  preconditioning.to({ device });
  const emas = createEmaWeights(recipe, network);
  const optimizer = createOptimizer(recipe, network, preconditioning);
  return {
    network,
    preconditioning,
    emas,
    ema: [...emas.values()][recipe.ema.defaultIndex]!,
    loss: createLoss(recipe, uncondEmbedding ?? zeros([1, network.config.labelDim], { device })),
    optimizer,
    schedule: new WarmupCosine(optimizer, scheduleOf(recipe)),
    scaler:
      precision === "16-mixed"
        ? new GradScaler({ initScale: lossScale.init, growthInterval: lossScale.growthInterval })
        : null,
  } satisfies Partial<TrainerParts>;
}

/** What the machine can do at the recipe's precision, as it says itself or as it is measured. */
export function peakFlops({ logger, trainer }: Recipe, group: DataParallelGroup): number {
  if (logger.peakTflops !== undefined) return logger.peakTflops * 1e12;
  // Replicas and processes compute beside each other, each with as many threads.
  return (
    (trainer.replicas ?? 1) *
    group.worldSize *
    measurePeakFlops({ device: trainer.device, dtype: MATMUL_DTYPE[trainer.precision] })
  );
}

/**
 * How gradients are recorded as CUDA graphs; null where they are not to be.
 * @param warn told when they were to be, and cannot
 */
export function createCapture({ trainer }: Recipe, warn: (warning: string) => void): Capture | null {
  const device = cudaIndex(trainer.device);
  if (!trainer.cudaGraphs || device === null) return null;
  if (!hasCudaGraphs(device)) {
    warn(`trainer.cuda_graphs: graphs are not there for ${trainer.device}; the run goes on without, which costs speed`);
    return null;
  }
  return graphsOn(device);
}

/** The EMA weights by their published names, on the device of the network. */
function createEmaWeights(recipe: Recipe, network: Rin): Map<string, Ema<Rin>> {
  const { decay, warmup, everyNSteps } = recipe.ema;
  return new Map(
    [decay].flat().map((decay, i) => {
      const copy = nn.init.skipped(() => createNetwork(recipe)).to({ device: recipe.trainer.device });
      return [emaName(decay, i), new Ema(network, copy, { decay, warmup, everyNSteps })];
    }),
  );
}

/** The optimizer with its parameter groups. */
function createOptimizer(recipe: Recipe, network: Rin, preconditioning: FlowPrecond): TrainingOptimizer {
  const { name, excludeLnAndBiasesFromWeightDecay, ...settings } = recipe.optimizer;
  const groups = parameterGroups(network, preconditioning, settings.weightDecay, excludeLnAndBiasesFromWeightDecay);
  if (name === "lamb") return new Lamb(groups, { ...settings, decouple: false });
  return new AdamW(
    groups.map(({ layerAdaptation: _, ...group }) => group),
    settings,
  );
}
