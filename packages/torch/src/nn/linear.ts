/** The affine map y = x Wᵀ + b, as `torch.nn.Linear`. */
import { empty } from "../creation.js";
import type { DType } from "../dtype.js";
import type { Tensor } from "../tensor.js";
import { linear } from "./functional.js";
import { defaultWeightAndBias_ } from "./init.js";
import { Module } from "./module.js";

/** Where and in which dtype a module makes its parameters. */
export interface FactoryOptions {
  device?: string;
  dtype?: DType;
}

export interface LinearOptions extends FactoryOptions {
  bias?: boolean;
}

export class Linear extends Module {
  /** (out, in) */
  readonly weight: Tensor;
  /** (out) */
  readonly bias: Tensor | null;

  constructor(
    readonly inFeatures: number,
    readonly outFeatures: number,
    { bias = true, ...factory }: LinearOptions = {},
  ) {
    super();
    this.weight = this.parameter("weight", empty([outFeatures, inFeatures], factory));
    this.bias = bias ? this.parameter("bias", empty([outFeatures], factory)) : null;
    defaultWeightAndBias_(this.weight, this.bias);
  }

  /** (…, in) → (…, out) */
  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}
