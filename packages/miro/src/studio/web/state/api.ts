/**
 * Requests to the studio: with the key where one is wanted, and with the state of the connection. Addresses are
 * relative to the page, which a proxy may serve below a path of its own.
 */
import { signal } from "@preact/signals";
import { session } from "./storage.js";

export interface Reward {
  key: string;
  label: string;
  colour: string;
  default: number;
  negativeDefault: number;
}

export interface Model {
  id: string;
  name: string;
  license: string | null;
  defaults: { steps: number; guidanceScale: number; shift: number };
  rewards: Reward[];
  size: [number, number];
  samplers: string[];
  scorers: string[];
  examples: string[];
  limits: { images: number; steps: number; uploadBytes: number };
  loaded: boolean;
}

export interface PictureEntry {
  id: string;
  prompt: string;
  model: string;
  seed: number | null;
  width: number;
  height: number;
  createdAt: string;
  favourite: boolean;
  rewardTargets: Record<string, number>;
}

export interface JobView {
  id: string;
  status: "queued" | "running" | "done" | "failed" | "cancelled";
  position: number | null;
  step: number;
  steps: number | null;
  total: number;
  pictures: string[];
  scores: (Record<string, number> | null)[];
  warnings: string[];
  error: string | null;
  startedAt: string | null;
}

/** What the settings in a picture say, as far as the page uses them. */
export interface Settings {
  prompt: string;
  negativePrompt?: string;
  seed: number | null;
  steps: number;
  guidanceScale: number;
  guidanceType?: "constant" | "linear";
  sampler: string;
  samplerOptions?: Record<string, unknown>;
  guidanceWindow?: [number, number];
  shift: number;
  rewardTargets: Record<string, number | null>;
  negativeRewardTargets: Record<string, number | null>;
  image?: unknown;
  strength?: number;
  variationSeed?: number;
  variationStrength?: number;
  model: string;
  variant?: string;
  [other: string]: unknown;
}

/** An error that the server tells, or that it cannot be reached (status 0). */
export class ApiError extends Error {
  readonly status: number;
  readonly field: string | undefined;

  constructor(message: string, status: number, field?: string) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

const KEY = "miro-studio-key";
/** The key that requests give; kept for as long as the tab lives. */
export const key = signal<string | null>(session.getItem(KEY));
/** Whether the person is asked for the key, and whether one was wrong. */
export const keyWanted = signal<"no" | "yes" | "wrong">("no");
/** Whether the server answers. */
export const connected = signal(true);
/** Counts how often the connection came back. */
export const returns = signal(0);

const givers: (() => void)[] = [];

export function giveKey(text: string): void {
  // No studio has a key of other characters, and no request can hold one.
  if (!/^[\x21-\x7e]+$/.test(text)) {
    keyWanted.value = "wrong";
    return;
  }
  session.setItem(KEY, text);
  key.value = text;
  keyWanted.value = "no";
  for (const go of givers.splice(0)) go();
}

function askForKey(used: string | null): Promise<void> {
  // Another request may have asked, and been given one, while this one was under way.
  if (key.value !== used) return Promise.resolve();
  keyWanted.value = used === null ? "yes" : "wrong";
  return new Promise((resolve) => {
    givers.push(resolve);
  });
}

export interface AskOptions extends RequestInit {
  json?: unknown;
}

/** @throws ApiError with a sentence for people */
export async function ask(path: string, { json, ...init }: AskOptions = {}): Promise<Response> {
  for (;;) {
    const used = key.value;
    const headers = new Headers(init.headers);
    if (used !== null) headers.set("authorization", `Bearer ${used}`);
    if (json !== undefined) headers.set("content-type", "application/json");
    let answer: Response;
    try {
      answer = await fetch(path, { ...init, headers, ...(json !== undefined && { body: JSON.stringify(json) }) });
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw noAnswer();
    }
    if (answer.status === 401) {
      await askForKey(used);
      continue;
    }
    if (!answer.ok) throw await errorOf(answer);
    return answer;
  }
}

export async function askJson<T>(path: string, options?: AskOptions): Promise<T> {
  return (await ask(path, options)).json() as Promise<T>;
}

async function errorOf(answer: Response): Promise<ApiError> {
  const text = await answer.text();
  let message = `The studio answered ${answer.status}.`;
  let field: string | undefined;
  try {
    const { error } = JSON.parse(text) as { error: { message: string; field?: string } };
    message = sentence(error.message);
    field = error.field;
  } catch {
    // Not the studio has answered, but something before it, which may have found nobody there.
    if (answer.status >= 502 || OF_NOBODY.has(answer.status)) return noAnswer();
  }
  return new ApiError(message, answer.status, field);
}

function noAnswer(): ApiError {
  lost();
  return new ApiError("The studio does not answer. The page goes on by itself when it is back.", 0);
}

/** What proxies also say of a server that they do not know while it is started again, besides 502 and more. */
const OF_NOBODY = new Set([404, 424]);

/** A message of the server as a sentence. */
export function sentence(text: string): string {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Told when a request found nobody; asks until somebody answers. */
export function lost(): void {
  if (!connected.value) return;
  connected.value = false;
  const again = async () => {
    try {
      // A studio whose GPU has failed says 503, as proxies do of one that is gone; it alone tells of its queue.
      const { queue } = (await (await fetch("health")).json()) as { queue?: unknown };
      if (queue === undefined) throw new Error("another has answered");
      connected.value = true;
      returns.value++;
    } catch {
      setTimeout(again, 1000);
    }
  };
  setTimeout(again, 500);
}

export const pictureUrl = (id: string) => `api/pictures/${id}.png`;
export const thumbnailUrl = (id: string) => `api/pictures/${id}/thumbnail`;
