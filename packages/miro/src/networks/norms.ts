/**
 * Normalisation over the last axis. Statistics are taken in float32 whatever the dtype of the input.
 */
import { nn, ones, type Tensor } from "@miro-t2i/torch";

/** The epsilon of every norm in the network. */
export const EPS = 1e-6;

/**
 * Root-mean-square norm, `x / sqrt(mean(x²) + eps) · weight`: weight only, initialised to 1 (Zhang & Sennrich 2019).
 * The quotient is rounded to the dtype of `x` before it meets the weight, as in the published model.
 */
export class RmsNorm extends nn.Module {
  readonly weight: Tensor;

  constructor(readonly dim: number) {
    super();
    this.weight = this.parameter("weight", ones([dim]));
  }

  /**
   * (..., dim) → (..., dim), same dtype; of a float32 input under autocast on a GPU in the dtype of products, into
   * which alone the norms of float32 inputs go.
   */
  forward(x: Tensor): Tensor {
    return nn.functional.fusedRmsNorm(x, this.weight, EPS, { forProduct: true });
  }
}

/**
 * Layer norm with weight and bias and the network's epsilon.
 *
 * Under autocast on a GPU, PyTorch turns an input in half precision into float32, normalises, and has the next product
 * turn the result back: three kernels. There one kernel takes the input as it is; its statistics are in float32, too.
 * On a CPU in evaluation one loop takes rows as they lie.
 */
export class LayerNorm extends nn.LayerNorm {
  constructor(dim: number) {
    super(dim, { eps: EPS });
  }

  override forward(x: Tensor): Tensor {
    // In training on a CPU as the published code does it, to the last bit.
    if (this.training && x.device === "cpu") return super.forward(x);
    return nn.functional.fusedLayerNorm(x, this.weight!, this.bias!, this.eps);
  }
}
