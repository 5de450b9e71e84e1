/**
 * Thread of a process in a group (see waits.ts): tells the others what its process does. Where nobody has started all
 * of them who could look on, it looks on itself and says on stderr whom its process waits for.
 */
import { writeSync } from "node:fs";
import { workerData } from "node:worker_threads";
import { RendezvousStore } from "@miro-t2i/torch/distributed";
import { Activity } from "./activity.js";
import { paceOf, type Sign, signKey, Watch, waited } from "./waits.js";

/** What the thread is given. */
export interface WaitsData {
  /** Of {@link Activity}. */
  memory: SharedArrayBuffer;
  host: string;
  port: number;
  prefix: string | undefined;
  rank: number;
  worldSize: number;
  timeoutMs: number;
  /** Whether it says whom its process waits for. */
  looksOn: boolean;
}

const { memory, host, port, prefix, rank, worldSize, timeoutMs, looksOn } = workerData as WaitsData;
const activity = new Activity(memory);
const { toldMs, signMs } = paceOf(timeoutMs);
const store = await RendezvousStore.tcp({ host, port, prefix, serves: false, timeoutMs });
const watch = new Watch(store, worldSize, timeoutMs);
let number = 0;
/** When the store was asked for what it has not answered yet. */
let askedAt: number | null = null;

async function ask(): Promise<void> {
  const doing = activity.read();
  await store.set(signKey(rank), JSON.stringify({ number: number++, ...doing } satisfies Sign));
  if (!looksOn || !doing.isInside || doing.sinceMs < toldMs / 3) return;
  const wait = await watch.look();
  if (wait?.rank === rank) say(wait.text);
}

function say(text: string): void {
  writeSync(2, `${text}\n`);
}

const timer = setInterval(() => {
  if (askedAt !== null) {
    // Rank 0, or its machine, does not answer, and rank 0 alone could say so of another one.
    const doing = activity.read();
    const isLate = performance.now() - askedAt > toldMs / 2;
    if (looksOn && rank === 1 && isLate && doing.isInside && watch.isDue({ ...doing, waitedMs: doing.sinceMs }))
      say(`${waited(rank, doing)}; rank 0 does not answer: stopped, or its machine is away`);
    return;
  }
  askedAt = performance.now();
  ask().then(
    () => {
      askedAt = null;
    },
    // Who serves the store has ended, and so does this.
    () => clearInterval(timer),
  );
}, signMs);
