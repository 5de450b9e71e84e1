/** Work that goes one after another, in the order in which it was asked for. */
import { orAborted } from "./interruption.js";

/** A queue of those who want to work. */
export class Turns {
  #last: Promise<void> = Promise.resolve();

  /**
   * Waits until the turns of all who asked before are over.
   *
   * @returns what ends this turn
   * @throws the signal's reason when it is aborted meanwhile; its place in the queue is free then
   */
  async begin(signal?: AbortSignal): Promise<() => void> {
    const before = this.#last;
    let end: () => void = () => {};
    const mine = new Promise<void>((resolve) => {
      end = resolve;
    });
    // Who leaves the queue must not let the next one in before its time.
    this.#last = before.then(() => mine);
    try {
      await orAborted(before, signal);
    } catch (error) {
      end();
      throw error;
    }
    return end;
  }

  /** A generator whose values are made in turns, so that several of them share what they work with evenly. */
  async *share<T>(values: AsyncGenerator<T, void, void>, signal?: AbortSignal): AsyncGenerator<T, void, void> {
    try {
      for (;;) {
        const end = await this.begin(signal);
        const next = await values.next().finally(end);
        if (next.done) return;
        yield next.value;
      }
    } finally {
      await values.return(); // frees what it holds, which is no work
    }
  }
}
