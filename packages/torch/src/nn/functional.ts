/** Layers and losses as functions, under the names of `torch.nn.functional`. Each maps to one ATen operator or few. */
import { shown, TorchError } from "../errors.js";
import { options as known } from "../named-options.js";
import { native } from "../native.js";
import { aten } from "../ops.generated.js";
import { Tensor, wrap } from "../tensor.js";
import { checkedHandle, handleOrNone } from "../tensor-base.js";

type Sides = [vertical: number, horizontal: number];

/** One number for both spatial directions, or [vertical, horizontal]. */
export type Pair = number | readonly [number, number];

/**
 * Spells a {@link Pair} out.
 *
 * @param name what the value is, for the error
 * @throws TorchError for other values
 */
export function pair(value: Pair, name = "pair"): Sides {
  if (typeof value === "number") return [value, value];
  if (Array.isArray(value) && value.length === 2) return [value[0], value[1]];
  const found = Array.isArray(value) ? `[${value}]` : shown(value);
  throw new TorchError(`${name}: expected a number or [vertical, horizontal], got ${found}`);
}

/** x Wᵀ + b, one node of the graph: (…, in), (out, in), (out)? → (…, out). PyTorch: `F.linear`. */
export function linear(x: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  const areTensors = x instanceof Tensor && weight instanceof Tensor;
  const made = areTensors ? native.linear(x.handle, weight.handle, handleOrNone(bias, "linear")) : 0;
  return made === 0 ? aten.linear(x, weight, bias) : wrap(made);
}

/**
 * `value · SiLU(gate)` as one node of the graph, where the last dimension holds `[value, gate]` (Shazeer 2020):
 * (…, 2 · width) → (…, width). It has no derivative of its derivative.
 *
 * @throws TorchError for an odd last dimension
 */
export function swiGlu(x: Tensor): Tensor {
  return wrap(native.swiGlu(checkedHandle(x, "swiGlu")));
}

/** Rows of `weight` (n, d) at integer `indices` (…) → (…, d). PyTorch: `F.embedding`. */
export function embedding(indices: Tensor, weight: Tensor): Tensor {
  return aten.embedding(weight, indices);
}

/**
 * (x − mean) / √(var + eps) · weight + bias over the last dimensions. PyTorch: `F.layer_norm`.
 *
 * @param normalizedShape sizes of those dimensions; `weight` and `bias` have this shape
 */
export function layerNorm(
  x: Tensor,
  normalizedShape: readonly number[],
  weight: Tensor | null = null,
  bias: Tensor | null = null,
  eps = 1e-5,
): Tensor {
  return aten.layer_norm(x, normalizedShape, weight, bias, eps);
}

/**
 * x / √(mean(x²) + eps) · weight over the last dimensions. PyTorch: `F.rms_norm`.
 *
 * @param normalizedShape sizes of those dimensions; `weight` has this shape
 * @param eps null stands for the machine epsilon of the dtype
 */
export function rmsNorm(
  x: Tensor,
  normalizedShape: readonly number[],
  weight: Tensor | null = null,
  eps: number | null = null,
): Tensor {
  return aten.rms_norm(x, normalizedShape, weight, eps);
}

/**
 * {@link rmsNorm} over the last dimension with a weight (last dimension), as one node of the graph. On the CPU in
 * float32 it gives the same values and gradients to the bit; in bfloat16 without gradients it rounds the quotient
 * before it meets the weight. It need not have a second derivative.
 *
 * @param options.forProduct the result goes into matrix products alone: under autocast on a GPU it may come in the
 * dtype that these would turn it into, which saves a pass
 */
export function fusedRmsNorm(
  x: Tensor,
  weight: Tensor,
  eps: number,
  { forProduct = false }: { forProduct?: boolean | undefined } = {},
): Tensor {
  const name = "fusedRmsNorm";
  return wrap(native.rmsNorm(checkedHandle(x, name), checkedHandle(weight, name), eps, forProduct));
}

/**
 * {@link layerNorm} over the last dimension, with weight and bias (last dimension) of any floating dtype, as one node
 * of the graph: computed in float32, in the dtype of `x`, also under autocast. Narrow rows, as the queries and keys of
 * attention are, have a kernel of their own on GPUs, and all rows on CPUs without gradients. It takes them as they lie.
 * It need not have a second derivative.
 */
