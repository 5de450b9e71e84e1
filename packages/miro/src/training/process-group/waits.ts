/**
 * Which process is waited for. Each process of a group tells regularly through the store what it does
 * (waits-worker.ts); who looks on finds the operation that some have come to and others have not.
 */
import { counted } from "../../numbers.js";
import type { Doing } from "./activity.js";

/** A wait that is longer is told, and again whenever it has doubled. */
const TOLD_MS = 30_000;

/** When a wait is told, and how often the processes tell what they do. */
export function paceOf(timeoutMs: number): { toldMs: number; signMs: number } {
  const toldMs = Math.min(TOLD_MS, timeoutMs / 3);
  return { toldMs, signMs: toldMs / 6 };
}

/** Where the signs of a process lie in the store. */
export const signKey = (rank: number) => `sign/${rank}`;

/** A sign, whose number tells it from the one before. */
export type Sign = Doing & { number: number };

/** What is known of a process. */
export interface Seen {
  /** Its last sign; null before the first. */
  doing: Doing | null;
  /** How long ago that came. */
  silentMs: number;
}

/** A wait of some processes for others. */
export interface Wait {
  /** The first of those that wait. */
  rank: number;
  /** The operation in which they wait, by its number. */
  begun: number;
  waitedMs: number;
  text: string;
}

/** Ranks that a message names. */
const NAMED = 3;

/** The wait in a group of processes; null while none is longer than `toldMs`. @param ranks in order */
export function waitAmong(ranks: readonly Seen[], toldMs: number): Wait | null {
  const isSilent = ({ silentMs }: Seen) => silentMs > toldMs / 2;
  const waiting = ranks.map((seen) => (seen.doing?.isInside && !isSilent(seen) ? seen.doing : null));
  const begun = Math.max(...waiting.map((doing) => doing?.begun ?? 0));
  const rank = waiting.findIndex((doing) => doing?.begun === begun);
  const first = waiting[rank];
  if (first == null || first.sinceMs < toldMs) return null;
  const missed = ranks.flatMap((seen, other) => {
    if (isSilent(seen))
      return [`rank ${other} (no sign of life for ${seconds(seen.silentMs)}: stopped, or its machine is away)`];
    const { doing } = seen;
    return doing !== null && doing.begun < begun ? [`rank ${other} (${doing.what} for ${seconds(doing.sinceMs)})`] : [];
  });
  if (missed.length === 0) return null;
  const more = missed.length > NAMED ? [counted(missed.length - NAMED, "other", "others")] : [];
  const named = [...missed.slice(0, NAMED), ...more].join(", ");
  return { rank, begun, waitedMs: first.sinceMs, text: `${waited(rank, first)} for ${named}` };
}

/** The beginning of a sentence about a process that waits. */
export function waited(rank: number, { what, sinceMs }: Pick<Doing, "what" | "sinceMs">): string {
  return `rank ${rank} has waited ${seconds(sinceMs)} in ${what}`;
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`;
}

/** Looks at the signs in a store. */
export class Watch {
  readonly #store: { get(key: string): Promise<string> };
  readonly #toldMs: number;
  readonly #seen: { number: number; at: number; doing: Doing | null }[];
  #told = { begun: -1, nextMs: 0 };

  constructor(store: { get(key: string): Promise<string> }, worldSize: number, timeoutMs: number) {
    this.#store = store;
    this.#toldMs = paceOf(timeoutMs).toldMs;
    const at = performance.now();
    this.#seen = Array.from({ length: worldSize }, () => ({ number: -1, at, doing: null }));
  }

  /** Looks once. @returns a wait that is to be told now; null where there is none */
  async look(): Promise<Wait | null> {
    for (const [rank, seen] of this.#seen.entries()) {
      const text = await this.#store.get(signKey(rank));
      const { number, ...doing } = text === "" ? { number: -1, ...NOTHING } : (JSON.parse(text) as Sign);
      if (number !== seen.number) this.#seen[rank] = { number, at: performance.now(), doing };
    }
    const at = performance.now();
    const ranks = this.#seen.map(({ at: since, doing }) => {
      const silentMs = at - since;
      return { silentMs, doing: doing && { ...doing, sinceMs: doing.sinceMs + silentMs } };
    });
    const wait = waitAmong(ranks, this.#toldMs);
    return wait !== null && this.isDue(wait) ? wait : null;
  }

  /** Whether a wait is to be told: for the first time, or because it has doubled. */
  isDue({ begun, waitedMs }: Pick<Wait, "begun" | "waitedMs">): boolean {
    if (this.#told.begun !== begun) this.#told = { begun, nextMs: this.#toldMs };
    if (waitedMs < this.#told.nextMs) return false;
    this.#told.nextMs = 2 * waitedMs;
    return true;
  }
}

const NOTHING: Doing = { begun: 0, isInside: false, what: "", sinceMs: 0 };
