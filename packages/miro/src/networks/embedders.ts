/**
 * Scalars to vectors: random Fourier features (Tancik et al. 2020) and the small network on top of them that embeds the
 * signal level γ and each reward.
 *
 * The features are angles of up to thousands of radians, so frequencies, phases and everything up to the first linear
 * layer stay in float32 whatever the dtype of the network.
 */
import { nn, rand, randn, type Tensor } from "@miro-t2i/torch";
import { Linear } from "./linear.js";

/**
 * `√2 · cos(x · freqs + phases)`: (B,) → (B, channels). The frequencies are drawn once, stored, and float32 for good.
 */
export class FourierEmbedding extends nn.Module {
  readonly freqs: Tensor;
  readonly phases: Tensor;

  constructor(channels: number) {
    super();
    this.freqs = this.buffer("freqs", randn([channels]).mul(2 * Math.PI), { keepDtype: true });
    this.phases = this.buffer("phases", rand([channels]).mul(2 * Math.PI), { keepDtype: true });
  }

  forward(x: Tensor): Tensor {
    const angle = x.float().unsqueeze(-1).mul(this.freqs).add(this.phases);
    return angle.cos().mul(Math.SQRT2);
  }
}

/**
 * Embeds a scalar: Fourier features of width dim/4, standardised over each row (unbiased deviation, no epsilon), then
 * linear, SiLU, linear. (B,) → (B, dim)
 */
export class ScalarEmbedder extends nn.Module {
  readonly fourier: FourierEmbedding;
  readonly input: Linear;
  readonly output: Linear;

  constructor(dim: number) {
    super();
    this.fourier = this.register("encode_time", new FourierEmbedding(dim / 4));
    this.input = this.register("map_time_input", new Linear(dim / 4, dim));
    this.output = this.register("map_time_output", new Linear(dim, dim));
  }

  forward(x: Tensor): Tensor {
    const features = this.fourier.forward(x);
    const centred = features.sub(features.mean(-1, true));
    const standardised = centred.div(features.std(-1, { keepdim: true }));
    return this.output.forward(this.input.forward(standardised.to(this.output.bias!.dtype), "silu"));
  }
}
