/**
 * Signs of life: the files that this process holds are touched regularly, by a thread of its own, because a step of a
 * training may keep the main thread busy for minutes. The thread does not keep the process from ending.
 */
import type { Worker } from "node:worker_threads";
import { startProgram } from "../compiled-module.js";

/** Time between two touches. */
const TOUCH_MS = 10_000;

// The byte is what the file begins with anyway. Writing it, unlike setting the time, leaves it to the file server what
// "now" is.
const PROGRAM = `
const { parentPort } = require("node:worker_threads");
const { closeSync, openSync, writeSync } = require("node:fs");
const paths = new Set();
parentPort.on("message", ({ path, held }) => (held ? paths.add(path) : paths.delete(path)));
setInterval(() => {
  for (const path of paths) {
    try {
      const descriptor = openSync(path, "r+");
      try { writeSync(descriptor, "{", 0); } finally { closeSync(descriptor); }
    } catch {} // it was lost, which its holder finds out; or the file system is away for a while
  }
}, ${TOUCH_MS});
`;

let worker: Worker | null = null;

/** Begins to touch a file that holds a JSON object. */
export function keepTouching(path: string): void {
  if (worker === null) {
    const thread = startProgram(PROGRAM);
    thread.unref();
    // Without the thread the lock still holds wherever the system can tell that this process lives.
    thread.on("error", () => {
      worker = null;
    });
    worker = thread;
  }
  worker.postMessage({ path, held: true });
}

export function stopTouching(path: string): void {
  worker?.postMessage({ path, held: false });
}
