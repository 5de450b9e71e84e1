/** Things that are loaded once and have several owners: the last one to let go frees them. */

/** One owner's hold. */
export interface Hold<T> {
  readonly value: T;
  /** Lets go; a second call does nothing. */
  dispose(): void;
}

interface Entry<T> {
  making: Promise<T>;
  owners: number;
}

export class Shared<T extends { dispose(): void }> {
  readonly #held = new Map<string, Entry<T>>();

  /**
   * @param make called when nobody holds what the key names. Where another owner's `make` fails, as when it is given
   *   up, this one is tried
   * @throws what `make` throws
   */
  async hold(key: string, make: () => Promise<T>): Promise<Hold<T>> {
    for (;;) {
      const others = this.#held.get(key);
      const entry = others ?? { making: make(), owners: 0 };
      this.#held.set(key, entry);
      entry.owners++;
      try {
        const value = await entry.making;
        return { value, dispose: once(() => this.#letGo(key, entry, value)) };
      } catch (error) {
        if (this.#held.get(key) === entry) this.#held.delete(key);
        if (others === undefined) throw error;
      }
    }
  }

  #letGo(key: string, entry: Entry<T>, value: T): void {
    if (--entry.owners > 0) return;
    this.#held.delete(key);
    value.dispose();
  }
}

function once(work: () => void): () => void {
  let isDone = false;
  return () => {
    if (isDone) return;
    isDone = true;
    work();
  };
}
