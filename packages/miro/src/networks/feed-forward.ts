/**
 * The two feed-forward layers: SwiGLU (Shazeer 2020) in the RIN blocks, a GELU MLP in the conditioning transformer and
 * in the self-conditioning path.
 */
import { nn, type Tensor } from "@miro-t2i/torch";

/** Hidden width of a {@link SwiGlu}: two thirds of `multiplier · dim`, rounded down, then up to a multiple of 256. */
export function swiGluWidth(dim: number, multiplier: number): number {
  return Math.ceil(Math.floor((multiplier * dim * 2) / 3) / 256) * 256;
}

/** `linear_out(dropout(value · SiLU(gate)))` where `[value, gate] = linear_packed(x)`. (..., dim) → (..., dim) */
export class SwiGlu extends nn.Module {
  readonly packed: nn.Linear;
  readonly out: nn.Linear;

  constructor(
    dim: number,
    multiplier: number,
    readonly dropout = 0,
  ) {
    super();
    const hidden = swiGluWidth(dim, multiplier);
    this.packed = this.register("linear_packed", new nn.Linear(dim, 2 * hidden));
    this.out = this.register("linear_out", new nn.Linear(hidden, dim));
  }

  forward(x: Tensor): Tensor {
    const [value, gate] = this.packed.forward(x).chunk(2, -1) as [Tensor, Tensor];
    const hidden = nn.functional.silu(gate).mul(value);
    return this.out.forward(nn.functional.dropout(hidden, this.dropout, this.training));
  }
}

/** `linear_2(GELU(linear_1(x)))`, hidden width 4 · dim, exact (erf) GELU. (..., dim) → (..., dim) */
export class GeluMlp extends nn.Module {
  readonly linear1: nn.Linear;
  readonly linear2: nn.Linear;

  constructor(dim: number) {
    super();
    this.linear1 = this.register("linear_1", new nn.Linear(dim, 4 * dim));
    this.linear2 = this.register("linear_2", new nn.Linear(4 * dim, dim));
  }

  forward(x: Tensor): Tensor {
    return this.linear2.forward(nn.functional.gelu(this.linear1.forward(x)));
  }
}
