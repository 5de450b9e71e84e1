/**
 * Makes sure that a shard is written by one process at a time, on one host or on several that share a file system.
 *
 * A lock is a file `.<name>.lock.<n>` with host, process and start time of its owner; it is created whole and
 * exclusively (a hard link, which is atomic on local file systems and on NFS). A lock whose owner is dead is taken over by creating the next number: of several that try
 * only one can. The owner touches its file regularly. On its own host a process is dead when no process has its number and start time;
 * on another host, when the file was not touched for a long time, measured by the clock of the file system alone.
 */

import { randomBytes } from "node:crypto";
import {
  closeSync,
  linkSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { beginFile } from "@miro-t2i/torch/atomic-write";
import { z } from "zod";
import { MiroError, systemReason } from "../../errors.js";

/** An owner on another host that was silent for this long is taken for dead. */
const SILENT_MS = 15 * 60_000;
const TOUCH_MS = 20_000;

const ownerSchema = z.object({ host: z.string(), pid: z.int(), started: z.string(), token: z.string() });

/** Who holds a lock. */
export type LockOwner = z.output<typeof ownerSchema>;

export class ShardLock {
  #timer: NodeJS.Timeout;

  private constructor(
    readonly path: string,
    private readonly token: string,
  ) {
    this.#timer = setInterval(() => touch(path), TOUCH_MS);
    this.#timer.unref();
  }

  /**
   * Takes the lock.
   * @param folder where the shard is written
   * @returns the lock, or its owner when another process has it
   */
  static acquire(folder: string, name: string): ShardLock | LockOwner | "unknown" {
    const prefix = `.${name}.lock.`;
    for (;;) {
      const locks = lockNumbers(folder, prefix);
      const newest = locks.at(-1);
      if (newest !== undefined) {
        const owner = ownerOf(join(folder, prefix + newest));
        if (owner === "gone") continue; // released in this moment
        if (owner !== "dead") return owner;
      }
      const path = join(folder, prefix + ((newest ?? 0) + 1));
      const token = randomBytes(16).toString("hex");
      if (!create(path, token)) continue; // somebody was faster: look at them
      // Whoever sees a higher number than its own was late, and gives way.
      const all = lockNumbers(folder, prefix);
      if (all.some((number) => number > (newest ?? 0) + 1)) {
        rmSync(path, { force: true });
        continue;
      }
      for (const number of all) if (number <= (newest ?? 0)) rmSync(join(folder, prefix + number), { force: true });
      return new ShardLock(path, token);
    }
  }

  /** Whether the lock is still this one's: a process that slept for long may have been taken for dead. */
  isHeld(): boolean {
    const owner = readOwner(this.path);
    return typeof owner === "object" && owner.token === this.token;
  }

  release(): void {
    clearInterval(this.#timer);
    if (this.isHeld()) rmSync(this.path, { force: true });
  }
}

/** Who holds it, for people. */
export function ownerText(owner: LockOwner | "unknown"): string {
  return owner === "unknown" ? "another process" : `process ${owner.pid} on ${owner.host}`;
}

function lockNumbers(folder: string, prefix: string): number[] {
  return readdirSync(folder)
    .filter((name) => name.startsWith(prefix))
    .map((name) => Number(name.slice(prefix.length)))
    .filter(Number.isSafeInteger)
    .sort((a, b) => a - b);
}

/** Creates the lock with its content, unless it is there. */
function create(path: string, token: string): boolean {
  const owner: LockOwner = { host: hostname(), pid: process.pid, started: startTime(process.pid) ?? "", token };
  const temporary = beginFile(path);
  try {
    writeFileSync(temporary, JSON.stringify(owner), { flag: "wx" });
    linkSync(temporary, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw new MiroError(`${path}: cannot be written: ${systemReason(error)}`, { cause: error });
  } finally {
    rmSync(temporary, { force: true });
  }
}

function touch(path: string): void {
  try {
    // Without a time of our own: "now" is the file server's.
    const descriptor = openSync(path, "r+");
    writeSync(descriptor, "{", 0);
    closeSync(descriptor);
  } catch {
    // The lock was lost; its holder finds out with `isHeld` before it publishes.
  }
}

function readOwner(path: string): LockOwner | "unknown" | "gone" {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "gone";
    throw new MiroError(`${path}: cannot be read: ${systemReason(error)}`, { cause: error });
  }
  try {
    const parsed = ownerSchema.safeParse(JSON.parse(text));
    return parsed.success ? parsed.data : "unknown";
  } catch {
    return "unknown";
  }
}

function ownerOf(path: string): LockOwner | "unknown" | "gone" | "dead" {
  const owner = readOwner(path);
  if (owner === "gone") return owner;
  if (owner !== "unknown" && owner.host === hostname()) {
    const started = startTime(owner.pid);
    return started === null || (started !== "" && owner.started !== "" && started !== owner.started) ? "dead" : owner;
  }
  const touched = statSync(path, { throwIfNoEntry: false })?.mtimeMs;
  if (touched === undefined) return "gone";
  return now(path) - touched > SILENT_MS ? "dead" : owner;
}

/** The time by the clock of the file system that the lock is on. */
function now(path: string): number {
  const probe = `${path}.${process.pid}.${randomBytes(4).toString("hex")}.probe`;
  try {
    closeSync(openSync(probe, "wx"));
    return statSync(probe).mtimeMs;
  } catch {
    return Date.now();
  } finally {
    rmSync(probe, { force: true });
  }
}

/** When a process began, in ticks since boot; "" where the system does not tell, null when there is no such process. */
function startTime(pid: number): string | null {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return null;
  }
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? null : (fields[19] ?? "");
  } catch {
    return "";
  }
}
