/** Numbers of the server, as Prometheus reads them. */
import { memory } from "@miro-t2i/torch";
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { Job } from "./job.js";
import type { QueueMeter } from "./queue.js";

/** Those of the process. Nothing ends what watches it, which would hold every server that there has been. */
let processRegistry: Registry | undefined;

function ofProcess(): Registry {
  if (processRegistry === undefined) {
    processRegistry = new Registry();
    collectDefaultMetrics({ register: processRegistry });
  }
  return processRegistry;
}

export class Metrics implements QueueMeter {
  readonly registry = Registry.merge([ofProcess()]);
  readonly #jobs: Counter;
  readonly #cancels: Counter;
  readonly #pictures: Counter;
  readonly #jobSeconds: Histogram;
  readonly #stepSeconds: Histogram;

  constructor(queue: () => { waiting: number; running: number }) {
    const registers = [this.registry];
    this.#jobs = new Counter({
      name: "miro_jobs_total",
      help: "Jobs that have ended, by how they did",
      labelNames: ["status"],
      registers,
    });
    this.#cancels = new Counter({ name: "miro_cancels_total", help: "Jobs that were cancelled", registers });
    this.#pictures = new Counter({ name: "miro_pictures_total", help: "Pictures that were drawn", registers });
    this.#jobSeconds = new Histogram({
      name: "miro_job_seconds",
      help: "Seconds from a job's beginning to its end",
      registers,
      buckets: [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300],
    });
    this.#stepSeconds = new Histogram({
      name: "miro_step_seconds",
      help: "Seconds from one step of a batch to the next",
      registers,
      buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
    });
    new Gauge({
      name: "miro_queue_jobs",
      help: "Jobs in the queue, by state",
      labelNames: ["state"],
      registers,
      collect() {
        const { waiting, running } = queue();
        this.set({ state: "waiting" }, waiting);
        this.set({ state: "running" }, running);
      },
    });
    memory.stats(); // loads libtorch, which must not stop the server when it is first asked
    new Gauge({
      name: "miro_tensor_bytes",
      help: "Bytes of live tensors",
      registers,
      collect() {
        this.set(memory.stats().liveBytes);
      },
    });
  }

  finished(job: Job): void {
    this.#jobs.inc({ status: job.status });
    if (job.status === "cancelled") this.#cancels.inc();
    this.#pictures.inc(job.pictures.filter((picture) => picture !== undefined).length);
    if (job.startedAt && job.finishedAt)
      this.#jobSeconds.observe((job.finishedAt.getTime() - job.startedAt.getTime()) / 1000);
  }

  step(seconds: number): void {
    this.#stepSeconds.observe(seconds);
  }
}
