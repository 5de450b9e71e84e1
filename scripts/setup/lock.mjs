/** A lock file between processes: two `npm start` in one clone take turns; a lock left by a killed process is taken over. */
import { closeSync, openSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

const heartbeatMs = 5_000;
const staleMs = 60_000;

/** Is the process that wrote this lock gone? On this host by its id, elsewhere (a shared home) by a heart that stopped beating. */
function isStale(file) {
  try {
    const [host, pid] = readFileSync(file, "utf8").split("\n");
    const age = Date.now() - statSync(file).mtimeMs;
    if (!pid) return age > 2_000; // killed between creating and writing
    if (host !== hostname() || age > staleMs) return age > staleMs;
    try {
      process.kill(Number(pid), 0);
      return false;
    } catch (error) {
      return error.code === "ESRCH";
    }
  } catch {
    return false; // just released
  }
}

function acquire(file) {
  try {
    const fd = openSync(file, "wx");
    writeSync(fd, `${hostname()}\n${process.pid}\n`);
    closeSync(fd);
    return true;
  } catch (error) {
    if (error.code === "EEXIST") return false;
    throw error;
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
      // The rename picks one winner among several that saw the dead lock.
      const aside = `${file}.${process.pid}.stale`;
      try {
        renameSync(file, aside);
        rmSync(aside, { force: true });
      } catch {}
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
