/** Zeroes values with probability p while training and scales the rest by 1/(1 − p). Srivastava et al. (2014). */
import { TorchError } from "../errors.js";
import type { Tensor } from "../tensor.js";
import { dropout } from "./functional.js";
import { Module } from "./module.js";

/** Zeroes elements while training; the identity afterwards. PyTorch: `nn.Dropout`. */
export class Dropout extends Module {
  /** @param p probability, from 0 to 1. @throws TorchError outside of it */
  constructor(readonly p = 0.5) {
    super();
    if (!(p >= 0 && p <= 1)) throw new TorchError(`Dropout: p must lie in [0, 1], got ${p}`);
  }

  /** (…) → (…) */
  forward(x: Tensor): Tensor {
    return dropout(x, this.p, this.training);
  }
}
