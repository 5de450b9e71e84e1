/** Places where long work can be stopped. */
import { setImmediate as nextTurn } from "node:timers/promises";
import { letManyListen } from "../abort-signals.js";

/** Lets other work run, so that an abort can arrive. @throws the signal's reason when it has */
export async function breathe(signal: AbortSignal | undefined): Promise<void> {
  await nextTurn();
  signal?.throwIfAborted();
}

/**
 * Waits for what others may wait for too, and which therefore goes on when this one gives up.
 * @throws what the promise rejects with; the signal's reason, as soon as it is aborted
 */
export async function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  letManyListen(signal);
  let abort: () => void = () => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
  });
  try {
    return await Promise.race([aborted, promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
