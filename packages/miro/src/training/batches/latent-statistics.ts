/** The affine map that brings the latents of a data set to mean 0 and a given deviation. */
import type { Tensor } from "@miro-t2i/torch";
import type { LatentNormalization } from "../../autoencoder/normalization.js";

/**
 * Mean 0 in each channel and standard deviation sigmaData over all of them, for the given latents (n, C, h, w). One
 * scale for all: channels that hold little detail keep their small variance, and with it their small part in the loss.
 */
export function normalizationOf(latents: Tensor, sigmaData: number): LatentNormalization {
  const channels_CN = latents.float().transpose(0, 1).flatten(1);
  const mean_C = channels_CN.mean(1);
  const scale = channels_CN.var(1).mean().rsqrt().mul(sigmaData);
  const [C] = mean_C.shape as [number];
  return { scale: scale.expand(C).contiguous().view(1, C, 1, 1), bias: mean_C.mul(scale).neg().view(1, C, 1, 1) };
}
