/**
 * Work on numbered things that several processes share through one folder: each takes what nobody has taken, and what a
 * process has taken that was killed is free again.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { NameClaims } from "../pipeline/requests/name-claims.js";

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

/**
 * Scores folders together with other processes: each takes a folder that nobody has taken. A folder that another one
 * has scored is only read then, since scores are kept beside the pictures.
 *
 * @param output folder that the processes share
 */
export async function scoreShared<T>(
  folders: readonly string[],
  score: (folder: string) => Promise<T>,
  {
    output,
    signal,
    onMessage,
  }: { output: string; signal?: AbortSignal | undefined; onMessage?: ((message: string) => void) | undefined },
): Promise<T[]> {
  const scored = new Map<number, T>();
  using work = new SharedWork(output, { signal, onWait: onMessage });
  for (let told = false; ; ) {
    signal?.throwIfAborted();
    const open = folders.flatMap((_, i) => (scored.has(i) ? [] : [i]));
    if (open.length === 0) break;
    const [next] = await work.take("score", open, () => false, 1);
    if (next === undefined) {
      if (!told) onMessage?.(`waiting for another process, which scores ${folders[open[0]!]}`);
      told = true;
      await sleep(POLL_MS, undefined, signal ? { signal } : {});
      continue;
    }
    scored.set(next, await score(folders[next]!));
    work.release();
  }
  return folders.map((_, i) => scored.get(i)!);
}

/** How often the work of others is looked at. */
const POLL_MS = 250;
