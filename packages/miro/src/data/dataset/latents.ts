/** Latents of a training sample from the mean and standard deviation that the autoencoder's posterior has. */
import { Generator, randn, scope, stack, type Tensor } from "@miro-t2i/torch";
import { seedAt } from "../../random/philox.js";

/** In which dtype latents are drawn. */
export const LATENT_DTYPES = ["float32", "stored"] as const;
export type LatentDtype = (typeof LATENT_DTYPES)[number];

/**
 * mean + std · ε, not normalised. (B, C, h, w) each; float32 or, with `stored`, in the dtype of the files with every
 * step rounded to it, as in the published code.
 */
export function sampleLatents(mean: Tensor, std: Tensor, noise: Tensor, dtype: LatentDtype): Tensor {
  if (dtype === "stored") return noise.to(mean.dtype).mul(std).add(mean);
  return noise.float().mul(std.float()).add(mean.float());
}

/** The noise ε of samples in an epoch, (B, …shape) float32: each sample's own, whatever else is in the batch. */
export function latentNoise(
  rows: readonly { epoch: number; sample: number }[],
  seed: number,
  shape: readonly number[],
): Tensor {
  return scope(() =>
    stack(
      rows.map(({ epoch, sample }) => {
        const generator = new Generator().manualSeed(seedAt({ seed, epoch, sample, purpose: "latent" }));
        return randn([...shape], { generator });
      }),
      0,
    ),
  );
}
