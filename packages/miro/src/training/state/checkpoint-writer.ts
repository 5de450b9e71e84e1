/**
 * Checkpoints written beside the training. A thread of its own copies the tensors, while the training already computes
 * the gradients of the next step, and brings the copy to the disk as checkpoint.ts does; from a GPU, a stream of its
 * own copies them. The training waits only where it comes to change its weights before they are copied, or where the
 * checkpoint before is still being written.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Worker } from "node:worker_threads";
import { HostCopy, type SharedTensor, scope, share, type Tensor } from "@miro-t2i/torch";
import { startThread } from "../../compiled-module.js";
import { MiroError } from "../../errors.js";
import { Message, type MessagePart } from "../../message.js";
import type { NamedTensors, RetentionOptions, TrainingCheckpoint, TrainingState } from "./checkpoint.js";
import { PinnedCopies } from "./pinned-copies.js";

/** A checkpoint on its way to the writing thread. */
export interface WriteJob {
  folder: string;
  state: TrainingState;
  /** `network`, `optimizer` and each average, tensors by name. */
  tensors: Record<string, Record<string, SharedTensor>>;
  /** Whether they are the training's own, which the thread copies before it writes, or already copies. */
  live: boolean;
  texts: TrainingCheckpoint["texts"];
  retention: RetentionOptions;
}

/** The thread's answers: `copied` once the training's own tensors may change, then how the write ended. */
export type WriteAnswer = { copied: true } | { path: string } | { error: readonly MessagePart[] };

/** How often it is looked whether a GPU has made its copy. */
const POLL_MS = 2;

/** Writes checkpoints in a thread of its own, while training goes on. */
export class CheckpointWriter {
  readonly #folder: string;
  readonly #retention: RetentionOptions;
  /** The copies from a GPU. */
  readonly #pinned = new PinnedCopies();
  #worker: Worker | null = null;
  /** The copy from a GPU that is under way. */
  #fromGpu: HostCopy | null = null;
  /** Settles when the tensors of the last checkpoint may change. */
  #copied: Promise<void> | null = null;
  #pending: Promise<void> | null = null;
  #failure: Error | null = null;

  /** @param folder of the checkpoints */
  constructor(folder: string, retention: RetentionOptions = {}) {
    this.#folder = folder;
    this.#retention = retention;
  }

  /**
   * Pins the memory that copies of such tensors take on their way from a GPU. It takes the host a while; otherwise the
   * first checkpoint does it, while the GPU has nothing to do.
   */
  reserve(tensors: readonly Tensor[]): void {
    this.#pinned.reserve(tensors);
  }

  /**
   * Copies a checkpoint and has it written; resolves as soon as the copy is made and the tensors may change again.
   * Waits first for the one before.
   * @throws MiroError when that one could not be written; then nothing is copied
   */
  async save(checkpoint: TrainingCheckpoint): Promise<void> {
    await this.begin(checkpoint);
    await this.copied();
  }

  /**
   * Begins to copy a checkpoint, which will be written: its tensors must not change before {@link copied} has resolved.
   * Waits first for the one before.
   * @throws MiroError when that one could not be written; then nothing is copied
   */
  async begin({ state, network, optimizer, emas, texts }: TrainingCheckpoint): Promise<void> {
    await this.settled();
    const parts = { network, optimizer, ...emas };
    const live = Object.values(parts).every((named) => Object.values(named).every(({ device }) => device === "cpu"));
    const sent = live ? parts : this.#copyFromGpu(parts);
    let copied = () => {};
    this.#copied = new Promise((resolve) => {
      copied = resolve;
    });
    this.#pending = this.#write({ state, texts, live }, sent, copied)
      .catch((error: Error) => {
        this.#failure = error;
      })
      .finally(() => {
        copied(); // nobody copies any longer
        this.#pending = null;
      });
  }

  /** Resolves when the tensors of the last checkpoint may change. Costs nothing where they may. */
  async copied(): Promise<void> {
    // A GPU orders what comes next behind the copy by itself.
    if (this.#fromGpu !== null) this.#fromGpu.holdBack();
    else await this.#copied;
    this.#copied = null;
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
    this.#pinned.dispose();
  }

  /** Copies in pinned memory, which have their values once the copy is done. */
  #copyFromGpu(parts: Record<string, NamedTensors>): Record<string, NamedTensors> {
    const all = Object.values(parts).flatMap((named) => Object.values(named));
    const copies = this.#pinned.like(all);
    const sources: Tensor[] = [];
    const targets: Tensor[] = [];
    for (const [i, tensor] of all.entries()) {
      if (tensor.device === "cpu") scope(() => void copies[i]!.copy_(tensor.detach()));
      else {
        sources.push(tensor);
        targets.push(copies[i]!);
      }
    }
    this.#fromGpu = new HostCopy(sources, targets);
    const inTurn = copies.values();
    const copied = (named: NamedTensors) =>
      Object.fromEntries(Object.keys(named).map((name) => [name, inTurn.next().value!]));
    return Object.fromEntries(Object.entries(parts).map(([part, named]) => [part, copied(named)]));
  }

  async #write(
    job: Pick<WriteJob, "state" | "texts" | "live">,
    parts: Record<string, NamedTensors>,
    copied: () => void,
  ): Promise<void> {
    const copy = this.#fromGpu;
    if (copy !== null) {
      while (!copy.isDone) await sleep(POLL_MS);
      copy.dispose();
      this.#fromGpu = null;
      copied();
    }
    this.#worker ??= startThread("training/state/checkpoint-writer-worker.js");
    const worker = this.#worker;
    const shared = ([part, named]: [string, NamedTensors]) => [
      part,
      Object.fromEntries(Object.entries(named).map(([name, tensor]) => [name, share(tensor)])),
    ];
    const tensors = Object.fromEntries(Object.entries(parts).map(shared));
    const ended = answerOf(worker, this.#folder, copied);
    worker.postMessage({ ...job, folder: this.#folder, tensors, retention: this.#retention } satisfies WriteJob);
    await ended;
  }
}

/** Resolves when the thread has written. @param copied called when it has made its copies */
function answerOf(worker: Worker, folder: string, copied: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const listeners = {
      message(answer: WriteAnswer) {
        if ("copied" in answer) copied();
        else if ("path" in answer) end(null);
        else end(new MiroError(new Message(answer.error)));
      },
      error(error: Error) {
        end(new MiroError(`${folder}: the thread that writes checkpoints failed: ${error.message}`));
      },
      exit() {
        end(new MiroError(`${folder}: the thread that writes checkpoints stopped`));
      },
    };
    const end = (error: MiroError | null) => {
      for (const [event, listener] of Object.entries(listeners)) worker.off(event, listener);
      if (error === null) resolve();
      else reject(error);
    };
    for (const [event, listener] of Object.entries(listeners)) worker.on(event, listener);
  });
}
