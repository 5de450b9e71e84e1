/**
 * The two feed-forward layers: SwiGLU (Shazeer 2020) in the RIN blocks, a GELU MLP in the conditioning transformer and
 * in the self-conditioning path.
 */
import { nn, type Tensor } from "@miro-t2i/torch";
import { Linear } from "./linear.js";

/** Hidden width of a {@link SwiGlu}: two thirds of `multiplier · dim`, rounded down, then up to a multiple of 256. */
export function swiGluWidth(dim: number, multiplier: number): number {
  return Math.ceil(Math.floor((multiplier * dim * 2) / 3) / 256) * 256;
}

/** `linear_out(dropout(value · SiLU(gate)))` where `[value, gate] = linear_packed(x)`. (..., dim) → (..., dim) */
export class SwiGlu extends nn.Module {
  readonly packed: Linear;
  readonly out: Linear;

  constructor(
    dim: number,
    multiplier: number,
    readonly dropout = 0,
  ) {
    super();
    const hidden = swiGluWidth(dim, multiplier);
    this.packed = this.register("linear_packed", new Linear(dim, 2 * hidden, { parts: 2 }));
    this.out = this.register("linear_out", new Linear(hidden, dim));
  }

  forward(x: Tensor): Tensor {
    return this.out.forward(this.hidden(x));
  }

  hidden(x: Tensor): Tensor {
    return nn.functional.dropout(this.packed.gated(x), this.dropout, this.training);
  }
}

/** `linear_2(GELU(linear_1(x)))`, hidden width multiplier · dim, exact (erf) GELU. (..., dim) → (..., dim) */
export class GeluMlp extends nn.Module {
  readonly linear1: Linear;
  readonly linear2: Linear;

  constructor(dim: number, multiplier = 4) {
    super();
    const hidden = Math.round(multiplier * dim);
    this.linear1 = this.register("linear_1", new Linear(dim, hidden));
    this.linear2 = this.register("linear_2", new Linear(hidden, dim));
  }

  forward(x: Tensor): Tensor {
    return this.linear2.forward(this.linear1.forward(x, "gelu"));
  }
}
