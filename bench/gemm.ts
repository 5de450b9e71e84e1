/** The machine's ceiling: the fastest matrix product that libtorch does here. */
import { type DType, noGrad, randn, scope } from "@miro-t2i/torch";
import { seconds, waitForDevice } from "./harness.js";

export interface GemmCeiling {
  dtype: string;
  /** Best over the shapes, each the best of several runs. */
  gflops: number;
  shape: [m: number, k: number, n: number];
}

/** Shapes as the network's (rows · tokens, from, to), and square ones, which suit the library best. */
const SHAPES: [number, number, number][] = [
  [512, 1024, 5632],
  [1024, 1024, 1024],
  [2048, 2048, 2048],
  [4096, 2048, 2048],
];

/** What an accelerator needs to be busy. */
const LARGE: [number, number, number] = [8192, 8192, 8192];

export function gemmCeiling(dtype: Extract<DType, "float32" | "bfloat16" | "float16">, device = "cpu"): GemmCeiling {
  let best: GemmCeiling = { dtype, gflops: 0, shape: SHAPES[0]! };
  for (const shape of device === "cpu" ? SHAPES : [...SHAPES, LARGE]) {
    const [m, k, n] = shape;
    scope(() =>
      noGrad(() => {
        const a = randn([m, k], { device }).to({ dtype });
        const b = randn([n, k], { device }).to({ dtype }).t();
        const product = () => {
          scope(() => void a.matmul(b));
          waitForDevice(device);
        };
        const times = seconds(8, 2, product);
        const gflops = (2 * m * k * n) / Math.min(...times) / 1e9;
        if (gflops > best.gflops) best = { dtype, gflops, shape };
      }),
    );
  }
  return best;
}
