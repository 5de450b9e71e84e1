/**
 * One queue, first in first out. One job computes at a time; small waiting jobs of the same model and settings are
 * drawn with it in one batch.
 */
import { rmSync } from "node:fs";
import { MiroError } from "../../errors.js";
import type { DrawnEvent, Engine, PictureCall, StepEvent } from "./engine.js";
import type { Gallery } from "./gallery.js";
import { Job, type JobStatus, type JobView, type JobWork } from "./job.js";
import { BATCH, KEEP_ID_MS, KEEP_JOB_MS, MAX_WAITING_BYTES } from "./limits.js";

/** What the queue tells the metrics. */
export interface QueueMeter {
  finished(job: Job): void;
  step(seconds: number): void;
}

export class QueueFull extends MiroError {}

/** The server ends; another one, or this one when it is started again, can do what was asked. */
export class ServerEnding extends MiroError {
  constructor() {
    super("the server is ending");
  }
}

export class JobQueue {
  readonly #engine: Engine;
  readonly #gallery: Gallery;
  readonly #capacity: number;
  readonly #meter: QueueMeter;
  readonly #jobs = new Map<string, Job>();
  /** Ids of jobs that are known no more, with the time of their end. */
  readonly #expired = new Map<string, number>();
  #waiting: Job[] = [];
  #running: Job[] = [];
  #closed = false;
  #work: Promise<void> | null = null;

  constructor(engine: Engine, gallery: Gallery, capacity: number, meter: QueueMeter) {
    this.#engine = engine;
    this.#gallery = gallery;
    this.#capacity = capacity;
    this.#meter = meter;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get running(): number {
    return this.#running.filter((job) => !job.isFinished).length;
  }

