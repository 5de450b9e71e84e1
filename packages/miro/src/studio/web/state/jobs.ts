/**
 * Jobs of this tab, as they happen. Their ids outlive a reload; the server tells again what has happened. A request
 * that a reload meets on its way has a key by which its job is found.
 */
import { computed, effect, type Signal, signal } from "@preact/signals";
import { ApiError, ask, askJson, connected, type JobView, lost, messageOf, sentence } from "./api.js";
import { EventParser } from "./event-parser.js";
import { newId } from "./form.js";
import { session } from "./storage.js";

/** What a job is for. */
export type Purpose =
  | { kind: "draw" }
  /** One of several models that draw the same, side by side. */
  | { kind: "compare"; group: string; model: string }
  /** Cells of the reward map, by place. */
  | { kind: "map"; map: string; cells: number[] }
  /** A strip below a slider. */
  | { kind: "strip"; key: string };

export interface Tile {
  step: number;
  steps: number;
  preview: string | null;
  picture: string | null;
  seed: number | null;
  scores: Record<string, number> | null;
}

export interface JobState {
  status: JobView["status"] | "lost";
  position: number | null;
  tiles: Tile[];
  /** When it began and ended, on this machine's clock. */
  startedAt: number | null;
  finishedAt: number | null;
  /** Progress when this page first knew of the job, for the time that is left. */
  firstSeen: { time: number; progress: number } | null;
  error: string | null;
  warnings: string[];
}

export interface StoredJob {
  id: string;
  purpose: Purpose;
  prompt: string;
  total: number;
  /** Whether this tab knows its end: it need not be known for ever. */
  ended: boolean;
}

export interface Job extends StoredJob {
  state: Signal<JobState>;
  /** The last event that came. */
  last: number;
}

/** A request whose answer has not come yet: a reload finds its job by the key. */
interface SentJob extends Omit<StoredJob, "id" | "ended"> {
  key: string;
}

/** What the studio says of a job that it has taken. */
type Accepted = Pick<JobView, "id" | "position">;

const STORED = "miro-studio-jobs";
const STORED_SENT = "miro-studio-sent";
/** How often a job is looked for whose request was under way when the page was left, and how long between. */
const LOOKS = 10;
const LOOK_MS = 500;
/** A browser lets so many bytes of requests go on when the page is left. */
const MOST_KEPT_ALIVE = 60_000;
/** A browser has six connections to a server, for all windows together; streams must leave some for everything else. */
const STREAMS = 2;
const STREAMS_OF_ALL_WINDOWS = 4;
const POLL_MS = 1500;
/** A stream gives a sign of life every 15 s; one that was silent for longer leads nowhere any more. */
const SILENT_MS = 40_000;

export const jobs = signal<Job[]>([]);
const listeners = new Set<(job: Job, event: string, image: number | null) => void>();

/** Calls a listener with pictures and ends of all jobs. */
export function onJobEvent(listener: (job: Job, event: string, image: number | null) => void): void {
  listeners.add(listener);
}

export const isEnded = ({ status }: JobState) => status !== "queued" && status !== "running";
const isLive = (job: Job) => !isEnded(job.state.value);

export const liveJobs = computed(() => jobs.value.filter(isLive));
/** Ids of those that have ended, as a text, which stays the same while others go on. */
const endedIds = computed(() => jobs.value.flatMap((job) => (isLive(job) ? [] : job.id)).join(" "));

/** How much of a job is done, 0 to 1. */
export function progressOf({ tiles }: JobState): number {
  const done = tiles.reduce((sum, { step, steps, picture }) => sum + (picture ? 1 : steps > 0 ? step / steps : 0), 0);
  return tiles.length === 0 ? 0 : done / tiles.length;
}

/** Seconds that a job still takes by what it took so far; null where that says nothing yet. */
export function secondsLeft(state: JobState, now: number): number | null {
  const progress = progressOf(state);
  if (state.firstSeen === null || progress - state.firstSeen.progress < 0.02) return null;
  const rate = (progress - state.firstSeen.progress) / (now - state.firstSeen.time);
  return rate <= 0 ? null : (1 - progress) / rate / 1000;
}