export function fusedLayerNorm(x: Tensor, weight: Tensor, bias: Tensor, eps: number): Tensor {
  const name = "fusedLayerNorm";
  return wrap(native.layerNorm(checkedHandle(x, name), checkedHandle(weight, name), checkedHandle(bias, name), eps));
}

/**
 * The rows (last dimension) of a float32 or bfloat16 tensor on the CPU as bytes, for products in 8 bits: a row
 * x ≈ step · (bytes − levels − 1). Its largest magnitude, or `smallest` where that is larger, lies on the outermost of
 * `levels` on each side of zero. Records no gradients.
 *
 * @param levels from 1 to 127
 * @returns bytes: uint8 in the shape of x; steps: float32, one for each row, NaN where the row holds one
 */
export function toBytes(x: Tensor, levels: number, smallest = 1e-12): { bytes: Tensor; steps: Tensor } {
  const [bytes, steps] = native.toBytes(checkedHandle(x, "toBytes"), levels, smallest);
  return { bytes: wrap(bytes), steps: wrap(steps) };
}

/**
 * Each row of products becomes step · row + bias + more, in one pass: products of {@link toBytes} become those of the
 * values. For contiguous float32 or bfloat16 tensors on the CPU; computed in float32. Records no gradients.
 *
 * @param products (…, width)
 * @param steps float32, one for each row
 * @param bias float32 (width)
 * @param more in the shape of the products
 * @returns products
 */
export function scaleRows_(
  products: Tensor,
  steps: Tensor,
  bias: Tensor | null = null,
  more: Tensor | null = null,
): Tensor {
  const name = "scaleRows_";
  native.scaleRows_(
    checkedHandle(products, name),
    checkedHandle(steps, name),
    handleOrNone(bias, name),
    handleOrNone(more, name),
  );
  return products;
}

/**
 * Each row of products becomes (step · row + bias) · SiLU(step · gate + gateBias), in one pass; else as
 * {@link scaleRows_}.
 *
 * @param gate as the products in shape and dtype
 * @returns products
 */
export function gateRows_(
  products: Tensor,
  gate: Tensor,
  steps: Tensor,
  bias: Tensor | null = null,
  gateBias: Tensor | null = null,
): Tensor {
  const name = "gateRows_";
  native.gateRows_(
    checkedHandle(products, name),
    checkedHandle(gate, name),
    checkedHandle(steps, name),
    handleOrNone(bias, name),
    handleOrNone(gateBias, name),
  );
  return products;
}

/**
 * Normalises (B, C, …) over groups of channels and all positions. PyTorch: `F.group_norm`.
 *
 * @param groups how many; must divide C
 * @param weight (C); `bias` too
 */
export function groupNorm(
  x: Tensor,
  groups: number,
  weight: Tensor | null = null,
  bias: Tensor | null = null,
  eps = 1e-5,
): Tensor {
  return aten.group_norm(x, groups, weight, bias, eps);
}

/** How a kernel is moved over a picture. */
export interface ConvOptions {
  /** Steps of the kernel, in pixels; default 1. */
  stride?: Pair | undefined;
  /** Zeros on each side, in pixels; default 0. */
  padding?: Pair | undefined;
  /** Distance of the kernel's points, in pixels; default 1. */
  dilation?: Pair | undefined;
  /** Groups of channels that do not see one another; must divide both numbers of channels; default 1. */
  groups?: number | undefined;
}

const CONV = ["stride", "padding", "dilation", "groups"];

/** (B, in, H, W), (out, in/groups, h, w) → (B, out, H', W'). PyTorch: `F.conv2d`. */
export function conv2d(x: Tensor, weight: Tensor, bias: Tensor | null = null, options: ConvOptions = {}): Tensor {
  const { stride = 1, padding = 0, dilation = 1, groups = 1 } = known("conv2d", options, CONV);
  return aten.conv2d(
    x,
    weight,
    bias,
    pair(stride, "conv2d: stride"),
    pair(padding, "conv2d: padding"),
    pair(dilation, "conv2d: dilation"),
    groups,
  );
}

/**
 * (B, in, H, W), (in, out/groups, h, w) → (B, out, H', W'). PyTorch: `F.conv_transpose2d`. `outputPadding` adds to one
 * side of the result, in pixels.
 */
