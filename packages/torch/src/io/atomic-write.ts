/**
 * Writing a file so that its name never denotes anything half-written: a temporary file in the same folder, flushed to
 * the disk, then renamed over the destination. Whatever interrupts this leaves the old file whole.
 */
import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import { basename, dirname, join } from "node:path";
import { TorchError } from "../errors.js";
import { IDENTITY_PATTERN, lifeOf, processIdentity } from "./process-identity.js";

export { IDENTITY_PATTERN, type Life, lifeOf, processIdentity } from "./process-identity.js";

/** Appends bytes to the file being written. */
export type Sink = (bytes: Uint8Array) => void;

/** How {@link writeFileAtomically} treats a file that is there. */
export interface AtomicWriteOptions {
  /** Whether it may be replaced (default true). */
  overwrite?: boolean;
  /** Who may read and write it, as for `fs.open` (default 0o666, less the umask). */
  mode?: number;
}

/**
 * Calls `produce` with a sink and puts what it wrote in the place of `path`. When anything fails, the temporary file is
 * removed and `path` is as it was.
 * @throws TorchError naming the path and the reason (no space, no permission, …), with the system's error as its
 *   `cause`; without `overwrite` also when the file exists (code `EEXIST`), even if it appeared during the writing
 */
export function writeFileAtomically(
  path: string,
  produce: (write: Sink) => void,
  { overwrite = true, mode }: AtomicWriteOptions = {},
): void {
  const temporary = beginFile(path);
  let written = 0;
  try {
    const descriptor = fs.openSync(temporary, "wx", mode);
    try {
      produce((bytes) => {
        for (let done = 0; done < bytes.length; ) {
          const count = fs.writeSync(descriptor, bytes, done, bytes.length - done);
          done += count;
          written += count;
        }
      });
      fs.fsyncSync(descriptor);
    } finally {
      fs.closeSync(descriptor);
    }
    if (overwrite) fs.renameSync(temporary, path);
    else claim(temporary, path);
  } catch (error) {
    fs.rmSync(temporary, { force: true });
    throw describe(path, error, written);
  }
  flushFolder(dirname(path));
}

/** Gives the finished file its name unless the name is taken. */
function claim(temporary: string, path: string): void {
  try {
    fs.linkSync(temporary, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") {
      // File systems without hard links: reserve the name, then replace the reservation.
      fs.closeSync(fs.openSync(path, "wx"));
      fs.renameSync(temporary, path);
      return;
    }
    // A network file system may repeat a request whose answer was lost: then the name is taken by this very file.
    if (fs.statSync(temporary).nlink !== 2) throw error;
  }
  fs.rmSync(temporary);
}

/**
 * The one way in which unfinished files and folders are named, so that it can be told whose they are:
 * `.NAME.OWNER.RANDOM.tmp` (the owner as in process-identity.ts). For writers that cannot use {@link
 * writeFileAtomically} because they take their time. What others left unfinished for the same destination is removed.
 */
export function beginFile(path: string): string {
  const folder = dirname(path);
  const prefix = `.${shortName(basename(path))}.`;
  removeUnfinished(folder, (name) => name.startsWith(prefix));
  return join(folder, `${prefix}${processIdentity()}.${randomBytes(6).toString("hex")}.tmp`);
}

/**
 * A destination's part in its temporary name: long ones are cut and told apart by a digest, as a file name has 255
 * bytes.
 */
function shortName(name: string): string {
  if (Buffer.byteLength(name) <= 100) return name;
  const digest = createHash("sha256").update(name).digest("hex").slice(0, 12);
  return `${[...name].slice(0, 20).join("")}-${digest}`;
}

/**
 * Removes everything unfinished in a folder whose process was killed, whatever it was to become. A command calls this
 * for the folder that it is going to write to.
 * @returns the names of what was removed
 */
export function removeKilledWrites(folder: string): string[] {
  return removeUnfinished(folder, () => true);
}

const UNFINISHED = new RegExp(`^\\..+\\.(${IDENTITY_PATTERN})\\.[0-9a-f]{12}\\.tmp$`, "s");

/**
 * Writers grow their files all the time: one whose process cannot be looked at and that has rested for so long has lost
 * it.
 */
const ABANDONED_MS = 24 * 3600_000;

function removeUnfinished(folder: string, isMeant: (name: string) => boolean): string[] {
  let names: string[];
  try {
    names = fs.readdirSync(folder);
  } catch {
    return []; // a folder that is not there, or can be written but not listed
  }
  return names.filter((name) => {
    const owner = isMeant(name) ? UNFINISHED.exec(name)?.[1] : undefined;
    if (owner === undefined) return false;
    const path = join(folder, name);
    const life = lifeOf(owner);
    if (life === "alive" || (life === "unknown" && !isAbandoned(path))) return false;
    try {
      fs.rmSync(path, { recursive: true, force: true });
      return true;
    } catch {
      return false; // another user's, or on a file system that has become read-only: nothing depends on it
    }
  });
}

function isAbandoned(path: string): boolean {
  const touched = fs.statSync(path, { throwIfNoEntry: false })?.mtimeMs;
  return touched !== undefined && Date.now() - touched > ABANDONED_MS;
}

/**
 * Puts a file that is written, flushed and closed in the place of `path`, durably.
 * @throws TorchError naming the path and the reason
 */
export function publishFile(temporary: string, path: string): void {
  try {
    fs.renameSync(temporary, path);
  } catch (error) {
    throw describe(path, error, 0);
  }
  flushFolder(dirname(path));
}

/**
 * Makes a rename in a folder durable. Some file systems refuse to flush a folder; the file is in place all the same.
 */
export function flushFolder(folder: string): void {
  let descriptor: number | undefined;
  try {
    descriptor = fs.openSync(folder, "r");
    fs.fsyncSync(descriptor);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    if (!["EINVAL", "EISDIR", "EPERM", "EACCES", "ENOTSUP"].includes(code)) throw describe(folder, error, 0);
  } finally {
    if (descriptor !== undefined) fs.closeSync(descriptor);
  }
}

const REASONS: Record<string, string> = {
  ENOSPC: "no space left on the device",
  EDQUOT: "the disk quota is exhausted",
  EFBIG: "the file would exceed the size limit",
  EACCES: "permission denied",
  EPERM: "permission denied",
  EROFS: "the file system is read-only",
  ENOENT: "the folder does not exist",
  ENOTDIR: "its parent is not a folder",
  EISDIR: "it is a folder",
};

function describe(path: string, error: unknown, written: number): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === undefined || error instanceof TorchError) return error;
  const progress = written > 0 ? ` after ${written} bytes` : "";
  return new TorchError(`${path}: cannot be written${progress}: ${REASONS[code] ?? code}`, { cause: error });
}
