/**
 * A lock between processes on one machine, in containers on it, or on several machines that share a file system: who
 * holds it alone works on a shard, trains in a run's folder, or decides names in a folder of pictures.
 *
 * A lock is a file `.<name>.lock.<n>` that says who its owner is; it appears whole, and only where no file has the
 * name. A lock whose owner is dead is taken over by creating the next number: of several that try only one can. Whether
 * the owner lives is asked of the system where it can tell (see process-identity.ts in the engine). Where it cannot, as
 * for another machine, the owner is dead when the file has not been touched for some time, by the clock of the file
 * system; owners touch theirs from a thread of its own, which no long computation holds up.
 */
import { randomBytes } from "node:crypto";
import { closeSync, existsSync, openSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  isOfThisKernel,
  type Life,
  lifeOf,
  processIdentity,
  removeKilledWrites,
  writeFileAtomically,
} from "@miro-t2i/torch/atomic-write";
import { z } from "zod";
import { MiroError, systemReason } from "../errors.js";
import { keepTouching, stopTouching } from "./heartbeat.js";
import { createFolder, removeIfEmpty } from "./make-folder.js";

/** An owner that cannot be looked at and was silent for this long is taken for dead. */
export const SILENT_MS = 120_000;

/** How often an owner that cannot be looked at is listened for. */
const POLL_MS = 1000;

const ownerSchema = z.object({
  host: z.string(),
  pid: z.int(),
  identity: z.string(),
  token: z.string(),
  /** Of an owner that holds a file alone: the number of its file system, as its kernel counts them. */
  device: z.int().optional(),
});
type Owner = z.output<typeof ownerSchema>;

/** Who holds a lock. */
export interface LockOwner {
  /** For people: `process 123 on host`. */
  name: string;
  /** Its name, and what is known of it. */
  text: string;
  /** Whether it is known to live; else it may have been killed, and is taken for dead when it stays silent. */
  isKnown: boolean;
  /** Milliseconds since it last gave a sign of life. */
  silentMs: number;
}

/** How {@link FileLock.acquire} takes a lock. */
export interface AcquireOptions {
  /**
   * Whether the caller holds a file of the folder that the kernel gives to one process at a time, and takes from it at
   * its death. An owner under the same kernel, as in another container, that held it so and does no more is dead.
   */
  holdsFile?: boolean;
}

/** How {@link whenKnown} waits. */
export interface WaitForLifeOptions {
  signal?: AbortSignal | undefined;
  /** Told once for whom is waited. */
  onWait?: ((owner: LockOwner) => void) | undefined;
}

/**
 * Looks at a lock. Where nothing is known of its owner, waits for a sign of life of it, or for a silence that shows
 * that it was killed: what a killed process has left undone is not to be left to it.
 * @param look takes the lock, or says who has it
 */
export async function whenKnown<T>(
  look: () => T | LockOwner,
  { signal, onWait }: WaitForLifeOptions = {},
): Promise<T | LockOwner> {
  let silentMs: number | null = null;
  for (;;) {
    signal?.throwIfAborted();
    const found = look();
    // Less silence than a moment ago: the owner was heard of.
    if (!isOwner(found) || found.isKnown || (silentMs !== null && found.silentMs < silentMs)) return found;
    if (silentMs === null) onWait?.(found);
    silentMs = found.silentMs;
    await sleep(POLL_MS, undefined, signal ? { signal } : {});
  }
}

/** How often it is looked whether a lock is free, in milliseconds; a longer wait than some looks is told. */
const FREE_POLL_MS = 20;
const TOLD_POLLS = 50;

/** Takes a lock as soon as nobody else has it. @param take takes it, or says who has it */
export async function whenFree(
  take: () => FileLock | LockOwner,
  { signal, onWait }: WaitForLifeOptions = {},
): Promise<FileLock> {
  for (let polls = 1; ; polls++) {
    const lock = take();
    if (lock instanceof FileLock) return lock;
    if (polls === TOLD_POLLS) onWait?.(lock);
    await sleep(FREE_POLL_MS, undefined, signal ? { signal } : {});
  }
}

function isOwner(found: unknown): found is LockOwner {
  return found !== null && typeof found === "object" && "silentMs" in found;
}

export class FileLock {
  readonly #token: string;
  /** The first folder that was made for the lock. */
  readonly #made: string | undefined;

  private constructor(
    readonly path: string,
    token: string,
    made: string | undefined,
  ) {
    this.#token = token;
    this.#made = made;
    keepTouching(path);
  }

  /**
   * Takes a lock, in a folder that is made where it is missing. When the lock is released, that folder goes too unless
   * something has come to lie in it. What killed processes left unfinished in the folder is removed.
   * @returns the lock, or its owner when another process has it
   * @throws MiroError when the folder cannot be made or written
   */
  static acquire(folder: string, name: string, options: AcquireOptions = {}): FileLock | LockOwner {
    const made = createFolder(folder);
    try {
      const taken = FileLock.#take(folder, name, made, options);
      if (!(taken instanceof FileLock)) removeIfEmpty(folder, made);
      return taken;
    } catch (error) {
      removeIfEmpty(folder, made);
      // Whoever had made the folder has given it up in this moment.
      if (made === undefined && !existsSync(folder)) return FileLock.acquire(folder, name, options);
      throw error;
    }
  }

