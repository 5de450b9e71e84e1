/**
 * Long work that keeps the event loop waiting for moments only: a generator that yields between its pieces. Loading
 * gigabytes is done so, so that Ctrl-C and an `AbortSignal` end it, and a server answers meanwhile.
 */
import { setImmediate as nextTurn } from "node:timers/promises";

/** Work in pieces. What it has made is freed where it is given up. */
export type Pieces<T> = Generator<void, T, void>;

/** How long the event loop waits at most, beside the time of one piece. */
const AT_ONCE_MS = 20;

/**
 * Does work in pieces, and lets other work run between them.
 * @throws what the work throws; the signal's reason when it is aborted, before the next piece
 */
export async function inPieces<T>(work: Pieces<T>, signal: AbortSignal | undefined): Promise<T> {
  let lastTurn = Number.NEGATIVE_INFINITY;
  try {
    for (;;) {
      if (performance.now() - lastTurn >= AT_ONCE_MS) {
        await nextTurn();
        lastTurn = performance.now();
      }
      signal?.throwIfAborted();
      const { done, value } = work.next();
      if (done) return value;
    }
  } finally {
    work.return(undefined as never);
  }
}

/**
 * Makes something and does work on it.
 * @param make called with the first piece
 * @returns what was made; it is freed where the work fails or is given up
 */
export function* filled<T extends { dispose(): void }>(make: () => T, work: (made: T) => Pieces<unknown>): Pieces<T> {
  const made = make();
  let isDone = false;
  try {
    yield* work(made);
    isDone = true;
    return made;
  } finally {
    if (!isDone) made.dispose();
  }
}
