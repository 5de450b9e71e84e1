/** Things that are loaded once and have several owners: the last one to let go frees them. */

/** One owner's hold. */
export interface Hold<T> {
  readonly value: T;
  /** Lets go; a second call does nothing. */
  dispose(): void;
}

export class Shared<T extends { dispose(): void }> {
  readonly #held = new Map<string, { value: T; owners: number }>();

  /** @param make called when nobody holds what the key names */
  hold(key: string, make: () => T): Hold<T> {
    const entry = this.#held.get(key) ?? { value: make(), owners: 0 };
    this.#held.set(key, entry);
    entry.owners++;
    let open = true;
    return {
      value: entry.value,
      dispose: () => {
        if (!open) return;
        open = false;
        if (--entry.owners > 0) return;
        this.#held.delete(key);
        entry.value.dispose();
      },
    };
  }
}
