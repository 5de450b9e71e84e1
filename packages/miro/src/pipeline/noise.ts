/** Noise of pictures: one generator for each, so that a seed gives the same noise whatever is drawn beside it. */
import { createHash } from "node:crypto";
import { cat, Generator, randn, scope, type Tensor } from "@miro-t2i/torch";

/**
 * A source of standard normal noise (seeds.length, ...shape) float32 on the CPU. Row i of the first draw equals
 * PyTorch's `torch.randn(1, ...shape, generator=Generator().manual_seed(seeds[i]))`; it is the initial noise. Further
 * draws, for samplers that add noise, go on with the same generators. Drawn on the CPU for every device, so that a seed
 * means the same picture everywhere. The caller owns what is drawn.
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

/**
 * A source as {@link noiseOf} whose first draw is given; those after it begin with the first draws of seeds that are
 * computed from what is given.
 */
export function noiseAfter(given: () => Tensor, shape: readonly number[]): () => Tensor {
  let more: (() => Tensor) | null = null;
  let begun = false;
  return () => {
    if (begun) {
      more ??= noiseOf(
        scope(() => seedsOf(given())),
        shape,
      );
      return more();
    }
    begun = true;
    return given();
  };
}

/** The seeds of pictures whose initial noise (B, …) is given instead: each is computed from the noise itself. */
function seedsOf(noise: Tensor): number[] {
  return Array.from({ length: noise.size(0) }, (_, i) => {
    const values = scope(() => Float32Array.from(noise.select(0, i).to("float32").flatten().toList() as number[]));
    return createHash("sha256").update(new Uint8Array(values.buffer)).digest().readUIntBE(0, 6);
  });
}

/**
 * A source whose draws lie between those of two others, row by row on the arc between them, so that they are standard
 * normal too: 0 gives the first, 1 the second.
 */
export function between(first: () => Tensor, second: () => Tensor, share: number): () => Tensor {
  if (share === 0) return first;
  if (share === 1) return second;
  return () => scope(() => slerp(first(), second(), share));
}

/** sin((1 − t)·θ)/sin θ · a + sin(t·θ)/sin θ · b for each row, θ being the angle between a and b. */
function slerp(a: Tensor, b: Tensor, share: number): Tensor {
  const rows = Array.from({ length: a.size(0) }, (_, row) => {
    const [x, y] = [a.narrow(0, row, 1), b.narrow(0, row, 1)];
    const dot = (p: Tensor, q: Tensor) => p.to("float64").mul(q.to("float64")).sum().item();
    const cosine = dot(x, y) / Math.sqrt(dot(x, x) * dot(y, y));
    // On one line there is no arc.
    if (!(Math.abs(cosine) < 1 - 1e-9)) return x.mul(1 - share).add(y.mul(share));
    const angle = Math.acos(cosine);
    const weight = (part: number) => Math.sin(part * angle) / Math.sin(angle);
    return x.mul(weight(1 - share)).add(y.mul(weight(share)));
  });
  return cat(rows, 0);
}
