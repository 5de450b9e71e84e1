/** Waiting for a device while the event loop goes on: signals, messages of threads and reads of files are handled. */
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";

/**
 * For so long the event loop goes round without pause between two looks at the device; afterwards it sleeps for one.
 * What takes longer lasts longer than a sleep, and a loop that queues its next step before the device has done this one
 * leaves it nothing to wait for.
 */
const EAGER_MS = 2;

/**
 * Resolves when the device has come so far, at once where it has already.
 * @throws the signal's reason when it is aborted
 */
export async function untilDone(event: { readonly isDone: boolean }, signal?: AbortSignal): Promise<void> {
  const start = performance.now();
  while (!event.isDone) {
    if (performance.now() - start < EAGER_MS) await nextTurn();
    else await sleep(1);
    signal?.throwIfAborted();
  }
}
