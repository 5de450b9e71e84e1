/**
 * Where NaN and infinity come from. A training step looks at two numbers only, its loss and the norm of all gradients;
 * when one of them is not finite, these functions find the first tensor that is not: in the batch, among the weights,
 * among the results of the modules of a forward pass that is repeated with the same draws, or among the gradients.
 */
import { isFloatingPoint, type nn, noGrad, scope, Tensor } from "@miro-t2i/torch";
import type { LossBatch } from "../../flow/loss.js";

/** A tensor with its name. */
type Named = readonly [name: string, tensor: Tensor];

/** What to look through for {@link findNonFinite}. */
export interface NonFiniteOptions {
  model: { network: nn.Module; preconditioning: nn.Module };
  batch: LossBatch;
  /** Repeats the step's forward passes over the batch, with the step's draws. Gradients are not recorded. */
  forward: () => void;
}

/**
 * The first tensor of a step's forward passes that holds NaN or infinity, in words:
 * `the batch's x0 (8, 4, 32, 32) float32: 3 NaN`, `the weight network.latents …`,
 * `the output of network.rin_blocks.1.writer_ca.ffn …`.
 *
 * @returns null when everything is finite, so that it arose on the way back
 */
export function findNonFinite({ model, batch, forward }: NonFiniteOptions): string | null {
  return noGrad(() =>
    scope(() => {
      // Rewards are left out: one that is not finite counts as unknown.
      return (
        first("the batch's", [
          ["x0", batch.x0],
          ["textEmbeddings", batch.textEmbeddings],
        ]) ??
        first(
          "the weight",
          [...modulesOf(model)].flatMap(([prefix, module]) => [...module.stateDict(prefix)]),
        ) ??
        firstOutput(model, forward).found
      );
    }),
  );
}

/**
 * The gradients that hold NaN or infinity, by the names of their parameters, the one that the backward pass came to
 * first in front: the parameter of the module that ran last.
 */
export function nonFiniteGradients(model: NonFiniteOptions["model"], forward: () => void): string[] {
  return noGrad(() =>
    scope(() => {
      const bad = modulesOf(model)
        .flatMap(([prefix, module]) => [...module.namedParameters(prefix)])
        .filter(([, { requiresGrad, grad }]) => requiresGrad && grad !== null && fault(grad) !== null);
      if (bad.length === 0) return [];
      const { order } = firstOutput(model, forward);
      const place = (name: string) => order.get(name.slice(0, name.lastIndexOf("."))) ?? 0;
      return bad.map(([name]) => name).sort((a, b) => place(b) - place(a));
    }),
  );
}

function modulesOf({ network, preconditioning }: NonFiniteOptions["model"]): [string, nn.Module][] {
  return [
    ["network", network],
    ["preconditioning", preconditioning],
  ];
}

/** Runs the forward passes and looks at what each module gives, innermost first. */
function firstOutput(
  model: NonFiniteOptions["model"],
  forward: () => void,
): { found: string | null; order: Map<string, number> } {
  let found: string | null = null;
  /** When each module last ended. */
  const order = new Map<string, number>();
  const watched: { forward?: (...args: unknown[]) => unknown }[] = [];
  try {
    for (const [prefix, root] of modulesOf(model))
      for (const [path, module] of root.namedModules(prefix)) {
        const target = module as { forward?: (...args: unknown[]) => unknown };
        const original = target.forward;
        if (typeof original !== "function") continue;
        watched.push(target);
        target.forward = (...args) => {
          const result = original.apply(module, args);
          order.set(path, order.size === 0 ? 1 : Math.max(...order.values()) + 1);
          found ??= first("the output of", named(path, result));
          return result;
        };
      }
    forward();
  } finally {
    for (const target of watched) delete target.forward; // the method of the class is seen again
  }
  return { found, order };
}

/** The tensors in a result: itself, or those of its fields. */
function named(path: string, result: unknown): Named[] {
  if (result instanceof Tensor) return [[path, result]];
  if (typeof result !== "object" || result === null) return [];
  return Object.entries(result).flatMap(([field, value]) => named(`${path} (${field})`, value));
}

function first(what: string, tensors: readonly Named[]): string | null {
  for (const [name, tensor] of tensors) {
    const counts = fault(tensor);
    if (counts !== null) return `${what} ${name} (${tensor.shape.join(", ")}) ${tensor.dtype}: ${counts}`;
  }
  return null;
}

/** `3 NaN, 1 infinite`; null when all values are finite. */
function fault(tensor: Tensor): string | null {
  if (!isFloatingPoint(tensor.dtype)) return null;
  return scope(() => {
    const bad = tensor.isfinite().logicalNot().sum().item();
    if (bad === 0) return null;
    const nan = tensor.isnan().sum().item();
    return [nan > 0 ? `${nan} NaN` : "", bad > nan ? `${bad - nan} infinite` : ""].filter(Boolean).join(", ");
  });
}
