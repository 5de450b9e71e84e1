/** One training in a run's folder: two that write there would remove each other's checkpoints. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { removeKilledWrites } from "@miro-t2i/torch/atomic-write";
import { InvalidInputError, MiroError } from "../../errors.js";
import { FileLock, whenKnown } from "../../files/file-lock.js";
import { message, option } from "../../message.js";

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
    const found = await whenKnown(() => FileLock.acquire(output, RUN_LOCK), {
      signal,
      onWait: ({ text }) => onMessage?.(`${output}: waiting for a sign of life of ${text}, which trained here`),
    });
    if (!(found instanceof FileLock))
      throw new InvalidInputError(
        message`${output}: ${found.text} trains here; wait for its end, or name another ${option("output")}`,
      );
    // A run that has no checkpoint left to write would leave there what a killed one was about to remove.
    removeKilledWrites(join(output, "checkpoints"));
    return new RunLock(output, found);
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
