/** One training in a run's folder: two that write there would remove each other's checkpoints. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { removeKilledWrites } from "@miro-t2i/torch/atomic-write";
import { InvalidInputError, MiroError } from "../../errors.js";
import { FileLock } from "../../files/file-lock.js";
import { message, option } from "../../message.js";

const POLL_MS = 1000;

/** Name of the lock in a run's folder. */
export const RUN_LOCK = "run";

export interface RunLockOptions {
  signal?: AbortSignal | undefined;
  onMessage?: ((message: string) => void) | undefined;
}

export class RunLock {
  readonly #output: string;
  readonly #lock: FileLock;

  private constructor(output: string, lock: FileLock) {
    this.#output = output;
    this.#lock = lock;
  }

  /**
   * Takes the folder of a run, which is made where it is missing. Where nothing is known of the owner of its lock,
   * waits for a sign of life of it, which refuses this training, or for a silence that shows that it was killed.
   * @throws InvalidInputError when another training is running there
   */
  static async acquire(output: string, { signal, onMessage }: RunLockOptions = {}): Promise<RunLock> {
    let silentMs: number | null = null;
    for (;;) {
      signal?.throwIfAborted();
      const found = FileLock.acquire(output, RUN_LOCK);
      if (found instanceof FileLock) {
        // A run that has no checkpoint left to write would leave there what a killed one was about to remove.
        removeKilledWrites(join(output, "checkpoints"));
        return new RunLock(output, found);
      }
      // Less silence than a moment ago: it was heard of.
      if (found.isKnown || (silentMs !== null && found.silentMs < silentMs))
        throw new InvalidInputError(
          message`${output}: ${found.text} trains here; wait for its end, or name another ${option("output")}`,
        );
      if (silentMs === null) onMessage?.(`${output}: waiting for a sign of life of ${found.text}, which trained here`);
      silentMs = found.silentMs;
      await sleep(POLL_MS, undefined, signal ? { signal } : {});
    }
  }

  /**
   * @throws MiroError when another process has taken the run over, as it may from one that was stopped for long, or its
   *   folder is gone
   */
  check(): void {
    if (this.#lock.isHeld()) return;
    const reason = existsSync(this.#output)
      ? "another process has taken over this run, as nothing was heard of this one"
      : "the folder of the run was removed or renamed";
    throw new MiroError(`${this.#output}: ${reason}; it stops without a checkpoint`);
  }

  release(): void {
    this.#lock.release();
  }
}
