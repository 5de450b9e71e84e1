/**
 * A lock file between processes: two `npm start` in one clone take turns; a lock left by a killed process is taken
 * over.
 */
import { closeSync, openSync, readFileSync, readlinkSync, rmSync, statSync, utimesSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

const heartbeatMs = 5_000;
const staleMs = 60_000;

/**
 * What a lock says of its owner: the kernel's boot and the PID namespace, in which alone a process id means anything,
 * the id, and the time at which the process began. This runs before anything is built that could say it
 * (packages/torch/src/io/process-identity.ts).
 */
export function ownerText(pid = process.pid) {
  return `${place()}\n${pid}\n${startOf(pid) ?? ""}\n`;
}

function place() {
  try {
    return `${readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()} ${readlinkSync("/proc/self/ns/pid")}`;
  } catch {
    return `${hostname()} ${process.pid}`; // nobody else's
  }
}

/** The 22nd field of /proc/PID/stat; null when there is no such process. */
function startOf(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return null;
  }
}

/**
 * Is the process that wrote this lock gone? In this place by its id and start, elsewhere by a heart that stopped
 * beating.
 */
function isStale(file) {
  try {
    const [where, pid, started] = readFileSync(file, "utf8").split("\n");
    const age = Date.now() - statSync(file).mtimeMs;
    if (!pid) return age > 2_000; // killed between creating and writing
    if (where !== place()) return age > staleMs;
    return startOf(Number(pid)) !== started;
  } catch {
    return false; // just released
  }
}

function acquire(file) {
  try {
    const fd = openSync(file, "wx");
    writeSync(fd, ownerText());
    closeSync(fd);
    return true;
  } catch (error) {
    if (error.code === "EEXIST") return false;
    throw error;
  }
}

/**
 * Removes a dead lock. One at a time may: of several that saw it, one could remove the lock of another that was faster.
 */
function removeStale(file) {
  const guard = `${file}.stale`;
  if (!acquire(guard)) {
    if (isStale(guard)) rmSync(guard, { force: true });
    return;
  }
  try {
    if (isStale(file)) rmSync(file, { force: true });
  } finally {
    rmSync(guard, { force: true });
  }
}

/**
 * Runs `work` while holding the lock `file`; waits for another holder, saying so once.
 * @template T
 * @param {string} file  @param {(text: string) => void} log  @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withLock(file, log, work) {
  let waiting = false;
  while (!acquire(file)) {
    if (isStale(file)) {
      removeStale(file);
      continue;
    }
    if (!waiting) log("setup: another set-up is running here, waiting for it ...\n");
    waiting = true;
    await sleep(200);
  }
  const beat = setInterval(() => {
    try {
      utimesSync(file, new Date(), new Date());
    } catch {}
  }, heartbeatMs);
  const release = () => {
    clearInterval(beat);
    rmSync(file, { force: true });
  };
  const interrupted = (signal) => {
    release();
    process.exit(signal === "SIGINT" ? 130 : 143);
  };
  process.once("SIGINT", interrupted).once("SIGTERM", interrupted);
  try {
    return await work();
  } finally {
    process.off("SIGINT", interrupted).off("SIGTERM", interrupted);
    release();
  }
}
