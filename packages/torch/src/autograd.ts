// Differentiation and the modes around it. Modes belong to the calling thread and end with the function given.
import { type Device, type DType, dtypeCode } from "./dtype.js";
import { TorchError } from "./errors.js";
import { native } from "./native.js";
import { type Tensor, wrap } from "./tensor.js";

export interface BackwardOptions {
  retainGraph?: boolean;
  createGraph?: boolean;
}

/** Accumulates the gradients of `tensors` (weighted by `gradients`, which scalars may leave out) into the leaves. */
export function backward(
  tensors: readonly Tensor[],
  gradients: readonly (Tensor | null)[] = [],
  options: BackwardOptions = {},
): void {
  const { createGraph = false, retainGraph = createGraph } = options;
  native.backward(
    tensors.map((t) => t.handle),
    gradients.map((g) => (g === null ? 0 : g.handle)),
    retainGraph,
    createGraph,
  );
}

export interface GradOptions extends BackwardOptions {
  gradOutputs?: readonly (Tensor | null)[];
  /** Gives null for inputs that the outputs do not depend on, instead of an error. */
  allowUnused?: boolean;
}

/** Gradients of `outputs` with respect to `inputs`, without accumulating anything. */
export function grad(
  outputs: readonly Tensor[],
  inputs: readonly Tensor[],
  options: GradOptions = {},
): (Tensor | null)[] {
  const { createGraph = false, retainGraph = createGraph, allowUnused = false, gradOutputs = [] } = options;
  return native
    .grad(
      outputs.map((t) => t.handle),
      inputs.map((t) => t.handle),
      gradOutputs.map((g) => (g === null ? 0 : g.handle)),
      retainGraph,
      createGraph,
      allowUnused,
    )
    .map((handle) => (handle === 0 ? null : wrap(handle)));
}

function refusePromise<T>(result: T, name: string): T {
  if (result instanceof Promise)
    throw new TorchError(`${name}() needs a synchronous function, got one that returns a promise`);
  return result;
}

function withGradMode<T>(enabled: boolean, name: string, body: () => T): T {
  const before = native.setGradMode(enabled);
  try {
    return refusePromise(body(), name);
  } finally {
    native.setGradMode(before);
  }
}

/** Runs `body` without recording a graph. */
export function noGrad<T>(body: () => T): T {
  return withGradMode(false, "noGrad", body);
}
/** Records a graph inside `noGrad`. */
export function enableGrad<T>(body: () => T): T {
  return withGradMode(true, "enableGrad", body);
}
export function isGradEnabled(): boolean {
  return native.setGradMode();
}

/** Runs `body` without a graph and without version counting; its tensors can never take part in a graph. */
export function inferenceMode<T>(body: () => T): T {
  native.beginInference();
  try {
    return refusePromise(body(), "inferenceMode");
  } finally {
    native.endInference();
  }
}

export interface AutocastOptions {
  device: "cpu" | "cuda" | Device;
  dtype: Extract<DType, "bfloat16" | "float16">;
  enabled?: boolean;
  /** Keeps cast weights until the outermost region ends; on by default. */
  cache?: boolean;
}

/**
 * Runs `body` with matrix products and convolutions in `dtype`, and what needs range in float32 (PyTorch's op lists).
 */
export function autocast<T>(options: AutocastOptions, body: () => T): T {
  const device = options.device.split(":")[0] as string;
  const outside = autocasting;
  autocasting = options.enabled ?? true;
  const state = native.beginAutocast(device, dtypeCode(options.dtype), options.enabled ?? true, options.cache ?? true);
  try {
    return refusePromise(body(), "autocast");
  } finally {
    native.endAutocast(device, state);
    autocasting = outside;
  }
}

let autocasting = false;

/**
 * Whether this is inside {@link autocast}: operators outside of PyTorch's lists then see inputs of different dtypes.
 */
export function isAutocastEnabled(): boolean {
  return autocasting;
}