export function convTranspose2d(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  options: ConvOptions & { outputPadding?: Pair | undefined } = {},
): Tensor {
  const names = [...CONV, "outputPadding"];
  const {
    stride = 1,
    padding = 0,
    outputPadding = 0,
    dilation = 1,
    groups = 1,
  } = known("convTranspose2d", options, names);
  return aten.conv_transpose2d_input(
    x,
    weight,
    bias,
    pair(stride, "convTranspose2d: stride"),
    pair(padding, "convTranspose2d: padding"),
    pair(outputPadding, "convTranspose2d: outputPadding"),
    groups,
    pair(dilation, "convTranspose2d: dilation"),
  );
}

/**
 * Zeroes elements with probability `p` and scales the rest by 1/(1 − p). Draws from the global generator; the identity
 * (the same object) when not training or p is 0. PyTorch: `F.dropout`.
 *
 * @throws TorchError when p is outside of [0, 1]
 */
export function dropout(x: Tensor, p = 0.5, training = true): Tensor {
  if (!(p >= 0 && p <= 1)) throw new TorchError(`dropout: p must lie in [0, 1], got ${p}`);
  return training && p > 0 ? aten.dropout(x, p, true) : x;
}

/** max(x, 0) of every element. PyTorch: `F.relu`. */
export function relu(x: Tensor): Tensor {
  return aten.relu(x);
}

/** x · sigmoid(x) of every element. PyTorch: `F.silu`. */
export function silu(x: Tensor): Tensor {
  return aten.silu(x);
}

/** x · Φ(x) of every element, Φ exact or approximated by tanh. PyTorch: `F.gelu`. */
export function gelu(x: Tensor, options: { approximate?: "none" | "tanh" | undefined } = {}): Tensor {
  const { approximate = "none" } = known("gelu", options, ["approximate"]);
  return aten.gelu(x, approximate);
}

/** eˣ / Σ eˣ along `dim`. PyTorch: `F.softmax`. */
export function softmax(x: Tensor, dim: number): Tensor {
  return aten.softmax_int(x, dim);
}

/** ln(softmax(x)) along `dim`, computed safely. PyTorch: `F.log_softmax`. */
export function logSoftmax(x: Tensor, dim: number): Tensor {
  return aten.log_softmax_int(x, dim);
}

/** Options of {@link scaledDotProductAttention}. */
export interface AttentionOptions {
  /** Boolean (true: may attend) or additive, broadcastable to (B, H, queries, keys). */
  mask?: Tensor | null | undefined;
  /** Probability of dropping an attention weight; default 0. */
  dropout?: number | undefined;
  /** Factor on q·k (default 1/√d). */
  scale?: number | null | undefined;
  /** Queries see only keys at their own position or before; excludes `mask`; default false. */
  isCausal?: boolean | undefined;
}

const ATTENTION = ["mask", "dropout", "scale", "isCausal"];

/**
 * softmax(scale · q kᵀ + mask) v: (B, H, queries, d), (B, H, keys, d), (B, H, keys, e) → (B, H, queries, e). PyTorch:
 * `F.scaled_dot_product_attention`.
 *
 * @throws TorchError where a mask is given with `isCausal`
 *
 * @example
 * ```ts
 * const [q, k, v] = [1, 2, 3].map(() => randn([1, 8, 77, 64]));
 * F.scaledDotProductAttention(q!, k!, v!, { isCausal: true }).shape; // [1, 8, 77, 64]
 * ```
 */
export function scaledDotProductAttention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  const {
    mask = null,
    dropout = 0,
    scale = null,
    isCausal = false,
  } = known("scaledDotProductAttention", options, ATTENTION);
  if (isCausal && mask !== null) throw new TorchError("scaledDotProductAttention: give isCausal or a mask, not both");
  return aten.scaled_dot_product_attention(q, k, v, mask, dropout, isCausal, scale);
}

/**
 * softmax(q kᵀ / √E + mask) v of H heads, their results side by side: (B, Q, H, E), (B, S, H, E), (B, S, H, F) →
 * (B, Q, H · F). As {@link scaledDotProductAttention}, and one node of the graph on a CPU.
 *
 * @param mask boolean (true: may attend) or additive, broadcastable to (B, H, Q, S)
 */
export function multiHeadAttention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | null = null): Tensor {
  const name = "multiHeadAttention";
  return wrap(
    native.multiHeadAttention(
      checkedHandle(q, name),
      checkedHandle(k, name),
      checkedHandle(v, name),
      handleOrNone(mask, name),
    ),
  );
}

