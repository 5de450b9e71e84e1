/** Layers and losses as functions, under the names of `torch.nn.functional`. Each maps to one ATen operator or few. */
import { TorchError } from "../errors.js";
import { aten } from "../ops.generated.js";
import type { Tensor } from "../tensor.js";

/** One number for both spatial directions, or [vertical, horizontal]. */
export type Pair = number | readonly [number, number];

/** Spells a {@link Pair} out. */
export function pair(value: Pair): [number, number] {
  return typeof value === "number" ? [value, value] : [value[0], value[1]];
}

/** x Wᵀ + b: (…, in), (out, in), (out)? → (…, out) */
export function linear(x: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  return aten.linear(x, weight, bias);
}

/** Rows of `weight` (n, d) at integer `indices` (…) → (…, d) */
export function embedding(indices: Tensor, weight: Tensor): Tensor {
  return aten.embedding(weight, indices);
}

export function layerNorm(
  x: Tensor,
  normalizedShape: number[],
  weight: Tensor | null = null,
  bias: Tensor | null = null,
  eps = 1e-5,
): Tensor {
  return aten.layer_norm(x, normalizedShape, weight, bias, eps);
}

/** `eps` null stands for the machine epsilon of the dtype. */
export function rmsNorm(
  x: Tensor,
  normalizedShape: number[],
  weight: Tensor | null = null,
  eps: number | null = null,
): Tensor {
  return aten.rms_norm(x, normalizedShape, weight, eps);
}

export function groupNorm(
  x: Tensor,
  groups: number,
  weight: Tensor | null = null,
  bias: Tensor | null = null,
  eps = 1e-5,
): Tensor {
  return aten.group_norm(x, groups, weight, bias, eps);
}

export interface ConvOptions {
  stride?: Pair;
  padding?: Pair;
  dilation?: Pair;
  groups?: number;
}

/** (B, in, H, W), (out, in/groups, h, w) → (B, out, H', W') */
export function conv2d(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  { stride = 1, padding = 0, dilation = 1, groups = 1 }: ConvOptions = {},
): Tensor {
  return aten.conv2d(x, weight, bias, pair(stride), pair(padding), pair(dilation), groups);
}

/** (B, in, H, W), (in, out/groups, h, w) → (B, out, H', W') */
export function convTranspose2d(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  { stride = 1, padding = 0, outputPadding = 0, dilation = 1, groups = 1 }: ConvOptions & { outputPadding?: Pair } = {},
): Tensor {
  return aten.conv_transpose2d_input(
    x,
    weight,
    bias,
    pair(stride),
    pair(padding),
    pair(outputPadding),
    groups,
    pair(dilation),
  );
}

/** Draws from the global generator; the identity (the same object) when not training or p is 0. */
export function dropout(x: Tensor, p = 0.5, training = true): Tensor {
  if (!(p >= 0 && p <= 1)) throw new TorchError(`dropout: p must lie in [0, 1], got ${p}`);
  return training && p > 0 ? aten.dropout(x, p, true) : x;
}

export function relu(x: Tensor): Tensor {
  return aten.relu(x);
}

export function silu(x: Tensor): Tensor {
  return aten.silu(x);
}

export function gelu(x: Tensor, { approximate = "none" }: { approximate?: "none" | "tanh" } = {}): Tensor {
  return aten.gelu(x, approximate);
}

export function softmax(x: Tensor, dim: number): Tensor {
  return aten.softmax_int(x, dim);
}

export function logSoftmax(x: Tensor, dim: number): Tensor {
  return aten.log_softmax_int(x, dim);
}

export interface AttentionOptions {
  /** Boolean (true: may attend) or additive, broadcastable to (B, H, queries, keys). */
  mask?: Tensor | null;
  dropout?: number;
  /** Factor on q·k (default 1/√d). */
  scale?: number | null;
  isCausal?: boolean;
}

/** softmax(scale · q kᵀ + mask) v: (B, H, queries, d), (B, H, keys, d), (B, H, keys, e) → (B, H, queries, e) */
export function scaledDotProductAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { mask = null, dropout = 0, scale = null, isCausal = false }: AttentionOptions = {},
): Tensor {
  return aten.scaled_dot_product_attention(q, k, v, mask, dropout, isCausal, scale);
}

