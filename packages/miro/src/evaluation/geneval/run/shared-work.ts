/**
 * Work on numbered things that several processes share through one folder: each takes what nobody has taken, and what a
 * process has taken that was killed is free again.
 */
import { NameClaims } from "../../../pipeline/requests/name-claims.js";

/** The part of one process. */
export class SharedWork implements Disposable {
  readonly #claims: NameClaims;
  readonly #signal: AbortSignal | undefined;
  readonly #onWait: ((message: string) => void) | undefined;

  /** @param folder that the processes share; made with the first thing that is taken */
  constructor(
    folder: string,
    { signal, onWait }: { signal?: AbortSignal | undefined; onWait?: ((message: string) => void) | undefined } = {},
  ) {
    this.#claims = new NameClaims(folder);
    this.#signal = signal;
    this.#onWait = onWait;
  }

  /** Removes what processes that were killed had taken. */
  async tidy(): Promise<void> {
    await this.#claims.choose(() => [], { signal: this.#signal, onWait: this.#onWait });
  }

  /**
   * Takes the first things that nobody has taken and that are not done.
   *
   * @param stage tells works on the same things apart
   * @param most things at once
   * @returns what was taken; nothing where all is done or in other hands
   */
  async take(
    stage: string,
    things: readonly number[],
    isDone: (thing: number) => boolean,
    most: number,
  ): Promise<number[]> {
    const taken: number[] = [];
    if (things.length === 0) return taken;
    await this.#claims.choose(
      (others) => {
        for (const thing of things) {
          if (taken.length === most) break;
          // What another process had taken may be done by now, so this is asked while nobody else chooses.
          if (!others.has(NameClaims.key(nameOf(stage, thing))) && !isDone(thing)) taken.push(thing);
        }
        return taken.map((thing) => nameOf(stage, thing));
      },
      { signal: this.#signal, onWait: this.#onWait },
    );
    return taken;
  }

  /** Gives up what was taken. */
  release(): void {
    this.#claims.release();
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

function nameOf(stage: string, thing: number): string {
  return `${stage}/${thing}`;
}
