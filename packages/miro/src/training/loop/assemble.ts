/** What a training is made of, by its recipe: EMA weights, the optimizer, and what the machine can do. */
import { hasCudaGraphs, nn } from "@miro-t2i/torch";
import { AdamW, Lamb } from "@miro-t2i/torch/optim";
import { type Capture, graphsOn } from "../../flow/recording.js";
import type { FlowPrecond } from "../../networks/precond.js";
import type { Rin } from "../../networks/rin.js";
import { cudaIndex } from "../../pipeline/loading/device.js";
import { measurePeakFlops } from "../logging/peak-flops.js";
import type { DataParallelGroup } from "../process-group/process-group.js";
import type { Recipe } from "../recipes/recipe.js";
import { Ema, emaName } from "./ema.js";
import { createNetwork } from "./model.js";
import { parameterGroups } from "./parameter-groups.js";
import type { TrainingOptimizer } from "./trainer.js";

/** What the machine can do at the recipe's precision, as it says itself or as it is measured. */
export function peakFlops({ logger, trainer }: Recipe, group: DataParallelGroup): number {
  if (logger.peakTflops !== undefined) return logger.peakTflops * 1e12;
  const dtype = ({ "32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16" } as const)[trainer.precision];
  // Replicas and processes compute beside each other, each with as many threads.
  return (trainer.replicas ?? 1) * group.worldSize * measurePeakFlops({ device: trainer.device, dtype });
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
export function createAverages(recipe: Recipe, network: Rin): Map<string, Ema<Rin>> {
  const { decay, warmup, everyNSteps } = recipe.ema;
  return new Map(
    [decay].flat().map((decay, i) => {
      const copy = nn.init.skipped(() => createNetwork(recipe)).to({ device: recipe.trainer.device });
      return [emaName(decay, i), new Ema(network, copy, { decay, warmup, everyNSteps })];
    }),
  );
}

/** The optimizer with its parameter groups. */
export function createOptimizer(recipe: Recipe, network: Rin, preconditioning: FlowPrecond): TrainingOptimizer {
  const { name, excludeLnAndBiasesFromWeightDecay, ...settings } = recipe.optimizer;
  const groups = parameterGroups(network, preconditioning, settings.weightDecay, excludeLnAndBiasesFromWeightDecay);
  if (name === "lamb") return new Lamb(groups, { ...settings, decouple: false });
  return new AdamW(
    groups.map(({ layerAdaptation: _, ...group }) => group),
    settings,
  );
}
