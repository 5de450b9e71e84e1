/** Waits for other processes, which may not come. */
import { TorchError } from "../errors.js";

/** The longest time that setTimeout knows. */
const MOST_MS = 2 ** 31 - 1;

/**
 * Keeps the process while it waits for a native promise that does not keep it by itself, so that it can end when the
 * wait is given up.
 *
 * @param free frees what comes too late
 * @param limit the time after which the wait is given up, with what is said then
 * @throws what the promise rejects with; the signal's reason, as soon as it is aborted
 */
export async function awaited<T>(
  promise: Promise<T>,
  free: (late: T) => unknown,
  { signal, limit }: { signal?: AbortSignal | undefined; limit?: { ms: number; message: string } } = {},
): Promise<T> {
  let end: () => void = () => {};
  const ended = new Promise<never>((_, reject) => {
    const timer = setTimeout(
      () => reject(new TorchError(limit?.message ?? "waited too long")),
      Math.min(limit?.ms ?? MOST_MS, MOST_MS),
    );
    const abort = () => reject(signal!.reason);
    if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort, { once: true });
    end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    };
  });
  try {
    return await Promise.race([promise, ended]);
  } catch (error) {
    promise.then(free, () => {});
    throw error;
  } finally {
    end();
  }
}
