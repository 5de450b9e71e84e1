/** Normalisation layers: `LayerNorm`, `RMSNorm` and `GroupNorm` as in `torch.nn`. */
import { ones, zeros } from "../creation.js";
import type { Tensor } from "../tensor.js";
import { groupNorm, layerNorm, rmsNorm } from "./functional.js";
import type { FactoryOptions } from "./linear.js";
import { Module } from "./module.js";

export interface NormOptions extends FactoryOptions {
  /** Added to the variance (default 1e-5; for RMSNorm the dtype's machine epsilon). */
  eps?: number;
  /** Learn a weight (and a bias) per normalised value. */
  affine?: boolean;
  bias?: boolean;
}

/** (x − mean) / √(var + eps) · weight + bias over the last dimensions. Ba et al. (2016). */
export class LayerNorm extends Module {
  readonly normalizedShape: number[];
  readonly eps: number;
  readonly weight: Tensor | null;
  readonly bias: Tensor | null;

  constructor(shape: number | number[], { eps = 1e-5, affine = true, bias = true, ...factory }: NormOptions = {}) {
    super();
    this.normalizedShape = typeof shape === "number" ? [shape] : [...shape];
    this.eps = eps;
    this.weight = affine ? this.parameter("weight", ones(this.normalizedShape, factory)) : null;
    this.bias = affine && bias ? this.parameter("bias", zeros(this.normalizedShape, factory)) : null;
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x, this.normalizedShape, this.weight, this.bias, this.eps);
  }
}

/** x / √(mean(x²) + eps) · weight over the last dimension. Zhang and Sennrich (2019). */
export class RMSNorm extends Module {
  readonly normalizedShape: number[];
  readonly eps: number | null;
  readonly weight: Tensor | null;

  constructor(shape: number | number[], { eps, affine = true, ...factory }: Omit<NormOptions, "bias"> = {}) {
    super();
    this.normalizedShape = typeof shape === "number" ? [shape] : [...shape];
    this.eps = eps ?? null;
    this.weight = affine ? this.parameter("weight", ones(this.normalizedShape, factory)) : null;
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.normalizedShape, this.weight, this.eps);
  }
}

/** Normalises groups of channels of (B, C, …) over their channels and positions. Wu and He (2018). */
export class GroupNorm extends Module {
  readonly eps: number;
  readonly weight: Tensor | null;
  readonly bias: Tensor | null;

  constructor(
    readonly numGroups: number,
    readonly numChannels: number,
    { eps = 1e-5, affine = true, bias = true, ...factory }: NormOptions = {},
  ) {
    super();
    this.eps = eps;
    this.weight = affine ? this.parameter("weight", ones([numChannels], factory)) : null;
    this.bias = affine && bias ? this.parameter("bias", zeros([numChannels], factory)) : null;
  }

  forward(x: Tensor): Tensor {
    return groupNorm(x, this.numGroups, this.weight, this.bias, this.eps);
  }
}