  /** Puts work into the queue; a request that came before is not done twice. @throws QueueFull */
  submit(work: JobWork, requestKey?: string): Job {
    const before = requestKey === undefined ? undefined : this.list(requestKey)[0];
    if (before) return before;
    if (this.#closed) throw new ServerEnding();
    if (this.#engine.failure) throw this.#engine.failure;
    if (this.#waiting.length >= this.#capacity)
      throw new QueueFull(`the queue is full (${this.#waiting.length} waiting); try again later`);
    const bytes = uploadedBytes(work);
    const waiting = this.#waiting.reduce((sum, job) => sum + uploadedBytes(job.work), 0);
    if (bytes > 0 && waiting > 0 && waiting + bytes > MAX_WAITING_BYTES)
      throw new QueueFull("the pictures that wait to be drawn over leave no room for more; try again later");
    const job = new Job(work, requestKey);
    this.#jobs.set(job.id, job);
    this.#waiting.push(job);
    this.#gallery.rememberJob(job.view(null));
    job.tell("queued", { position: this.#waiting.length - 1 + this.running });
    this.#work ??= this.#run().finally(() => {
      this.#work = null;
    });
    return job;
  }

  /** A job of this server, or what the index knows of one before it; `expired` where it is known no more. */
  find(id: string): Job | JobView | "expired" | null {
    this.#expire();
    return this.#jobs.get(id) ?? (this.#expired.has(id) ? "expired" : this.#gallery.recallJob(id));
  }

  /** Newest first. @param requestKey of the request that they are of; by default all */
  list(requestKey?: string): Job[] {
    this.#expire();
    return [...this.#jobs.values()]
      .filter((job) => requestKey === undefined || job.requestKey === requestKey)
      .reverse();
  }

  view(job: Job): JobView {
    const place = this.#waiting.indexOf(job);
    return job.view(place < 0 ? null : place + this.running);
  }

  /** Cancels a job, waiting or running; one that has ended stays as it is. */
  cancel(job: Job): void {
    this.#stop(job, "cancelled");
  }

  /** Takes no more jobs and ends those that are there: cancelled, or failed where the device has. */
  async close(): Promise<void> {
    this.#closed = true;
    const { failure } = this.#engine;
    for (const job of [...this.#waiting, ...this.#running]) {
      if (failure) this.#stop(job, "failed", failure);
      else this.#stop(job, "cancelled", new ServerEnding());
    }
    await this.#work;
  }

  #stop(job: Job, status: "cancelled" | "failed", reason: Error = new MiroError("cancelled")): void {
    if (job.isFinished) return;
    const waited = this.#waiting.includes(job);
    this.#waiting = this.#waiting.filter((other) => other !== job);
    job.abort.abort(reason);
    this.#end(job, status, reason);
    if (waited) this.#tellPositions();
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#takeBatch();
      this.#running = batch;
      const now = new Date();
      for (const job of batch) {
        job.status = "running";
        job.startedAt = now;
        job.tell("started", {});
      }
      this.#tellPositions();
      try {
        await this.#draw(batch);
      } catch (error) {
        for (const job of batch) this.#end(job, "failed", error);
      }
      this.#running = [];
    }
  }

  /** The first job, and small ones that can be drawn with it. */
  #takeBatch(): Job[] {
    const first = this.#waiting.shift()!;
    const key = batchKey(first.work);
    if (key === null) return [first];
    const batch = [first];
    let pictures = first.pictures.length;
    for (const job of [...this.#waiting]) {
      if (pictures + job.pictures.length > BATCH) continue;
      if (batchKey(job.work) !== key) continue;
      batch.push(job);
      pictures += job.pictures.length;
      this.#waiting = this.#waiting.filter((other) => other !== job);
    }
    return batch;
  }

  async #draw(batch: readonly Job[]): Promise<void> {
    const places: { job: Job; image: number }[] = [];
    const pictures: PictureCall[] = [];
    const edits = batch.flatMap(({ work }) => work.call.edits);
    for (const job of batch) {
      for (const [image, picture] of job.work.call.pictures.entries()) {
        pictures.push({ ...picture, index: places.length });
        places.push({ job, image });
      }
    }
    const { model, call } = batch[0]!.work;
    const every = batch.map(({ work }) => work.call.previewEvery).filter((n) => n !== undefined);
    const signal = whenAll(batch.map(({ abort }) => abort.signal));
    let last = performance.now();
    const step = ({ images, step, steps, previews }: StepEvent) => {
      this.#meter.step((performance.now() - last) / 1000);
      last = performance.now();
      for (const index of images) {
        const { job, image } = places[index]!;
        if (job.isFinished) continue;
        job.steps = steps;
        job.step = step + 1;
        job.fractions[image] = (step + 1) / steps;
        job.tell("step", { image, step: step + 1, steps });
      }
      for (const { index, webp } of previews) {
        const { job, image } = places[index]!;
        const { previewEvery: own } = job.work.call;
        if (job.isFinished || own === undefined || (step + 1) % own !== 0) continue;
        job.preview = webp;
        job.tell("preview", {
          image,
          step: step + 1,
          steps,
          data: `data:image/webp;base64,${Buffer.from(webp).toString("base64")}`,
        });
      }
    };
    const picture = ({ index, path, settings, promptTokens, warnings }: DrawnEvent) => {
      const { job, image } = places[index]!;
      if (job.isFinished) {
        rmSync(path, { force: true });
        return;
      }
      const id = this.#gallery.add(path, settings);
      job.warn(warnings);
      job.pictures[image] = id;
      job.fractions[image] = 1;
      job.seeds[image] = settings.seed;
      job.promptTokens[image] = promptTokens;
      job.scores[image] = settings.bestOf?.scores ?? null;
      job.tell("picture", {
        index: image,
        id,
        seed: settings.seed,
        ...(settings.bestOf && { scores: settings.bestOf.scores }),
      });
    };
    const batchSize = pictures.length > 1 && batchKey(batch[0]!.work) !== null ? BATCH : undefined;
    const previewEvery = every.length > 0 ? every.reduce(commonDivisor) : undefined;
    const whole = { ...call, pictures, edits, batchSize, previewEvery };
    if (call.sweep) {
      const [job] = batch as [Job];
      const folder = this.#gallery.sweepFolder(job.id)!;
      job.warn(await this.#engine.sweep(model, { ...whole, folder }, { step, picture }, signal));
    } else await this.#engine.draw(model, whole, { step, picture }, signal);
    for (const job of batch) this.#end(job, "done");
  }

  #end(job: Job, status: "done" | "failed" | "cancelled", error?: unknown): void {
    if (job.isFinished) return;
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof ServerEnding) job.failure = error;
    else if (status === "failed") job.failure = error instanceof Error ? error : new MiroError(message);
    job.finish(status, status === "failed" ? { message } : endData(job, status));
    this.#gallery.rememberJob(job.view(null));
    this.#meter.finished(job);
  }

  #tellPositions(): void {
    const before = this.running;
    for (const [place, job] of this.#waiting.entries()) job.tell("queued", { position: place + before });
  }

  #expire(): void {
    const now = Date.now();
    for (const [id, { finishedAt }] of this.#jobs) {
      if (finishedAt === null || now - finishedAt.getTime() < KEEP_JOB_MS) continue;
      this.#jobs.delete(id);
      this.#expired.set(id, now);
      this.#gallery.forgetJob(id);
    }
    for (const [id, since] of this.#expired) if (now - since > KEEP_ID_MS) this.#expired.delete(id);
  }
}

/** Bytes of what a job draws over. */
function uploadedBytes({ call: { edits } }: JobWork): number {
  return edits.reduce((sum, { image, mask }) => sum + image.length + (mask?.length ?? 0), 0);
}

/** What jobs have in common that can be drawn in one batch; null for one that is drawn alone. */
function batchKey({ model, call: { pictures, edits, bestOf, sweep } }: JobWork): string | null {
  if (bestOf || sweep || edits.length > 0 || pictures.length > BATCH) return null;
  const keys = pictures.map(({ options }) => {
    const { rewardTargets, negativeRewardTargets, seed, imagesPerPrompt, variationSeed, ...shared } = options;
    return JSON.stringify([variationSeed !== undefined, Object.entries(shared).sort(([a], [b]) => (a < b ? -1 : 1))]);
  });
  if (new Set(keys).size > 1) return null;
  return `${model}\n${keys[0]}`;
}

/** What is told at the end of a job. */
function endData(job: Job, status: JobStatus): Record<string, unknown> {
  const { pictures, id } = job.view(null);
  return { pictures, ...(job.work.call.sweep && status === "done" && { sheet: `/api/sweeps/${id}/sheet.png` }) };
}

/** The largest number that divides both: previews at its multiples are at those of both. */
function commonDivisor(a: number, b: number): number {
  return b === 0 ? a : commonDivisor(b, a % b);
}

/** Aborted when all of some signals are. */
function whenAll(signals: readonly AbortSignal[]): AbortSignal {
  const all = new AbortController();
  const check = () => {
    if (signals.every(({ aborted }) => aborted)) all.abort(signals[0]!.reason);
  };
  for (const signal of signals) signal.addEventListener("abort", check);
  check();
  return all.signal;
}
