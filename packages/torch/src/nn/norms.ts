/** Normalisation layers: `LayerNorm`, `RMSNorm` and `GroupNorm` as in `torch.nn`. */
import { ones, zeros } from "../creation.js";
import { TorchError } from "../errors.js";
import { options as known } from "../named-options.js";
import type { Tensor } from "../tensor.js";
import { groupNorm, layerNorm, rmsNorm } from "./functional.js";
import { FACTORY_OPTIONS, type FactoryOptions } from "./linear.js";
import { Module } from "./module.js";

/** Options of the normalisation layers. */
export interface NormOptions extends FactoryOptions {
  /** Added to the variance (default 1e-5; for RMSNorm the dtype's machine epsilon). */
  eps?: number | undefined;
  /** Learn a weight (and a bias) per normalised value; default true. */
  affine?: boolean | undefined;
  /** Learn a bias where a weight is learnt; default true. */
  bias?: boolean | undefined;
}

const NAMES = [...FACTORY_OPTIONS, "eps", "affine"];

/** (x − mean) / √(var + eps) · weight + bias over the last dimensions. Ba et al. (2016). */
export class LayerNorm extends Module {
  /** Sizes of the last dimensions, which are normalised together. */
  readonly normalizedShape: number[];
  /** Added to the variance. */
  readonly eps: number;
  /** (normalizedShape), from ones; null without `affine`. */
  readonly weight: Tensor | null;
  /** (normalizedShape), from zeros; null without `affine` or `bias`. */
  readonly bias: Tensor | null;

  constructor(shape: number | readonly number[], options: NormOptions = {}) {
    super();
    const { eps = 1e-5, affine = true, bias = true, ...factory } = known("LayerNorm", options, [...NAMES, "bias"]);
    this.normalizedShape = typeof shape === "number" ? [shape] : [...shape];
    this.eps = eps;
    this.weight = affine ? this.parameter("weight", ones(this.normalizedShape, factory)) : null;
    this.bias = affine && bias ? this.parameter("bias", zeros(this.normalizedShape, factory)) : null;
  }

  /** (…, normalizedShape) → (…, normalizedShape) */
  forward(x: Tensor): Tensor {
    return layerNorm(x, this.normalizedShape, this.weight, this.bias, this.eps);
  }
}

/** x / √(mean(x²) + eps) · weight over the last dimension. Zhang and Sennrich (2019). */
export class RMSNorm extends Module {
  /** Sizes of the last dimensions, which are normalised together. */
  readonly normalizedShape: number[];
  /** Added to the variance; null: the machine epsilon of the dtype. */
  readonly eps: number | null;
  /** (normalizedShape), from ones; null without `affine`. */
  readonly weight: Tensor | null;

  constructor(shape: number | readonly number[], options: Omit<NormOptions, "bias"> = {}) {
    super();
    const { eps, affine = true, ...factory } = known("RMSNorm", options, NAMES);
    this.normalizedShape = typeof shape === "number" ? [shape] : [...shape];
    this.eps = eps ?? null;
    this.weight = affine ? this.parameter("weight", ones(this.normalizedShape, factory)) : null;
  }

  /** (…, normalizedShape) → (…, normalizedShape) */
  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.normalizedShape, this.weight, this.eps);
  }
}

/** Normalises groups of channels of (B, C, …) over their channels and positions. Wu and He (2018). */
export class GroupNorm extends Module {
  /** Added to the variance. */
  readonly eps: number;
  /** (numChannels), from ones; null without `affine`. */
  readonly weight: Tensor | null;
  /** (numChannels), from zeros; null without `affine` or `bias`. */
  readonly bias: Tensor | null;

  /** @throws TorchError when `numGroups` does not divide the channels */
  constructor(
    /** Groups of channels; must divide their number. */
    readonly numGroups: number,
    /** Channels of the input. */
    readonly numChannels: number,
    options: NormOptions = {},
  ) {
    super();
    if (!Number.isInteger(numGroups) || numGroups < 1 || numChannels % numGroups !== 0)
      throw new TorchError(`GroupNorm: groups must divide ${numChannels} channels, got ${numGroups}`);
    const { eps = 1e-5, affine = true, bias = true, ...factory } = known("GroupNorm", options, [...NAMES, "bias"]);
    this.eps = eps;
    this.weight = affine ? this.parameter("weight", ones([numChannels], factory)) : null;
    this.bias = affine && bias ? this.parameter("bias", zeros([numChannels], factory)) : null;
  }

  /** (B, C, …) → (B, C, …) */
  forward(x: Tensor): Tensor {
    return groupNorm(x, this.numGroups, this.weight, this.bias, this.eps);
  }
}
