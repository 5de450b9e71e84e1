/**
 * The sine code of positions of DETR (Carion et al. 2020): half of the channels for the row, half for the column.
 *
 *   p = (i + 1) / (n + 10⁻⁶) · 2π,  channel 2k: sin(p / T^(2k/D)),  channel 2k + 1: cos(p / T^(2k/D)),  T = 10⁴
 */
import { arange, cat, scope, stack, type Tensor } from "@miro-t2i/torch";

const TEMPERATURE = 10_000;

/** Codes of the cells of a map, row by row: (H·W, width) in float32; the caller owns them. */
export function sineCode(height: number, width: number, channels: number, device: string): Tensor {
  return scope(() => {
    const D = channels / 2;
    const exponents = arange(D, { dtype: "float32", device })
      .div(2)
      .floor()
      .mul(2 / D);
    const periods_D = exponents.mul(Math.log(TEMPERATURE)).exp();
    const axis = (n: number) => {
      const positions = arange(1, n + 1, { dtype: "float32", device })
        .div(n + 1e-6)
        .mul(2 * Math.PI);
      const phases_nD = positions
        .view(n, 1)
        .div(periods_D)
        .view(n, D / 2, 2);
      return stack([phases_nD.select(2, 0).sin(), phases_nD.select(2, 1).cos()], 2).view(n, D);
    };
    const y = axis(height).view(height, 1, D).expand(height, width, D);
    const x = axis(width).view(1, width, D).expand(height, width, D);
    return cat([y, x], 2).view(height * width, channels);
  });
}
