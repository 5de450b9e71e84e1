/**
 * How many floating-point operations a second the machine does at best: the fastest of a few square matrix products,
 * large enough that starting them costs nothing. What model FLOPs utilisation is measured against where no figure of
 * the vendor is given.
 */
import { cuda, Generator, noGrad, randn, scope } from "@miro-t2i/torch";
import { cudaIndex } from "../../pipeline/loading/device.js";

const REPEATS = 3;
/** A product that takes so long is large enough. */
const LONG_ENOUGH_MS = 10;
const LARGEST = 16_384;

/** What {@link measurePeakFlops} measures. */
export interface PeakOptions {
  device: string;
  /** Of the factors. */
  dtype: "float32" | "bfloat16" | "float16";
}

/**
 * Operations a second (two for each multiply-add) with as many threads as operations use; takes about a tenth of a
 * second on a CPU.
 */
export function measurePeakFlops({ device, dtype }: PeakOptions): number {
  const gpu = cudaIndex(device);
  return noGrad(() => {
    for (let side = 256; ; side *= 2) {
      const best = scope(() => {
        // Random values: a GPU draws less power for constant ones, and is faster than it ever is in training.
        const a = randn([side, side], { dtype, device, generator: new Generator(device).manualSeed(0) });
        const product = () => {
          const started = performance.now();
          a.matmul(a).dispose();
          if (gpu !== null) cuda.synchronize(gpu);
          return performance.now() - started;
        };
        product(); // libraries choose and load their kernels
        return Math.min(...Array.from({ length: REPEATS }, product));
      });
      if (best >= LONG_ENOUGH_MS || side >= LARGEST) return (2 * side ** 3 * 1000) / best;
    }
  });
}