/** Asks for pictures. @param files go along as parts of a form */
export async function submit(
  request: Record<string, unknown>,
  total: number,
  purpose: Purpose = { kind: "draw" },
  files: { image?: Blob; mask?: Blob } = {},
): Promise<Job> {
  const text = JSON.stringify(request);
  const form = new FormData();
  form.append("request", text);
  for (const [name, file] of Object.entries(files)) form.append(name, file);
  // Two tabs have the same map where one was duplicated: they ask for its cells once.
  const key = purpose.kind === "map" ? `${purpose.map}:${purpose.cells.join(".")}` : newId();
  const asked: SentJob = { key, purpose, prompt: String(request.prompt), total };
  const init = {
    method: "POST",
    headers: { "idempotency-key": asked.key },
    ...(Object.keys(files).length > 0
      ? { body: form }
      : { json: request, keepalive: new Blob([text]).size < MOST_KEPT_ALIVE }),
  };
  keepSent([...sent, asked]);
  let taken: Accepted;
  try {
    taken = await askJson<Accepted>("api/jobs", init);
  } catch (error) {
    // Without an answer the studio may have taken the job: it is looked for when the studio answers again, or after a
    // reload where the page was left.
    if (isAnswer(error)) forgetSent(asked);
    else whenConnected(() => void takeUp(asked));
    throw error;
  }
  forgetSent(asked);
  return begin(asked, taken);
}

function isAnswer(error: unknown): boolean {
  return error instanceof ApiError && error.status > 0;
}

let sent: SentJob[] = [];

function keepSent(now: SentJob[]): void {
  sent = now;
  session.setItem(STORED_SENT, JSON.stringify(sent));
}

function forgetSent(asked: SentJob): void {
  keepSent(sent.filter((one) => one !== asked));
}

function begin({ key: _, ...stored }: SentJob, { id, position }: Accepted): Job {
  const known = jobs.value.find((job) => job.id === id);
  if (known) return known;
  const job = newJob({ id, ended: false, ...stored });
  change(job, { position });
  jobs.value = [job, ...tidied()];
  return job;
}

/** Does something as soon as the studio answers. */
function whenConnected(run: () => void): void {
  let isDone = false;
  const stop = effect(() => {
    if (!connected.value || isDone) return;
    isDone = true;
    queueMicrotask(() => {
      stop();
      run();
    });
  });
}

