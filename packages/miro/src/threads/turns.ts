/** Work that goes one after another, in the order in which it was asked for. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs work when all that was asked for before has ended. */
  take<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#last.then(work, work);
    this.#last = mine.catch(() => {});
    return mine;
  }

  /** A generator whose values are made in turns, so that several of them share what they work with evenly. */
  async *share<T>(values: AsyncGenerator<T, void, void>): AsyncGenerator<T, void, void> {
    try {
      for (;;) {
        const { value, done } = await this.take(() => values.next());
        if (done) return;
        yield value as T;
      }
    } finally {
      await this.take(() => values.return());
    }
  }
}
