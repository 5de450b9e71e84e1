/**
 * Checkpoints written beside the training: a step waits for a copy of the tensors in memory, a worker thread brings the
 * copy to the disk as checkpoint.ts does. At most one is on its way; the next one waits for it.
 */
import { once } from "node:events";
import type { Worker } from "node:worker_threads";
import { empty, noGrad, type SharedTensor, scope, share, type Tensor } from "@miro-t2i/torch";
import { startThread } from "../../compiled-module.js";
import { MiroError } from "../../errors.js";
import { Message, type MessagePart } from "../../message.js";
import type { NamedTensors, RetentionOptions, TrainingCheckpoint, TrainingState } from "./checkpoint.js";

/** A checkpoint on its way to the writing thread. */
export interface WriteJob {
  folder: string;
  state: TrainingState;
  /** `network`, `optimizer` and each average, tensors by name; in memory of the writer's own. */
  tensors: Record<string, Record<string, SharedTensor>>;
  texts: TrainingCheckpoint["texts"];
  retention: RetentionOptions;
}

/** The thread's answer. */
export type WriteAnswer = { path: string } | { error: readonly MessagePart[] };

/** Writes checkpoints in a thread of its own, while training goes on. */
export class CheckpointWriter {
  readonly #folder: string;
  readonly #retention: RetentionOptions;
  /** Memory of the copies, kept from one checkpoint to the next: new memory costs many times what the copy does. */
  readonly #copies = new Map<string, Tensor>();
  #worker: Worker | null = null;
  #pending: Promise<void> | null = null;
  #failure: Error | null = null;

  /** @param folder of the checkpoints */
  constructor(folder: string, retention: RetentionOptions = {}) {
    this.#folder = folder;
    this.#retention = retention;
  }

  /**
   * Copies a checkpoint and has it written; resolves as soon as the copy is made and the tensors may change again.
   * Waits first for the one before.
   * @throws MiroError when that one could not be written; then nothing is copied
   */
  async save(checkpoint: TrainingCheckpoint): Promise<void> {
    await this.settled();
    const { state, network, optimizer, emas, texts } = checkpoint;
    const tensors = noGrad(() =>
      Object.fromEntries(
        Object.entries({ network, optimizer, ...emas }).map(([part, named]) => [part, this.#copied(part, named)]),
      ),
    );
    const job: WriteJob = { folder: this.#folder, state, tensors, texts, retention: this.#retention };
    this.#pending = this.#write(job)
      .catch((error: Error) => {
        this.#failure = error;
      })
      .finally(() => {
        this.#pending = null;
      });
  }

  /**
   * Throws what went wrong with a checkpoint that was on its way, once it is known. Costs nothing; call it every step.
   */
  check(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  /** Waits until the last checkpoint is on the disk. @throws MiroError when it could not be written */
  async settled(): Promise<void> {
    await this.#pending;
    this.check();
  }

  /** Waits for the write that is under way, whatever becomes of it, and ends the thread. */
  async close(): Promise<void> {
    await this.#pending;
    await this.#worker?.terminate();
    this.#worker = null;
    for (const copy of this.#copies.values()) copy.dispose();
    this.#copies.clear();
  }

  /** Copies in memory, as messages. */
  #copied(part: string, named: NamedTensors): Record<string, SharedTensor> {
    return Object.fromEntries(
      Object.entries(named).map(([name, tensor]) => {
        const key = `${part} ${name}`;
        let copy = this.#copies.get(key);
        if (copy === undefined || copy.dtype !== tensor.dtype || String(copy.shape) !== String(tensor.shape)) {
          copy?.dispose();
          copy = scope(() => empty(tensor.shape, { dtype: tensor.dtype }).keep());
          this.#copies.set(key, copy);
        }
        const values = copy;
        scope(() => values.copy_(tensor.detach()));
        return [name, share(copy)];
      }),
    );
  }

  async #write(job: WriteJob): Promise<void> {
    const script = "training/state/checkpoint-writer-worker.js";
    this.#worker ??= startThread(script);
    const worker = this.#worker;
    const gone = new AbortController();
    const stopped = once(worker, "exit", { signal: gone.signal }).then(() => {
      throw new MiroError(`${job.folder}: the thread that writes checkpoints stopped`);
    });
    stopped.catch(() => {}); // raced below
    worker.postMessage(job);
    try {
      const [answer] = (await Promise.race([once(worker, "message"), stopped])) as [WriteAnswer];
      if ("error" in answer) throw new MiroError(new Message(answer.error));
    } catch (error) {
      if (error instanceof MiroError) throw error;
      throw new MiroError(`${job.folder}: the thread that writes checkpoints failed: ${(error as Error).message}`);
    } finally {
      gone.abort();
    }
  }
}
