/**
 * How many values the networks of a recipe have. They are built, but their weights are never written, so they take no
 * memory.
 */
import { nn, scope } from "@miro-t2i/torch";
import { createNetworks } from "../loop/model.js";
import { parameterGroups } from "../loop/parameter-groups.js";
import type { Recipe } from "../recipes/recipe.js";

/** Values of a module. */
export interface ValueCount {
  /** Values that training changes. */
  trainable: number;
  /** Constant floating-point values. */
  buffers: number;
  /** Trainable tensors. */
  tensors: number;
}

/** Values of a recipe's networks. */
export interface ModelSize {
  network: ValueCount;
  preconditioning: ValueCount;
  /** Values that weight decay (and, with Lamb, the trust ratio) acts on, and those that it leaves alone. */
  groups: { decayed: number; plain: number };
}

/** Counts the values of a recipe's networks. */
export function modelSize(recipe: Recipe): ModelSize {
  return scope(() => {
    const { network, preconditioning } = nn.init.skipped(() => createNetworks(recipe));
    const { weightDecay, excludeLnAndBiasesFromWeightDecay: exclude } = recipe.optimizer;
    const groups = parameterGroups(network, preconditioning, weightDecay, exclude);
    const values = (decayed: boolean) =>
      groups
        .filter((group) => group.layerAdaptation === decayed)
        .flatMap((group) => group.params)
        .reduce((sum, parameter) => sum + parameter.numel, 0);
    const size = {
      network: countValues(network),
      preconditioning: countValues(preconditioning),
      groups: { decayed: values(true), plain: values(false) },
    };
    network.dispose();
    preconditioning.dispose();
    return size;
  });
}

/** Values of one module. */
export function countValues(module: nn.Module): ValueCount {
  const trainable = [...module.parameters()].filter((parameter) => parameter.requiresGrad);
  const sum = (numels: number[]) => numels.reduce((a, b) => a + b, 0);
  const all = [...module.stateDict().values()].filter((tensor) => tensor.dtype.startsWith("float"));
  const values = sum(trainable.map((parameter) => parameter.numel));
  return { trainable: values, buffers: sum(all.map((tensor) => tensor.numel)) - values, tensors: trainable.length };
}
