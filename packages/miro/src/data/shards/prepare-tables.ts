/**
 * Makes the missing tables of many shards in worker threads. It is a matter of reading headers, some 5,000 samples a
 * second and core; a data set of ten million samples takes half an hour on one core.
 */
import { accessSync, constants } from "node:fs";
import { dirname } from "node:path";
import type { Worker } from "node:worker_threads";
import { processors } from "@miro-t2i/torch/limits";
import { checkList, checkObject, isText } from "../../arguments.js";
import { startThread } from "../../compiled-module.js";
import { MiroError } from "../../errors.js";
import { ShardTable } from "./shard-table.js";

/** Below this number of missing tables, starting threads takes longer than making them. */
const WORTH_THREADS = 8;

/** Options of {@link prepareTables}. */
export interface PrepareTablesOptions {
  /** Threads; by default the processor's, eight at most. */
  jobs?: number | undefined;
  /** Stops the work. */
  signal?: AbortSignal | undefined;
  /** Called for each table that is made. */
  onTable?: ((done: number, missing: number) => void) | undefined;
}

/**
 * Sees to it that shards have their tables beside them, as far as their folders can be written. What is wrong with a
 * shard is not told here: loading its table reports it.
 * @throws the signal's reason; MiroError when a thread fails
 */
export async function prepareTables(shards: readonly string[], options: PrepareTablesOptions = {}): Promise<void> {
  checkObject("options", options, "an object of options");
  const { jobs = Math.min(8, processors()), signal, onTable } = options;
  checkList("shards", shards, "a list of tar files", isText);
  signal?.throwIfAborted();
  const missing = shards.filter((path) => isWritable(dirname(path)) && !ShardTable.isStored(path));
  if (missing.length < WORTH_THREADS || jobs < 2) return; // made one by one when they are needed
  const script = "data/shards/table-worker.js";
  const workers: Worker[] = [];
  let next = 0;
  let done = 0;
  let running = Math.min(jobs, missing.length);
  let stop = (): void => {};
  try {
    await new Promise<void>((resolve, reject) => {
      stop = () => reject(signal!.reason);
      signal?.addEventListener("abort", stop, { once: true });
      for (let i = running; i > 0; i--) {
        const worker = startThread(script);
        workers.push(worker);
        const give = (): void => worker.postMessage(missing[next++] ?? null);
        worker.on("message", () => {
          done++;
          onTable?.(done, missing.length);
          give();
        });
        worker.on("error", (error) =>
          reject(new MiroError(`making tables of shards failed: ${(error as Error).message}`)),
        );
        worker.on("exit", (code) => {
          if (code !== 0) reject(new MiroError(`making tables of shards failed: a thread ended with code ${code}`));
          running--;
          if (running === 0) resolve();
        });
        give();
      }
    });
  } finally {
    signal?.removeEventListener("abort", stop);
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

function isWritable(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
