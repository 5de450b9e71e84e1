import { SHARE_ENV, Worker } from "node:worker_threads";

/**
 * The compiled form of a module of this package, for worker threads and processes: they run what tsc made, also when
 * their parent runs from its source.
 *
 * @param path from the package's source folder, with the ending of the compiled file: `training/loop/replica-worker.js`
 */
export function compiledModule(path: string): URL {
  return new URL(`../dist/${path}`, import.meta.url);
}

// Node's own flags of the process (`--input-type`, `--eval`) are about its main program and would end a thread at once,
// so threads get none.

/**
 * Starts a compiled module as a thread. It shares the environment of the process: what is set in a copy, as how long
 * libtorch's threads wait awake, does not reach native code.
 */
export function startThread(path: string, workerData?: unknown): Worker {
  return new Worker(compiledModule(path), { env: SHARE_ENV, execArgv: [], workerData });
}

/** Starts the source text of a CommonJS program as a thread: for one so small that a file of its own would not pay. */
export function startProgram(source: string, workerData?: unknown): Worker {
  return new Worker(source, { eval: true, execArgv: [], workerData });
}
