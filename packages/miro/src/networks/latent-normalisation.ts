/**
 * Raw latents of the SDXL autoencoder to the network's input and back: `x = latent · scale + bias`.
 *
 * Channel-wise (what every published model uses) the statistics of each channel bring the standard deviation to 0.5, the
 * preconditioning's σ. The plain mode multiplies by the autoencoder's own factor 0.13025. Upstream's plain mode divides by
 * it, so that its latents are 59 times too large. A checkpoint stores both buffers, and loading it restores what its
 * network was trained with, that fault included.
 */
import { nn, type Tensor, tensor } from "@miro-t2i/torch";
import { invalid } from "../errors.js";

const STATISTICS = {
  sdxl: {
    scale: [7.8518, 5.8465, 6.8716, 5.314],
    bias: [-0.348, 0.3754, 0.0419, 2.4331],
    plain: 0.13025,
  },
} as const;

export interface LatentNormalisationOptions {
  /** One scale and bias for each channel; otherwise one factor for all. */
  channelWise?: boolean;
  /** The autoencoder whose statistics to use: `sdxl`. */
  modelType?: string;
}

export class LatentNormalisation extends nn.Module {
  /** (1, 4, 1, 1) float32 */
  readonly scale: Tensor;
  /** (1, 4, 1, 1) float32 */
  readonly bias: Tensor;

  constructor({ channelWise = true, modelType = "sdxl" }: LatentNormalisationOptions = {}) {
    super();
    if (!Object.hasOwn(STATISTICS, modelType)) {
      throw invalid("modelType", `one of ${Object.keys(STATISTICS).join(", ")}`, modelType);
    }
    const { scale, bias, plain } = STATISTICS[modelType as keyof typeof STATISTICS];
    const scales = scale.map((s) => (channelWise ? 0.5 / s : plain));
    const biases = bias.map((b, c) => (channelWise ? -b * scales[c]! : 0));
    this.scale = this.buffer("scale", tensor(scales, { shape: [1, 4, 1, 1], dtype: "float32" }), { keepDtype: true });
    this.bias = this.buffer("bias", tensor(biases, { shape: [1, 4, 1, 1], dtype: "float32" }), { keepDtype: true });
  }

  /** Raw latents (B, 4, h, w) → the network's, float32. */
  normalise(latents: Tensor): Tensor {
    return latents.float().mul(this.scale).add(this.bias);
  }

  /** The network's latents → raw ones, float32. */
  denormalise(x: Tensor): Tensor {
    return x.float().sub(this.bias).div(this.scale);
  }
}
