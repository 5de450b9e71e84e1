/** What every autoencoder of this package can do, whatever its layers. */
import type { DType, nn, Tensor } from "@miro-t2i/torch";

/** The distribution of a picture's latents: a normal one for each value. */
export interface LatentDistribution {
  /** (B, latentChannels, H / downsampling, W / downsampling) float32 */
  mean: Tensor;
  /** Same shape, float32. */
  std: Tensor;
}

/** Pictures to latents and back. The caller owns what the two functions return. */
export interface Autoencoder extends nn.Module {
  readonly latentChannels: number;
  /** Pixels for one latent along a side. */
  readonly downsampling: number;
  /** (B, 3, H, W) in [-1, 1], H and W multiples of `downsampling` → raw latents, not normalised. */
  encode(pictures: Tensor): LatentDistribution;
  /** Raw latents (B, latentChannels, h, w) → (B, 3, h · downsampling, w · downsampling) float32, in about [-1, 1]. */
  decode(latents: Tensor): Tensor;
}

/** How to load an autoencoder. */
export interface LoadAutoencoderOptions {
  /** Dtype of weights and activations (default float32). The SDXL autoencoder overflows in float16. */
  dtype?: Extract<DType, "float32" | "bfloat16"> | undefined;
  /** Where it goes, default `cpu`. */
  device?: string | undefined;
}
