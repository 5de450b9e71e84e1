/**
 * Data-parallel replicas in worker threads of this process: they use the same weights in the same memory, each computes
 * the gradient of some rows of the batch, and the trainer adds the gradients up. For networks whose operations are too
 * small to be worth dividing among threads.
 */
import type { Worker } from "node:worker_threads";
import { aten, noGrad, receive, type SharedTensor, scope, share, type Tensor } from "@miro-t2i/torch";
import { startThread } from "../../compiled-module.js";
import { MiroError } from "../../errors.js";
import type { LossBatch } from "../../flow/loss.js";
import { divideRows, type Rows, rowsOf } from "../batches/batch-slices.js";
import type { Recipe } from "../recipes/recipe.js";
import type { Model } from "./gradients.js";

/** What a replica is started with. */
export interface ReplicaSetup {
  recipe: Recipe;
  rows: Rows;
  tensors: Record<string, SharedTensor>;
  uncondEmbedding: SharedTensor;
}

/** One step's work for a replica. */
export interface ReplicaTask {
  k: number;
  /** What the loss is multiplied by; the gradients come back so scaled. */
  lossScale: number;
  x0: SharedTensor;
  textEmbeddings: SharedTensor;
  textMask: SharedTensor;
  rewards: Record<string, SharedTensor>;
}

/** Its answer: a gradient for each trainable parameter, in the order of `trainableParameters`. */
export interface ReplicaAnswer {
  /** The means of its rows, see `termsIn`. */
  terms: number[];
  gradients: (SharedTensor | null)[];
}

/** The parameters that replicas send gradients for. */
export function trainableParameters({ network, preconditioning }: Omit<Model, "loss">): Tensor[] {
  return [...network.parameters(), ...preconditioning.parameters()].filter((parameter) => parameter.requiresGrad);
}

export class Replicas {
  /** The rows of each thread, the trainer's own first. */
  readonly rows: readonly Rows[];
  /** The rows that are left to the trainer's own thread. */
  readonly ownRows: Rows;
  readonly #others: { worker: Worker; rows: Rows }[];
  readonly #parameters: Tensor[];
  readonly #pending: Promise<ReplicaAnswer>[] = [];
  #failure: Error | null = null;

  /** @param count threads in all, the caller's included */
  constructor(recipe: Recipe, count: number, model: Model) {
    this.rows = divideRows(recipe.trainer.batchSize, count);
    const [own, ...rest] = this.rows;
    this.ownRows = own!;
    this.#parameters = trainableParameters(model);
    const script = "training/loop/replica-worker.js";
    this.#others = rest.map((rows) => {
      const setup = scope((): ReplicaSetup => {
        const tensors = [...model.network.stateDict("network"), ...model.preconditioning.stateDict("preconditioning")];
        return {
          recipe,
          rows,
          tensors: Object.fromEntries(tensors.map(([name, tensor]) => [name, share(tensor.detach())])),
          uncondEmbedding: share(model.loss.options.uncondEmbedding),
        };
      });
      const worker = startThread(script, setup);
      worker.on("error", (error) => {
        this.#failure = new MiroError(`a training thread failed: ${error.message}`);
      });
      worker.on("exit", () => {
        this.#failure ??= new MiroError("a training thread stopped");
      });
      return { worker, rows };
    });
  }

  /**
   * Hands the other threads their rows of a batch; call `collect` after the own rows are done.
   * @throws MiroError when one of them has ended
   */
  start(k: number, batch: LossBatch, lossScale = 1): void {
    if (this.#failure !== null) throw this.#failure;
    for (const { worker, rows } of this.#others) {
      const { x0, textEmbeddings, textMask, rewards } = rowsOf(batch, rows);
      const task: ReplicaTask = {
        k,
        lossScale,
        x0: share(x0),
        textEmbeddings: share(textEmbeddings),
        textMask: share(textMask),
        rewards: Object.fromEntries(Object.entries(rewards).map(([key, value]) => [key, share(value)])),
      };
      const answer = new Promise<ReplicaAnswer>((resolve, reject) => {
        const stopped = () => reject(this.#failure);
        worker.once("exit", stopped);
        worker.once("message", (message: ReplicaAnswer) => {
          worker.off("exit", stopped);
          resolve(message);
        });
      });
      answer.catch(() => {}); // awaited by collect()
      this.#pending.push(answer);
      worker.postMessage(task);
    }
  }

  /** Waits for the other threads, and adds their gradients, in a fixed order. */
  async collect(): Promise<{ terms: number[]; rows: Rows }[]> {
    const answers = await Promise.all(this.#pending.splice(0));
    for (const { gradients } of answers) scope(() => this.#add(gradients));
    return answers.map(({ terms }, i) => ({ terms, rows: this.#others[i]!.rows }));
  }

  #add(gradients: (SharedTensor | null)[]): void {
    const mine: Tensor[] = [];
    const theirs: Tensor[] = [];
    gradients.forEach((message, i) => {
      if (message === null) return;
      const gradient = receive(message);
      const own = this.#parameters[i]!.grad;
      if (own === null) this.#parameters[i]!.grad = gradient;
      else {
        mine.push(own);
        theirs.push(gradient);
      }
    });
    noGrad(() => aten._foreach_add__List(mine, theirs, 1));
  }

  async close(): Promise<void> {
    await Promise.all(this.#others.map(({ worker }) => worker.terminate()));
  }
}
