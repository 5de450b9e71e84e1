/**
 * The affine map between an autoencoder's raw latents and what the network sees, per channel:
 *
 *   x = latent · scale + bias        latent = (x − bias) / scale
 *
 * A checkpoint stores it twice, as `data_preprocessing.{scale,bias}` and `postprocessing.{scale,bias}`, each (1, C, 1,
 * 1); where it does not, the constants below apply (the SDXL autoencoder's statistics).
 */
import { scope, type Tensor, tensor } from "@miro-t2i/torch";
import { invalid } from "../errors.js";

const SDXL = { scale: [7.8518, 5.8465, 6.8716, 5.314], bias: [-0.348, 0.3754, 0.0419, 2.4331], plain: 0.13025 };

/** Scale and bias, (1, C, 1, 1) float32 each. */
export interface LatentNormalization {
  scale: Tensor;
  bias: Tensor;
}

/**
 * The constants of a `data_preprocessing` or `postprocessing` object of a `config.json`.
 *
 * Channel-wise (what every published model uses): x = 0.5·(latent − b)/s, so that data has a standard deviation of
 * about 0.5. Plain: x = 0.13025·latent. The published code divides there, so that its latents are 59 times too large; a
 * checkpoint that was trained so says it in its own buffers, which win.
 */
export function defaultNormalization(config: {
  channel_wise_normalisation?: boolean;
  model_type?: string;
}): LatentNormalization {
  const { channel_wise_normalisation: channelWise = false, model_type: type = "sdxl" } = config;
  if (type !== "sdxl") throw invalid("model_type", "sdxl", type);
  return scope(() => {
    const column = (values: number[]) => tensor(values, { dtype: "float32" }).view(1, 4, 1, 1);
    const scale = channelWise ? column(SDXL.scale).reciprocal().mul(0.5) : column(Array(4).fill(SDXL.plain));
    const bias = channelWise ? column(SDXL.bias).neg().mul(scale) : scale.mul(0);
    return { scale, bias };
  });
}

/** Raw latents → network space. */
export function normalize(latents: Tensor, { scale, bias }: LatentNormalization): Tensor {
  return latents.mul(scale).add(bias);
}

/** Network space → raw latents. */
export function denormalize(x: Tensor, { scale, bias }: LatentNormalization): Tensor {
  return x.sub(bias).div(scale);
}