export type Reduction = "none" | "mean" | "sum";
const REDUCTION: Record<Reduction, number> = { none: 0, mean: 1, sum: 2 };

export function mseLoss(x: Tensor, target: Tensor, { reduction = "mean" }: { reduction?: Reduction } = {}): Tensor {
  return aten.mse_loss(x, target, REDUCTION[reduction]);
}

export function l1Loss(x: Tensor, target: Tensor, { reduction = "mean" }: { reduction?: Reduction } = {}): Tensor {
  return aten.l1_loss(x, target, REDUCTION[reduction]);
}

export interface CrossEntropyOptions {
  weight?: Tensor | null;
  reduction?: Reduction;
  ignoreIndex?: number;
  labelSmoothing?: number;
}

/** Logits (B, classes, …) against class indices (B, …) or probabilities (B, classes, …). */
export function crossEntropy(
  logits: Tensor,
  target: Tensor,
  { weight = null, reduction = "mean", ignoreIndex = -100, labelSmoothing = 0 }: CrossEntropyOptions = {},
): Tensor {
  return aten.cross_entropy_loss(logits, target, weight, REDUCTION[reduction], ignoreIndex, labelSmoothing);
}

export interface InterpolateOptions {
  /** Output [H, W]; exactly one of `size` and `scaleFactor` is given. */
  size?: Pair;
  scaleFactor?: Pair;
  mode?: "nearest" | "nearest-exact" | "bilinear" | "bicubic" | "area";
  alignCorners?: boolean;
  /** Low-pass filter when making smaller (bilinear and bicubic), as Pillow does. */
  antialias?: boolean;
}

/** Resizes (B, C, H, W). */
export function interpolate(
  x: Tensor,
  { size, scaleFactor, mode = "nearest", alignCorners = false, antialias = false }: InterpolateOptions,
): Tensor {
  if ((size === undefined) === (scaleFactor === undefined)) {
    throw new TorchError("interpolate: give exactly one of size and scaleFactor");
  }
  if (antialias && mode !== "bilinear" && mode !== "bicubic") {
    throw new TorchError(`interpolate: antialias works with bilinear and bicubic, got mode ${mode}`);
  }
  if (x.ndim !== 4) throw new TorchError(`interpolate: expected (B, C, H, W), got shape [${x.shape}]`);
  const output = size === undefined ? null : pair(size);
  const scale = scaleFactor === undefined ? null : pair(scaleFactor);
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
  }
}

export interface PoolOptions {
  /** Default: the kernel. */
  stride?: Pair;
  padding?: Pair;
  ceilMode?: boolean;
}

export function avgPool2d(
  x: Tensor,
  kernel: Pair,
  { stride, padding = 0, ceilMode = false }: PoolOptions = {},
): Tensor {
  return aten.avg_pool2d(x, pair(kernel), pair(stride ?? kernel), pair(padding), ceilMode);
}

export function maxPool2d(
  x: Tensor,
  kernel: Pair,
  { stride, padding = 0, ceilMode = false, dilation = 1 }: PoolOptions & { dilation?: Pair } = {},
): Tensor {
  return aten.max_pool2d(x, pair(kernel), pair(stride ?? kernel), pair(padding), pair(dilation), ceilMode);
}

/** (B, C·f², H, W) → (B, C, H·f, W·f) */
export function pixelShuffle(x: Tensor, factor: number): Tensor {
  return aten.pixel_shuffle(x, factor);
}

/** (B, C, H·f, W·f) → (B, C·f², H, W) */
export function pixelUnshuffle(x: Tensor, factor: number): Tensor {
  return aten.pixel_unshuffle(x, factor);
}

/** Pads the last dimensions: `amounts` = [last before, last after, second-last before, …]. */
export function pad(
  x: Tensor,
  amounts: number[],
  { mode = "constant", value = 0 }: { mode?: "constant" | "reflect" | "replicate" | "circular"; value?: number } = {},
): Tensor {
  return aten.pad(x, amounts, mode, mode === "constant" ? value : null);
}

/** x / max(‖x‖_p, eps) along `dim`. */
export function normalize(
  x: Tensor,
  { p = 2, dim = -1, eps = 1e-12 }: { p?: number; dim?: number; eps?: number } = {},
): Tensor {
  const norm = aten.linalg_vector_norm(x, p, [dim], true);
  return x.div(norm.clamp(eps, null));
}