  static #take(
    folder: string,
    name: string,
    made: string | undefined,
    { holdsFile = false }: AcquireOptions,
  ): FileLock | LockOwner {
    const prefix = `.${name}.lock.`;
    const device = holdsFile ? statSync(folder).dev : undefined;
    for (;;) {
      const newest = lockNumbers(folder, prefix).at(-1);
      if (newest !== undefined) {
        const owner = ownerOf(join(folder, prefix + newest), device);
        if (owner === "gone") continue; // released in this moment
        if (owner !== "dead") return owner;
      }
      const number = (newest ?? 0) + 1;
      const path = join(folder, prefix + number);
      const token = randomBytes(16).toString("hex");
      if (!create(path, token, device)) continue; // somebody was faster: look at them
      // Whoever sees a higher number than its own was late, and gives way.
      const all = lockNumbers(folder, prefix);
      if (all.some((other) => other > number)) {
        rmSync(path, { force: true });
        continue;
      }
      for (const other of all) if (other < number) rmSync(join(folder, prefix + other), { force: true });
      removeKilledWrites(folder);
      return new FileLock(path, token, made);
    }
  }

  /** Who holds a lock, without taking it; null where nobody does. @throws MiroError when the folder cannot be read */
  static holder(folder: string, name: string): LockOwner | null {
    const prefix = `.${name}.lock.`;
    const newest = lockNumbers(folder, prefix).at(-1);
    const owner = newest === undefined ? "gone" : ownerOf(join(folder, prefix + newest));
    return typeof owner === "string" ? null : owner;
  }

  /** Whether the lock is still this one's: a process that slept for long may have been taken for dead. */
  isHeld(): boolean {
    const owner = readOwner(this.path);
    return typeof owner === "object" && owner.token === this.#token;
  }

  release(): void {
    stopTouching(this.path);
    try {
      if (this.isHeld()) rmSync(this.path, { force: true });
      removeIfEmpty(dirname(this.path), this.#made);
    } catch {
      // A disk that fails has failed the work before, which says so; and the lock counts as long as this process lives.
    }
  }
}

function lockNumbers(folder: string, prefix: string): number[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    throw new MiroError(`${folder}: cannot be read: ${systemReason(error)}`, { cause: error });
  }
  return names
    .filter((name) => name.startsWith(prefix))
    .map((name) => name.slice(prefix.length))
    .filter((number) => /^[1-9]\d{0,14}$/.test(number))
    .map(Number)
    .sort((a, b) => a - b);
}

/** Creates the lock with its content, unless it is there. */
function create(path: string, token: string, device: number | undefined): boolean {
  const owner: Owner = { host: hostname(), pid: process.pid, identity: processIdentity(), token, device };
  try {
    writeFileAtomically(path, (write) => write(Buffer.from(JSON.stringify(owner))), { overwrite: false });
    return true;
  } catch (error) {
    const reason = (error as Error).cause ?? error;
    if ((reason as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw new MiroError(`${dirname(path)}: cannot be written: ${systemReason(reason)}`, { cause: error });
  }
}

function readOwner(path: string): Owner | "unknown" | "gone" {
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
    return "unknown"; // not written yet, or not by this program
  }
}

/** @param device of the file that this process holds alone */
function ownerOf(path: string, device?: number): LockOwner | "gone" | "dead" {
  const owner = readOwner(path);
  if (owner === "gone") return owner;
  const silentMs = silenceOf(path);
  if (silentMs === null) return "gone";
  const name = owner === "unknown" ? "another process" : `process ${owner.pid} on ${owner.host}`;
  const life = owner === "unknown" ? "unknown" : lifeOfOwner(owner, device);
  if (life === "dead" || (life === "unknown" && silentMs > SILENT_MS)) return "dead";
  if (life === "alive") return { name, text: name, isKnown: true, silentMs };
  const seconds = Math.round(silentMs / 1000);
  const text = `${name} (last heard of ${seconds} s ago; after ${SILENT_MS / 1000} s of silence it is taken for dead)`;
  return { name, text, isKnown: false, silentMs };
}

function lifeOfOwner(owner: Owner, device: number | undefined): Life {
  const life = lifeOf(owner.identity);
  // The number is one file system's at a time. In another one, mounted from the same place, locks may not be seen.
  const hasLost = device !== undefined && owner.device === device && isOfThisKernel(owner.identity);
  return life === "unknown" && hasLost ? "dead" : life;
}

/** How long ago a file was touched by the clock of its file system; null when it is gone. */
export function silenceOf(path: string): number | null {
  const touched = statSync(path, { throwIfNoEntry: false })?.mtimeMs;
  return touched === undefined ? null : Math.max(0, now(path) - touched);
}

/** The time by the clock of the file system that a file is on. */
function now(path: string): number {
  const probe = `${path}.${randomBytes(6).toString("hex")}.probe`;
  try {
    closeSync(openSync(probe, "wx"));
    return statSync(probe).mtimeMs;
  } catch {
    return Date.now();
  } finally {
    rmSync(probe, { force: true });
  }
}
