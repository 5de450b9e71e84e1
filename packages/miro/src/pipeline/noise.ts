/** Initial noise: one generator for each picture, so that a seed gives the same noise whatever is drawn beside it. */
import { cat, Generator, randn, scope, type Tensor } from "@miro-t2i/torch";

/**
 * Standard normal noise (seeds.length, ...shape) float32 on the CPU; row i equals PyTorch's
 * `torch.randn(1, ...shape, generator=Generator().manual_seed(seeds[i]))`. Drawn on the CPU for every device, so that
 * a seed means the same picture everywhere. The caller owns the result.
 */
export function initialNoise(seeds: readonly number[], shape: readonly number[]): Tensor {
  return scope(() =>
    cat(
      seeds.map((seed) => randn([1, ...shape], { generator: new Generator("cpu").manualSeed(seed) })),
      0,
    ),
  );
}