/** Takes up a job whose request has had no answer. */
async function takeUp(asked: SentJob): Promise<void> {
  for (let look = 0; look < LOOKS; look++) {
    try {
      const { jobs: found } = await askJson<{ jobs: JobView[] }>(`api/jobs?requestKey=${asked.key}`);
      if (found[0]) {
        begin(asked, found[0]);
        break;
      }
    } catch (error) {
      if (isAnswer(error)) break;
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
  forgetSent(asked);
}

/** What this tab has stored; an empty list where that is not ours. */
function stored<T>(name: string): T[] {
  try {
    const list: unknown = JSON.parse(session.getItem(name) ?? "[]");
    return Array.isArray(list) ? list : [];
  } catch {
    return [];
  }
}

/** Jobs without those that have ended longest ago: their pictures are in the gallery. */
function tidied(): Job[] {
  const liveGroups = new Set(jobs.value.filter(isLive).map(groupOf));
  const ended = new Set<string>();
  return jobs.value.filter((job) => {
    const group = groupOf(job);
    if (isLive(job) || job.purpose.kind === "strip") return true;
    if (group === null) return false;
    if (liveGroups.has(group)) return true;
    ended.add(group);
    return ended.size <= 1;
  });
}

/** What is shown as one: a job, or those of several models; null for what is shown elsewhere. */
export function groupOf({ id, purpose }: Job): string | null {
  return purpose.kind === "draw" ? id : purpose.kind === "compare" ? purpose.group : null;
}

function newJob(stored: StoredJob): Job {
  const tile = { step: 0, steps: 0, preview: null, picture: null, seed: null, scores: null };
  return {
    ...stored,
    last: 0,
    state: signal<JobState>({
      status: "queued",
      position: null,
      startedAt: null,
      finishedAt: null,
      firstSeen: null,
      error: null,
      warnings: [],
      tiles: Array.from({ length: stored.total }, () => ({ ...tile })),
    }),
  };
}

/** Ends a job. It is shown as cancelled at once. */
export async function cancel(job: Job): Promise<void> {
  try {
    await ask(`api/jobs/${job.id}`, { method: "DELETE" });
  } catch (error) {
    if (!(error instanceof ApiError) || ![404, 410].includes(error.status)) throw error;
  }
  apply(job, "cancelled", {});
}

export function forget(...some: Job[]): void {
  jobs.value = jobs.value.filter((job) => !some.includes(job));
}

function change(job: Job, changes: Partial<JobState>): void {
  job.state.value = { ...job.state.value, ...changes };
}

function changeTile(job: Job, image: number, changes: Partial<Tile>): void {
  const tiles = job.state.value.tiles.map((tile, i) => (i === image ? { ...tile, ...changes } : tile));
  change(job, { tiles });
}

function apply(job: Job, event: string, data: Record<string, unknown>): void {
  if (isEnded(job.state.value)) return;
  const image = typeof data.image === "number" ? data.image : typeof data.index === "number" ? data.index : null;
  if (event === "queued") change(job, { position: Number(data.position) });
  else if (event === "started") change(job, { status: "running", position: null, startedAt: Date.now() });
  else if (event === "step") {
    changeTile(job, image!, { step: Number(data.step), steps: Number(data.steps) });
    const state = job.state.value;
    if (state.firstSeen === null) change(job, { firstSeen: { time: Date.now(), progress: progressOf(state) } });
  } else if (event === "preview") changeTile(job, image!, { preview: String(data.data) });
  else if (event === "picture") {
    changeTile(job, image!, {
      picture: String(data.id),
      seed: typeof data.seed === "number" ? data.seed : null,
      scores: (data.scores as Record<string, number>) ?? null,
    });
  } else if (event === "warning") change(job, { warnings: [...job.state.value.warnings, String(data.message)] });
  else if (event === "done" || event === "cancelled")
    change(job, { status: event, position: null, finishedAt: Date.now() });
  else if (event === "failed" || event === "lost") {
    change(job, { status: event, position: null, finishedAt: Date.now(), error: sentence(String(data.message)) });
  }
  for (const listener of listeners) listener(job, event, image);
}

/** What the server knows of a job that has no stream. */
function applyView(job: Job, view: JobView): void {
  if (view.position !== null) change(job, { position: view.position });
  if (view.status === "running" && job.state.value.status === "queued") apply(job, "started", {});
  if (view.status === "running" && view.steps !== null)
    apply(job, "step", { image: Math.min(view.pictures.length, job.total - 1), step: view.step, steps: view.steps });
  const shown = new Set(job.state.value.tiles.map(({ picture }) => picture));
  // Places are known when all pictures are there.
  if (view.pictures.length === job.total) {
    for (const [index, id] of view.pictures.entries()) {
      if (!shown.has(id)) apply(job, "picture", { index, id, scores: view.scores[index] });
    }
  }
  if (view.status === "failed") apply(job, "failed", { message: view.error });
  else if (view.status === "done" || view.status === "cancelled") apply(job, view.status, {});
}

/** Follows a job to its end: by its stream, and by asking while other windows have all connections for streams. */
async function follow(job: Job, signal: AbortSignal): Promise<void> {
  while (!signal.aborted && isLive(job)) {
    if (await whereFree(() => followStream(job, signal))) return;
    await settleQuietly(job);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/**
 * Does something that holds a connection, unless the windows of this browser hold too many.
 * @returns whether it was done
 */
async function whereFree(run: () => Promise<void>): Promise<boolean> {
  // Pages of other machines by http have no locks, and pages in frames may be kept from them.
  const sharesLocks = await navigator.locks?.query().then(
    () => true,
    () => false,
  );
  if (!sharesLocks) {
    await run();
    return true;
  }
  for (let n = 0; n < STREAMS_OF_ALL_WINDOWS; n++) {
    const isDone = await navigator.locks.request(`miro-studio-stream-${n}`, { ifAvailable: true }, async (lock) => {
      if (lock !== null) await run();
      return lock !== null;
    });
    if (isDone) return true;
  }
  return false;
}

/** Follows a job's stream to its end, also over lost connections. */
async function followStream(job: Job, signal: AbortSignal): Promise<void> {
  for (let wait = 300; !signal.aborted && isLive(job); wait = Math.min(wait * 2, 4000)) {
    // A network that goes away, as in a computer that sleeps, does not always say so.
    const silent = new AbortController();
    const giveUp = () => setTimeout(() => silent.abort(), SILENT_MS);
    let timer = giveUp();
    try {
      const headers: Record<string, string> = job.last > 0 ? { "last-event-id": `${job.last}` } : {};
      const either = AbortSignal.any([signal, silent.signal]);
      const answer = await ask(`api/jobs/${job.id}/events`, { signal: either, headers });
      const parser = new EventParser();
      const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        clearTimeout(timer);
        timer = giveUp();
        wait = 300;
        for (const { id, event, data } of parser.push(value)) {
          if (id !== null) job.last = id;
          apply(job, event, JSON.parse(data) as Record<string, unknown>);
        }
      }
      if (isLive(job)) lost();
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && error.status > 0) return settle(job, error);
      lost();
    } finally {
      clearTimeout(timer);
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

/** A job without a stream: it has ended before this server began, or is known no more. */
async function settle(job: Job, error: unknown): Promise<void> {
  try {
    applyView(job, await askJson<JobView>(`api/jobs/${job.id}`));
    if (isLive(job)) lose(job, error);
  } catch (again) {
    if (isAnswer(again)) lose(job, again);
  }
}

/** The studio knows no more of a job: it is lost, unless it had ended before the page was loaded. */
function lose(job: Job, error: unknown): void {
  if (job.ended) forget(job);
  else apply(job, "lost", { message: messageOf(error) });
}

export function startJobs(): void {
  jobs.value = stored<StoredJob>(STORED).map(newJob);
  sent = stored<SentJob>(STORED_SENT);
  for (const asked of sent) void takeUp(asked);
  effect(() => {
    const now = new Set(endedIds.value.split(" "));
    const all = jobs.value.map(({ id, purpose, prompt, total, ended }) => ({
      id,
      purpose,
      prompt,
      total,
      ended: ended || now.has(id),
    }));
    session.setItem(STORED, JSON.stringify(all));
  });

  const visible = signal(!document.hidden);
  document.addEventListener("visibilitychange", () => {
    visible.value = !document.hidden;
  });
  const streams = new Map<Job, AbortController>();
  effect(() => {
    // The oldest come first in the queue. A hidden tab leaves its connections to others.
    const wanted = visible.value ? liveJobs.value.slice(-STREAMS) : [];
    for (const [job, stream] of streams) {
      if (wanted.includes(job)) continue;
      stream.abort();
      streams.delete(job);
    }
    for (const job of wanted) {
      if (streams.has(job)) continue;
      const stream = new AbortController();
      streams.set(job, stream);
      void follow(job, stream.signal);
    }
  });
  const poll = async () => {
    for (const job of liveJobs.value) {
      if (streams.has(job) || !visible.value || !connected.value) continue;
      await settleQuietly(job);
    }
    setTimeout(poll, POLL_MS);
  };
  setTimeout(poll, POLL_MS);
}

async function settleQuietly(job: Job): Promise<void> {
  try {
    applyView(job, await askJson<JobView>(`api/jobs/${job.id}`));
  } catch (error) {
    if (isAnswer(error)) lose(job, error);
  }
}
