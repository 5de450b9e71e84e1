/** As many threads as an evaluation of the network keeps busy. */
import { getNumThreads, setNumThreads } from "@miro-t2i/torch";
import type { Predict } from "../flow/guidance.js";

/**
 * Arithmetic that is worth a thread of its own. Threads meet after every operator, which costs some ten microseconds;
 * operators of a small network take hardly longer than that, so that two threads take longer than one. With the bundled
 * model the operators of an evaluation take 14 ms with one thread and 20 ms with two for one picture (0.8 GFLOP), 40
 * and 51 ms for four (3.1 GFLOP).
 */
const FLOPS_PER_THREAD = 3e9;

/** Threads for so much arithmetic, `most` at most. */
export function busyThreads(flops: number, most: number): number {
  return Math.max(1, Math.min(most, Math.floor(flops / FLOPS_PER_THREAD)));
}

/** Evaluations on a CPU that use no more threads than they keep busy. @param flops arithmetic of a row */
export function withBusyThreads<Conditioning>(predict: Predict<Conditioning>, flops: number): Predict<Conditioning> {
  return (y, gamma, conditioning, previousLatents) => {
    const most = getNumThreads();
    const busy = busyThreads(y.size(0) * flops, most);
    if (busy === most) return predict(y, gamma, conditioning, previousLatents);
    setNumThreads(busy);
    try {
      return predict(y, gamma, conditioning, previousLatents);
    } finally {
      setNumThreads(most);
    }
  };
}
