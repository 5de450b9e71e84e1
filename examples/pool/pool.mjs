// Several pipelines side by side. Each has the model in memory, so that a pool pays where there are several GPUs
// (`devices: ["cuda:0", "cuda:1"]`), and for small models on many cores (`threads: 1` each).
import { MiroPipeline } from "miro-t2i";

/** Pipelines in threads of their own; a picture goes to the one that has least to do. */
export class Pool {
  #workers;

  constructor(pipes) {
    this.#workers = pipes.map((pipe) => ({ pipe, open: 0 }));
  }

  /** Loads a model once for each device; `options` hold for all. */
  static async load(model, { devices, ...options }) {
    const pipes = devices.map((device) => MiroPipeline.fromPretrained(model, { ...options, device, worker: true }));
    const loaded = await Promise.allSettled(pipes);
    const failed = loaded.find(({ status }) => status === "rejected");
    if (!failed) return new Pool(loaded.map(({ value }) => value));
    await Promise.all(loaded.map(({ value }) => value?.dispose()));
    throw failed.reason;
  }

  async generate(prompt, options) {
    const worker = this.#workers.reduce((least, one) => (one.open < least.open ? one : least));
    worker.open++;
    try {
      return await worker.pipe.generate(prompt, options);
    } finally {
      worker.open--;
    }
  }

  async [Symbol.asyncDispose]() {
    await Promise.all(this.#workers.map(({ pipe }) => pipe.dispose()));
  }
}
