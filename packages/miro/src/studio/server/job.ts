/**
 * One job of the studio: its state and its events, which listeners get again from any place on.
 */
import { randomBytes } from "node:crypto";
import { z } from "zod";
import type { DrawCall } from "./engine.js";
import { named } from "./schemas.js";

export const JOB_STATUSES = ["queued", "running", "done", "failed", "cancelled"] as const;
export type JobStatus = (typeof JOB_STATUSES)[number];

/** An event of a job's stream. */
export interface JobEvent {
  id: number;
  event: "queued" | "started" | "step" | "preview" | "picture" | "warning" | "done" | "failed" | "cancelled";
  data: Record<string, unknown>;
}

/** Events that a slow listener may miss. */
const PASSING: ReadonlySet<JobEvent["event"]> = new Set(["queued", "step", "preview"]);

/** Whether a listener that cannot follow may miss an event. */
export function mayBeMissed({ event }: JobEvent): boolean {
  return PASSING.has(event);
}

export function isEnd({ event }: Pick<JobEvent, "event">): boolean {
  return event === "done" || event === "failed" || event === "cancelled";
}

/** What a job draws. */
export interface JobWork {
  model: string;
  call: DrawCall;
  /** Ends when its last listener goes. */
  cancelOnDisconnect: boolean;
}

/** A job's state for people and programs. */
export const jobView = named(
  "Job",
  z.object({
    id: z.string(),
    status: z.enum(JOB_STATUSES),
    /** Jobs before it; null once it has begun. */
    position: z.number().nullable(),
    model: z.string(),
    createdAt: z.string(),
    startedAt: z.string().nullable(),
    finishedAt: z.string().nullable(),
    step: z.number(),
    steps: z.number().nullable(),
    total: z.number(),
    pictures: z.array(z.string()),
    scores: z.array(z.record(z.string(), z.number()).nullable()),
    warnings: z.array(z.string()),
    error: z.string().nullable(),
    /** Of a sweep that is done: where its sheet is. */
    sheet: z.string().nullable().optional(),
  }),
);

/** As {@link jobView} has it. */
export type JobView = z.output<typeof jobView>;

type Listener = (event: JobEvent) => void;

export class Job {
  readonly id = `job-${Date.now().toString(36)}${randomBytes(6).toString("hex")}`;
  /** What it draws; of a job that has ended without its pictures and uploads, which are kept no longer than needed. */
  work: JobWork;
  /** What its request calls itself, so that it is found again by who had no answer. */
  readonly requestKey: string | undefined;
  readonly createdAt = new Date();
  readonly abort = new AbortController();
  startedAt: Date | null = null;
  finishedAt: Date | null = null;
  status: JobStatus = "queued";
  step = 0;
  steps: number | null = null;
  error: string | null = null;
  /** Ids of pictures by place. */
  readonly pictures: (string | undefined)[];
  readonly scores: (Record<string, number> | null)[];
  readonly warnings: string[] = [];
  /** Seeds and tokens of the prompts by place. */
  readonly seeds: (number | null)[];
  readonly promptTokens: number[];
  /** How much of each picture is done, 0 to 1. */
  readonly fractions: number[];
  /** The last preview, a small WebP. */
  preview: Uint8Array | null = null;
  /** Why it failed, or was cancelled by the end of the server, as an error. */
  failure: Error | null = null;
  /** Resolves at its end. */
  readonly ended: Promise<void>;
  #resolveEnded = () => {};
  /** Events that are kept; of those that may be missed only the last of each kind and picture. */
  #events: JobEvent[] = [];
  #next = 1;
  readonly #listeners = new Set<Listener>();

  constructor(work: JobWork, requestKey?: string) {
    this.work = work;
    this.requestKey = requestKey;
    this.pictures = work.call.pictures.map(() => undefined);
    this.scores = work.call.pictures.map(() => null);
    this.seeds = work.call.pictures.map(({ seed }) => seed);
    this.fractions = work.call.pictures.map(() => 0);
    this.promptTokens = work.call.pictures.map(() => 0);
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  get isFinished(): boolean {
    return this.finishedAt !== null;
  }

  /** Id of the newest event; 0 where there is none. */
  get lastEvent(): number {
    return this.#next - 1;
  }

  tell(event: JobEvent["event"], data: Record<string, unknown>): void {
    if (this.isFinished && !isEnd({ event })) return;
    const entry: JobEvent = { id: this.#next++, event, data };
    if (mayBeMissed(entry))
      this.#events = this.#events.filter((old) => old.event !== event || old.data.image !== data.image);
    this.#events.push(entry);
    for (const listener of [...this.#listeners]) listener(entry);
  }

  /** Tells what who asked should know, each once. */
  warn(warnings: readonly string[]): void {
    for (const message of warnings) {
      if (this.warnings.includes(message)) continue;
      this.warnings.push(message);
      this.tell("warning", { message });
    }
  }

  /** Ends the job; what comes later is not told. */
  finish(status: "done" | "failed" | "cancelled", data: Record<string, unknown> = {}): void {
    if (this.isFinished) return;
    this.status = status;
    this.finishedAt = new Date();
    if (status === "failed") this.error = String(data.message);
    // Previews are of no use any more.
    this.preview = null;
    this.work = { ...this.work, call: { ...this.work.call, pictures: [], edits: [] } };
    this.#events = this.#events.filter((event) => !mayBeMissed(event));
    this.tell(status, data);
    this.#resolveEnded();
  }

  /**
   * Hears the events after `last`, those that were and those that come.
   * @returns ends the listening
   */
  listen(listener: Listener, last = 0): () => void {
    for (const event of this.#events) if (event.id > last) listener(event);
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  get listeners(): number {
    return this.#listeners.size;
  }

  view(position: number | null): JobView {
    const { id, status, step, steps, error, warnings, work } = this;
    return {
      id,
      status,
      position,
      model: work.model,
      step,
      steps,
      error,
      warnings,
      scores: this.scores,
      createdAt: this.createdAt.toISOString(),
      startedAt: this.startedAt?.toISOString() ?? null,
      finishedAt: this.finishedAt?.toISOString() ?? null,
      total: this.pictures.length,
      sheet: work.call.sweep && status === "done" ? `/api/sweeps/${id}/sheet.png` : null,
      pictures: this.pictures.filter((picture) => picture !== undefined),
    };
  }
}
