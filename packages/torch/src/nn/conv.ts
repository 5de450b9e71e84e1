/** Two-dimensional convolution over (B, C, H, W), as `torch.nn.Conv2d` and `torch.nn.ConvTranspose2d`. */
import { empty } from "../creation.js";
import { TorchError } from "../errors.js";
import { options as known } from "../named-options.js";
import type { Tensor } from "../tensor.js";
import { conv2d, convTranspose2d, type Pair, pair } from "./functional.js";
import { defaultWeightAndBias_ } from "./init.js";
import { FACTORY_OPTIONS, type FactoryOptions } from "./linear.js";
import { Module } from "./module.js";

/** Options of {@link Conv2d}. */
export interface Conv2dOptions extends FactoryOptions {
  /** Steps of the kernel, in pixels; default 1. */
  stride?: Pair | undefined;
  /** Zeros on each side, in pixels; default 0. */
  padding?: Pair | undefined;
  /** Distance of the kernel's points, in pixels; default 1. */
  dilation?: Pair | undefined;
  /** Groups of channels that do not see one another; must divide both numbers of channels; default 1. */
  groups?: number | undefined;
  /** Learn a bias for each output channel; default true. */
  bias?: boolean | undefined;
}

const NAMES = [...FACTORY_OPTIONS, "stride", "padding", "dilation", "groups", "bias"];

function checkGroups(name: string, inChannels: number, outChannels: number, groups: number): void {
  if (!Number.isInteger(groups) || groups < 1 || inChannels % groups !== 0 || outChannels % groups !== 0) {
    throw new TorchError(`${name}: groups must divide ${inChannels} and ${outChannels} channels, got ${groups}`);
  }
}

/** Convolution over (B, in, H, W) with PyTorch's default initialisation. PyTorch: `nn.Conv2d`. */
export class Conv2d extends Module {
  /** (out, in / groups, kernel height, kernel width) */
  readonly weight: Tensor;
  /** (out) */
  readonly bias: Tensor | null;
  /** Steps of the kernel, in pixels. */
  readonly stride: Pair;
  /** Zeros on each side, in pixels. */
  readonly padding: Pair;
  /** Distance of the kernel's points, in pixels. */
  readonly dilation: Pair;
  /** Groups of channels that do not see one another. */
  readonly groups: number;

  /** @throws TorchError when `groups` does not divide both numbers of channels */
  constructor(
    /** Channels of the input. */
    readonly inChannels: number,
    /** Channels of the output. */
    readonly outChannels: number,
    kernel: Pair,
    options: Conv2dOptions = {},
  ) {
    super();
    const {
      stride = 1,
      padding = 0,
      dilation = 1,
      groups = 1,
      bias = true,
      ...factory
    } = known("Conv2d", options, NAMES);
    checkGroups("Conv2d", inChannels, outChannels, groups);
    this.stride = stride;
    this.padding = padding;
    this.dilation = dilation;
    this.groups = groups;
    this.weight = this.parameter(
      "weight",
      empty([outChannels, inChannels / groups, ...pair(kernel, "Conv2d: kernel")], factory),
    );
    this.bias = bias ? this.parameter("bias", empty([outChannels], factory)) : null;
    defaultWeightAndBias_(this.weight, this.bias);
  }

  /** (B, in, H, W) → (B, out, H', W') */
  forward(x: Tensor): Tensor {
    const { stride, padding, dilation, groups } = this;
    return conv2d(x, this.weight, this.bias, { stride, padding, dilation, groups });
  }
}

/** Options of {@link ConvTranspose2d}. */
export interface ConvTranspose2dOptions extends Conv2dOptions {
  /** Pixels added to one side of the result; default 0. */
  outputPadding?: Pair | undefined;
}

/** Transposed convolution over (B, in, H, W): upsampling by the stride. PyTorch: `nn.ConvTranspose2d`. */
export class ConvTranspose2d extends Module {
  /** (in, out / groups, kernel height, kernel width) */
  readonly weight: Tensor;
  /** (out) */
  readonly bias: Tensor | null;
  readonly #options: { stride: Pair; padding: Pair; outputPadding: Pair; dilation: Pair; groups: number };

  /** @throws TorchError when `groups` does not divide both numbers of channels */
  constructor(
    /** Channels of the input. */
    readonly inChannels: number,
    /** Channels of the output. */
    readonly outChannels: number,
    kernel: Pair,
    options: ConvTranspose2dOptions = {},
  ) {
    super();
    const names = [...NAMES, "outputPadding"];
    const {
      stride = 1,
      padding = 0,
      outputPadding = 0,
      dilation = 1,
      groups = 1,
      bias = true,
      ...factory
    } = known("ConvTranspose2d", options, names);
    checkGroups("ConvTranspose2d", inChannels, outChannels, groups);
    this.#options = { stride, padding, outputPadding, dilation, groups };
    this.weight = this.parameter(
      "weight",
      empty([inChannels, outChannels / groups, ...pair(kernel, "ConvTranspose2d: kernel")], factory),
    );
    this.bias = bias ? this.parameter("bias", empty([outChannels], factory)) : null;
    defaultWeightAndBias_(this.weight, this.bias);
  }

  /** (B, in, H, W) → (B, out, H', W') */
  forward(x: Tensor): Tensor {
    return convTranspose2d(x, this.weight, this.bias, this.#options);
  }
}
