/** The affine map y = x Wᵀ + b, as `torch.nn.Linear`. */
import { empty } from "../creation.js";
import type { DType } from "../dtype.js";
import { options as known } from "../named-options.js";
import type { Tensor } from "../tensor.js";
import { linear } from "./functional.js";
import { defaultWeightAndBias_ } from "./init.js";
import { Module } from "./module.js";

/** Where and in which dtype a module makes its parameters. */
export interface FactoryOptions {
  /** Default `cpu`. */
  device?: string | undefined;
  /** Default float32. */
  dtype?: DType | undefined;
}

/** The names of {@link FactoryOptions}. */
export const FACTORY_OPTIONS: readonly string[] = ["device", "dtype"];

/** Options of {@link Linear}. */
export interface LinearOptions extends FactoryOptions {
  /** Learn a bias; default true. */
  bias?: boolean | undefined;
}

/**
 * y = x Wᵀ + b with PyTorch's default initialisation. PyTorch: `nn.Linear`.
 *
 * @example
 * ```ts
 * new nn.Linear(8, 4, { bias: false }).forward(randn([2, 77, 8])).shape; // [2, 77, 4]
 * ```
 */
export class Linear extends Module {
  /** (out, in) */
  readonly weight: Tensor;
  /** (out) */
  readonly bias: Tensor | null;

  constructor(
    /** Width of the input. */
    readonly inFeatures: number,
    /** Width of the output. */
    readonly outFeatures: number,
    options: LinearOptions = {},
  ) {
    super();
    const { bias = true, ...factory } = known("Linear", options, [...FACTORY_OPTIONS, "bias"]);
    this.weight = this.parameter("weight", empty([outFeatures, inFeatures], factory));
    this.bias = bias ? this.parameter("bias", empty([outFeatures], factory)) : null;
    defaultWeightAndBias_(this.weight, this.bias);
  }

  /** (…, in) → (…, out) */
  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}