/** What becomes of the losses of the elements: left as they are, their mean or their sum. */
export type Reduction = "none" | "mean" | "sum";
const REDUCTION: Record<Reduction, number> = { none: 0, mean: 1, sum: 2 };
function reductionCode(reduction: Reduction): number {
  if (Object.hasOwn(REDUCTION, reduction)) return REDUCTION[reduction];
  throw new TorchError(`reduction must be one of ${Object.keys(REDUCTION).join(", ")}, got ${String(reduction)}`);
}

/** (x − target)², reduced; the mean by default. PyTorch: `F.mse_loss`. */
export function mseLoss(x: Tensor, target: Tensor, options: { reduction?: Reduction | undefined } = {}): Tensor {
  const { reduction = "mean" } = known("mseLoss", options, ["reduction"]);
  return aten.mse_loss(x, target, reductionCode(reduction));
}

/** |x − target|, reduced; the mean by default. PyTorch: `F.l1_loss`. */
export function l1Loss(x: Tensor, target: Tensor, options: { reduction?: Reduction | undefined } = {}): Tensor {
  const { reduction = "mean" } = known("l1Loss", options, ["reduction"]);
  return aten.l1_loss(x, target, reductionCode(reduction));
}

/** Options of {@link crossEntropy}. */
export interface CrossEntropyOptions {
  /** (classes): factors of the classes' losses; default none. */
  weight?: Tensor | null | undefined;
  /** Default the mean; with weights the weighted one. */
  reduction?: Reduction | undefined;
  /** A class index whose positions do not count; default −100. */
  ignoreIndex?: number | undefined;
  /** Share of the target that is spread over all classes, from 0 to 1; default 0. */
  labelSmoothing?: number | undefined;
}

/** Logits (B, classes, …) against class indices (B, …) or probabilities (B, classes, …). PyTorch: `F.cross_entropy`. */
export function crossEntropy(logits: Tensor, target: Tensor, options: CrossEntropyOptions = {}): Tensor {
  const names = ["weight", "reduction", "ignoreIndex", "labelSmoothing"];
  const {
    weight = null,
    reduction = "mean",
    ignoreIndex = -100,
    labelSmoothing = 0,
  } = known("crossEntropy", options, names);
  return aten.cross_entropy_loss(logits, target, weight, reductionCode(reduction), ignoreIndex, labelSmoothing);
}

/** Options of {@link interpolate}. */
export interface InterpolateOptions {
  /** Output [H, W]; exactly one of `size` and `scaleFactor` is given. */
  size?: Pair | undefined;
  /** Output size over input size. */
  scaleFactor?: Pair | undefined;
  /** How values between pixels are found; default `nearest`. */
  mode?: "nearest" | "nearest-exact" | "bilinear" | "bicubic" | "area" | undefined;
  /** Aligns the centres of the corner pixels instead of their edges (bilinear and bicubic); default false. */
  alignCorners?: boolean | undefined;
  /** Low-pass filter when making smaller (bilinear and bicubic), as Pillow does. */
  antialias?: boolean | undefined;
}

/**
 * Resizes (B, C, H, W). PyTorch: `F.interpolate`.
 *
 * @throws TorchError unless exactly one of size and scaleFactor is given, for options that the mode does not have, and
 *   for other shapes
 */
export function interpolate(x: Tensor, options: InterpolateOptions): Tensor {
  const names = ["size", "scaleFactor", "mode", "alignCorners", "antialias"];
  const {
    size,
    scaleFactor,
    mode = "nearest",
    alignCorners = false,
    antialias = false,
  } = known("interpolate", options, names);
  if ((size === undefined) === (scaleFactor === undefined)) {
    throw new TorchError("interpolate: give exactly one of size and scaleFactor");
  }
  if ((antialias || alignCorners) && mode !== "bilinear" && mode !== "bicubic") {
    const option = antialias ? "antialias" : "alignCorners";
    throw new TorchError(`interpolate: ${option} works with bilinear and bicubic, got mode ${mode}`);
  }
  checkedHandle(x, "interpolate");
  if (x.ndim !== 4) throw new TorchError(`interpolate: expected (B, C, H, W), got shape [${x.shape}]`);
  const output = size === undefined ? null : pair(size, "interpolate: size");
  const scale = scaleFactor === undefined ? null : pair(scaleFactor, "interpolate: scaleFactor");
  switch (mode) {
    case "nearest":
      return aten.upsample_nearest2d_vec(x, output, scale);
    case "nearest-exact":
      return aten._upsample_nearest_exact2d_vec(x, output, scale);
    case "bilinear":
      return antialias
        ? aten._upsample_bilinear2d_aa_vec(x, output, alignCorners, scale)
        : aten.upsample_bilinear2d_vec(x, output, alignCorners, scale);
    case "bicubic":
      return antialias
        ? aten._upsample_bicubic2d_aa_vec(x, output, alignCorners, scale)
        : aten.upsample_bicubic2d_vec(x, output, alignCorners, scale);
    case "area":
      return aten.adaptive_avg_pool2d(x, output ?? x.shape.slice(2).map((n, i) => Math.floor(n * scale![i]!)));
    default:
      throw new TorchError(`interpolate: there is no mode ${String(mode satisfies never)}`);
  }
}

