/**
 * Writing a file so that its name never denotes anything half-written: a temporary file in the same folder, flushed to the
 * disk, then renamed over the destination. Whatever interrupts this leaves the old file whole.
 */
import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { TorchError } from "../errors.js";

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
 * Calls `produce` with a sink and puts what it wrote in the place of `path`. When anything fails, the temporary file is removed
 * and `path` is as it was.
 * @throws TorchError naming the path and the reason (no space, no permission, …), with the system's error as its `cause`;
 *   without `overwrite` also when the file exists (code `EEXIST`), even if it appeared during the writing
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
    if ((error as NodeJS.ErrnoException).code === "EEXIST") throw error;
    // File systems without hard links: reserve the name, then replace the reservation.
    fs.closeSync(fs.openSync(path, "wx"));
    fs.renameSync(temporary, path);
    return;
  }
  fs.rmSync(temporary);
}

/**
 * For writers that cannot use {@link writeFileAtomically} because they take their time: the temporary name to write `path`
 * under. Temporary files for the same destination whose process on this host was killed are removed.
 */
export function beginFile(path: string): string {
  const folder = dirname(path);
  const prefix = `.${shortName(basename(path))}.${hostname()}.`;
  removeLeftovers(folder, prefix);
  return join(folder, `${prefix}${process.pid}.${randomBytes(6).toString("hex")}.tmp`);
}

/** A destination's part in its temporary name: long ones are cut and told apart by a digest, as a file name has 255 bytes. */
function shortName(name: string): string {
  if (Buffer.byteLength(name) <= 100) return name;
  const digest = createHash("sha256").update(name).digest("hex").slice(0, 12);
  return `${[...name].slice(0, 20).join("")}-${digest}`;
}

/**
 * Removes all temporary files in a folder whose process on this host was killed, whatever they were to become. A command calls
 * this for the folder that it is going to write to.
 * @returns the names of what was removed
 */
export function removeKilledWrites(folder: string): string[] {
  const own = new RegExp(`^\\..+\\.${literally(hostname())}\\.(\\d+)\\.[0-9a-f]{12}\\.tmp$`, "s");
  return removeDead(folder, (name) => own.exec(name)?.[1]);
}

function literally(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
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

/** Removes temporary files for the same destination whose process on this host was killed. */
function removeLeftovers(folder: string, prefix: string): void {
  removeDead(folder, (name) =>
    name.startsWith(prefix) && name.endsWith(".tmp") ? name.slice(prefix.length).split(".")[0] : undefined,
  );
}

/** Removes the files for which `writer` names a process of this host that is no more. */
function removeDead(folder: string, writer: (name: string) => string | undefined): string[] {
  let names: string[];
  try {
    names = fs.readdirSync(folder);
  } catch {
    return []; // a folder that is not there, or can be written but not listed
  }
  return names.filter((name) => {
    const pid = Number(writer(name));
    if (!Number.isSafeInteger(pid) || pid <= 0 || isRunning(pid)) return false;
    fs.rmSync(join(folder, name), { force: true });
    return true;
  });
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

/** Makes the rename durable. Some file systems refuse to flush a folder; the file is in place all the same. */
function flushFolder(folder: string): void {
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
