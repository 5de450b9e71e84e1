// Differentiation and the modes around it. Modes belong to the calling thread and end with the function given.
import { type Device, type DType, dtypeCode } from "./dtype.js";
import { naming, TorchError } from "./errors.js";
import { options as known } from "./named-options.js";
import { type Handle, native } from "./native.js";
import { type Tensor, wrap } from "./tensor.js";
import { checkedHandle, handleOrNone } from "./tensor-base.js";

/** Options of {@link backward}. */
export interface BackwardOptions {
  /** Keeps the graph for another backward pass; by default where `createGraph` is set. */
  retainGraph?: boolean | undefined;
  /** Records the backward pass itself, for derivatives of higher order; default false. */
  createGraph?: boolean | undefined;
}

const listOf = (tensors: unknown): readonly unknown[] => (Array.isArray(tensors) ? tensors : [tensors]);

function handlesOfAll(tensors: Tensor | readonly Tensor[], name: string): Handle[] {
  return listOf(tensors).map((tensor) => checkedHandle(tensor, name, "a Tensor or a list of them"));
}

const BACKWARD = ["retainGraph", "createGraph"];

/**
 * Accumulates the gradients of `tensors` into the `grad` of the leaves they depend on. PyTorch:
 * `torch.autograd.backward`.
 *
 * @param tensors several, or one
 * @param gradients weights of each tensor's elements, in its shape, or those of the one; scalars may leave theirs out
 * @throws TorchError when a tensor is not part of a graph, or its graph was freed
 */
export function backward(
  tensors: Tensor | readonly Tensor[],
  gradients: Tensor | readonly (Tensor | null)[] = [],
  options: BackwardOptions = {},
): void {
  const { createGraph = false, retainGraph = createGraph } = known("backward", options, BACKWARD);
  const weights = listOf(gradients).map((gradient) => handleOrNone(gradient, "backward: gradients"));
  const handles = handlesOfAll(tensors, "backward");
  naming("backward", () => native.backward(handles, weights, retainGraph, createGraph));
}

/** Options of {@link grad}. */
export interface GradOptions extends BackwardOptions {
  /** Weights of the outputs' elements, in their shapes, or those of the one; scalars may leave theirs out. */
  gradOutputs?: Tensor | readonly (Tensor | null)[] | undefined;
  /** Gives null for inputs that the outputs do not depend on, instead of an error. */
  allowUnused?: boolean | undefined;
}

/**
 * Gradients of `outputs` with respect to `inputs`, without accumulating anything. PyTorch: `torch.autograd.grad`.
 *
 * @param outputs several, or one; so too `inputs`
 * @returns one tensor for each input, in its shape; null where it is unused and `allowUnused` is set
 * @throws TorchError when an input is not used, or a tensor is not part of a graph
 *
 * @example
 * ```ts
 * const x = tensor(3, { requiresGrad: true });
 * grad(x.square(), x)[0]!.item(); // 6
 * ```
 */
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options: GradOptions = {},
): (Tensor | null)[] {
  const {
    createGraph = false,
    retainGraph = createGraph,
    allowUnused = false,
    gradOutputs = [],
  } = known("grad", options, [...BACKWARD, "allowUnused", "gradOutputs"]);
  const [from, to] = [handlesOfAll(outputs, "grad"), handlesOfAll(inputs, "grad")];
  const weights = listOf(gradOutputs).map((given) => handleOrNone(given, "grad: gradOutputs"));
  return naming("grad", () => native.grad(from, to, weights, retainGraph, createGraph, allowUnused)).map((handle) =>
    handle === 0 ? null : wrap(handle),
  );
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

/**
 * Runs `body` without recording a graph. PyTorch: `torch.no_grad`.
 *
 * @param body synchronous
 * @throws TorchError when `body` returns a promise
 *
 * @example
 * ```ts
 * const logits = noGrad(() => model.forward(x));
 * ```
 */
export function noGrad<T>(body: () => T): T {
  return withGradMode(false, "noGrad", body);
}
/** Records a graph inside `noGrad`. PyTorch: `torch.enable_grad`. @throws TorchError when `body` returns a promise */
export function enableGrad<T>(body: () => T): T {
  return withGradMode(true, "enableGrad", body);
}
/** Whether operators are recorded for `backward` just now. PyTorch: `torch.is_grad_enabled`. */
export function isGradEnabled(): boolean {
  return native.setGradMode();
}

/**
 * Runs `body` without a graph and without version counting; its tensors can never take part in a graph. PyTorch:
 * `torch.inference_mode`.
 *
 * @throws TorchError when `body` returns a promise
 */
export function inferenceMode<T>(body: () => T): T {
  native.beginInference();
  try {
    return refusePromise(body(), "inferenceMode");
  } finally {
    native.endInference();
  }
}

/** Options of {@link autocast}. */
export interface AutocastOptions {
  /** The kind of device whose operators are cast; an index is ignored. */
  device: "cpu" | "cuda" | Device;
  /** What matrix products and convolutions compute in. */
  dtype: Extract<DType, "bfloat16" | "float16">;
  /** False computes in the tensors' own dtypes, also inside another autocast; default true. */
  enabled?: boolean | undefined;
  /** Keeps cast weights until the outermost region ends; on by default. */
  cache?: boolean | undefined;
}

const AUTOCAST = ["device", "dtype", "enabled", "cache"];

/**
 * Runs `body` with matrix products and convolutions in `dtype`, and what needs range in float32 (PyTorch's op lists).
 * PyTorch: `torch.autocast`.
 *
 * @throws TorchError when `body` returns a promise
 *
 * @example
 * ```ts
 * const loss = autocast({ device: "cpu", dtype: "bfloat16" }, () => F.mseLoss(model.forward(x), y));
 * ```
 */
export function autocast<T>(options: AutocastOptions, body: () => T): T {
  const { dtype, enabled = true, cache = true, ...where } = known("autocast", options, AUTOCAST);
  const device = String(where.device).split(":")[0] as string;
  const code = dtypeCode(dtype);
  const outside = autocasting;
  const state = native.beginAutocast(device, code, enabled, cache);
  autocasting = enabled;
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