/** How a window is moved over a picture. */
export interface PoolOptions {
  /** Default: the kernel. */
  stride?: Pair | undefined;
  /** On each side, in pixels, at most half of the kernel; default 0. */
  padding?: Pair | undefined;
  /** Rounds the output's size up, so that the last window may be a part of one; default false. */
  ceilMode?: boolean | undefined;
}

const POOL = ["stride", "padding", "ceilMode"];

/** Kernel, stride and padding spelt out. */
function windows(name: string, kernel: Pair, stride: Pair | undefined, padding: Pair): [Sides, Sides, Sides] {
  const size = pair(kernel, `${name}: kernel`);
  return [size, stride === undefined ? size : pair(stride, `${name}: stride`), pair(padding, `${name}: padding`)];
}

/** Means of windows: (B, C, H, W) → (B, C, H', W'). PyTorch: `F.avg_pool2d`. */
export function avgPool2d(x: Tensor, kernel: Pair, options: PoolOptions = {}): Tensor {
  const { stride, padding = 0, ceilMode = false } = known("avgPool2d", options, POOL);
  return aten.avg_pool2d(x, ...windows("avgPool2d", kernel, stride, padding), ceilMode);
}

/** Largest values of windows: (B, C, H, W) → (B, C, H', W'). PyTorch: `F.max_pool2d`. */
export function maxPool2d(
  x: Tensor,
  kernel: Pair,
  options: PoolOptions & { dilation?: Pair | undefined } = {},
): Tensor {
  const names = [...POOL, "dilation"];
  const { stride, padding = 0, ceilMode = false, dilation = 1 } = known("maxPool2d", options, names);
  const moved = windows("maxPool2d", kernel, stride, padding);
  return aten.max_pool2d(x, ...moved, pair(dilation, "maxPool2d: dilation"), ceilMode);
}

/** (B, C·f², H, W) → (B, C, H·f, W·f). PyTorch: `F.pixel_shuffle`. */
export function pixelShuffle(x: Tensor, factor: number): Tensor {
  return aten.pixel_shuffle(x, factor);
}

/** (B, C, H·f, W·f) → (B, C·f², H, W). PyTorch: `F.pixel_unshuffle`. */
export function pixelUnshuffle(x: Tensor, factor: number): Tensor {
  return aten.pixel_unshuffle(x, factor);
}

/**
 * Pads the last dimensions: `amounts` = [last before, last after, second-last before, …], in elements. PyTorch:
 * `F.pad`. `value` counts for the mode `constant` only.
 */
export function pad(
  x: Tensor,
  amounts: readonly number[],
  options: { mode?: "constant" | "reflect" | "replicate" | "circular" | undefined; value?: number | undefined } = {},
): Tensor {
  const { mode = "constant", value = 0 } = known("pad", options, ["mode", "value"]);
  return aten.pad(x, amounts, mode, mode === "constant" ? value : null);
}

/** x / max(‖x‖_p, eps) along `dim`, by default the Euclidean norm along dimension 1. PyTorch: `F.normalize`. */
export function normalize(
  x: Tensor,
  options: { p?: number | undefined; dim?: number | undefined; eps?: number | undefined } = {},
): Tensor {
  const { p = 2, dim = 1, eps = 1e-12 } = known("normalize", options, ["p", "dim", "eps"]);
  const norm = aten.linalg_vector_norm(x, p, [dim], true);
  return x.div(norm.clamp(eps, null));
}
