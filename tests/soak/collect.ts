/**
 * Preloaded into a process whose memory is measured, with `--expose-gc` and a channel to its parent: when the parent
 * sends "collect", every thread frees what nobody uses any more, and the parent hears what is left. Resident memory is
 * read after it, so that it tells what is kept and not when V8 felt like collecting. Nothing is given back to the
 * system that the process would not give back by itself.
 */
import { syncBuiltinESMExports } from "node:module";
import { setTimeout as sleep, setImmediate as turn } from "node:timers/promises";
import workers, { isMainThread, threadId, Worker, type WorkerOptions } from "node:worker_threads";

/** What is left in a process after its garbage was collected. */
export interface Kept {
  residentMiB: number;
  /** Of JavaScript, in all threads. */
  heapMiB: number;
  /** Memory that objects of JavaScript hold outside of its heap, in all threads. */
  externalMiB: number;
  /** In all threads. */
  tensors: number;
  tensorMiB: number;
  threads: number;
}

/** Of one thread, in bytes. */
interface KeptHere {
  thread: number;
  heap: number;
  external: number;
  tensors: number;
}

type Message = { here: number } | { collect: true } | { kept: KeptHere };

const MIB = 2 ** 20;
/** V8 gives pages back to the system in the background. */
const SETTLE_MS = 1000;
/** How long a thread may take to answer. */
const MOST_MS = 30_000;

const channel = new BroadcastChannel("miro-soak-collect");
channel.unref();

async function collectHere(): Promise<KeptHere> {
  const { memory } = await import("@miro-t2i/torch");
  for (let round = 0; round < 3; round++) {
    globalThis.gc!();
    await turn(); // finalizers
    memory.collect();
  }
  const { heapUsed: heap, external } = process.memoryUsage();
  return { thread: threadId, heap, external, tensors: memory.stats().liveTensors };
}

if (isMainThread) {
  // Threads get none of the process's flags, and so not this file, if they do not get it here.
  workers.Worker = class extends Worker {
    constructor(program: string | URL, options: WorkerOptions = {}) {
      super(program, { ...options, execArgv: [...(options.execArgv ?? []), "--import", import.meta.url] });
    }
  };
  syncBuiltinESMExports();

  const threads = new Set<number>();
  let answer: (kept: KeptHere) => void = () => {};
  channel.onmessage = ({ data }: { data: Message }) => {
    if ("here" in data) threads.add(data.here);
    else if ("kept" in data) answer(data.kept);
  };

  const collect = async (): Promise<Kept> => {
    const answers: KeptHere[] = [];
    const all = new Promise<void>((resolve, reject) => {
      const check = () => answers.length === threads.size && resolve();
      answer = (kept) => {
        answers.push(kept);
        check();
      };
      check();
      setTimeout(() => reject(new Error(`${threads.size - answers.length} threads did not answer`)), MOST_MS).unref();
    });
    channel.postMessage({ collect: true } satisfies Message);
    await all;
    answers.push(await collectHere());
    await sleep(SETTLE_MS);
    const { memory } = await import("@miro-t2i/torch");
    const sum = (of: (kept: KeptHere) => number) => answers.reduce((total, kept) => total + of(kept), 0);
    return {
      residentMiB: Math.round(process.memoryUsage.rss() / MIB),
      heapMiB: Math.round(sum(({ heap }) => heap) / MIB),
      externalMiB: Math.round(sum(({ external }) => external) / MIB),
      tensors: sum(({ tensors }) => tensors),
      tensorMiB: Math.round(memory.stats().liveBytes / MIB),
      threads: answers.length,
    };
  };

  process.on("message", (message) => {
    if (message !== "collect") return;
    collect().then(
      (kept) => process.send!(kept),
      (error: Error) => process.send!({ error: error.message }),
    );
  });
  process.channel?.unref();
} else {
  channel.postMessage({ here: threadId } satisfies Message);
  channel.onmessage = async ({ data }: { data: Message }) => {
    if ("collect" in data) channel.postMessage({ kept: await collectHere() } satisfies Message);
  };
}
