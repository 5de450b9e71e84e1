/** How many threads libtorch computes one operation with, for as long as some work takes: it is the whole process's. */
import { getNumThreads, setNumThreads } from "@miro-t2i/torch";

/**
 * Runs `work` with so many threads of each tensor operation, and gives the process back those that it had.
 * @param threads 0 or undefined: as many as there are
 */
export async function withThreads<T>(threads: number | undefined, work: () => Promise<T>): Promise<T> {
  if (!threads) return work();
  const before = getNumThreads();
  setNumThreads(threads);
  try {
    return await work();
  } finally {
    setNumThreads(before);
  }
}
