/** Noise of pictures: one generator for each, so that a seed gives the same noise whatever is drawn beside it. */
import { createHash } from "node:crypto";
import { cat, Generator, randn, scope, type Tensor } from "@miro-t2i/torch";

/**
 * A source of standard normal noise (seeds.length, ...shape) float32 on the CPU. Row i of the first draw equals
 * PyTorch's
 * `torch.randn(1, ...shape, generator=Generator().manual_seed(seeds[i]))`; it is the initial noise. Further draws, for
 * samplers that add noise, go on with the same generators. Drawn on the CPU for every device, so that a seed means the
 * same
 * picture everywhere. The caller owns what is drawn.
 */
export function noiseOf(seeds: readonly number[], shape: readonly number[]): () => Tensor {
  const generators = seeds.map((seed) => new Generator("cpu").manualSeed(seed));
  return () =>
    scope(() =>
      cat(
        generators.map((generator) => randn([1, ...shape], { generator })),
        0,
      ),
    );
}

/** The first draw of {@link noiseOf}. */
export function initialNoise(seeds: readonly number[], shape: readonly number[]): Tensor {
  return noiseOf(seeds, shape)();
}

/** The seeds of pictures whose initial noise (B, …) is given instead: each is computed from the noise itself. */
export function seedsOf(noise: Tensor): number[] {
  return Array.from({ length: noise.size(0) }, (_, i) => {
    const values = scope(() => Float32Array.from(noise.select(0, i).to("float32").flatten().toList() as number[]));
    return createHash("sha256").update(new Uint8Array(values.buffer)).digest().readUIntBE(0, 6);
  });
}
