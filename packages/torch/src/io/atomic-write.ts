/**
 * Writing a file so that its name never denotes anything half-written: a temporary file in the same folder, flushed to
 * the disk, then renamed over the destination. Whatever interrupts this leaves the old file whole.
 */
import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import promises, { type FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { TorchError } from "../errors.js";
import { IDENTITY_PATTERN, lifeOf, processIdentity } from "./process-identity.js";
import { takeAll } from "./tensor-file.js";

export { IDENTITY_PATTERN, isOfThisKernel, type Life, lifeOf, processIdentity } from "./process-identity.js";

/** Appends bytes to the file being written. */
export type Sink = (bytes: Uint8Array) => void;

/** How {@link writeFileAtomically} treats a file that is there. */
export interface AtomicWriteOptions {
  /** Whether it may be replaced (default true). */
  overwrite?: boolean | undefined;
  /** Who may read and write it, as for `fs.open` (default 0o666, less the umask). */
  mode?: number | undefined;
}

/**
 * Calls `produce` with a sink and puts what it wrote in the place of `path`. When anything fails, the temporary file is
 * removed and `path` is as it was.
 * @throws TorchError naming the path and the reason (no space, no permission, a device or a pipe, …), with the system's
 *   error as its `cause`; without `overwrite` also when the file exists (code `EEXIST`), even if it appeared during the
 *   writing
 */
export function writeFileAtomically(
  path: string,
  produce: (write: Sink) => void,
  options: AtomicWriteOptions = {},
): void {
  // biome-ignore lint/correctness/useYield: all of it is one piece
  const inOnePiece = function* (write: Sink): Generator<void, void, void> {
    produce(write);
  };
  takeAll(writeFileInPieces(path, inOnePiece, options));
}

/**
 * As {@link writeFileAtomically}, a piece with each step of `produce`: between two steps other work can run, or the
 * file can be given up.
 */
export function* writeFileInPieces(
  path: string,
  produce: (write: Sink) => Generator<void, void, void>,
  { overwrite = true, mode }: AtomicWriteOptions = {},
): Generator<void, void, void> {
  const temporary = beginFile(path);
  let written = 0;
  let isPublished = false;
  try {
    refuseSpecial(path, present(path));
    const descriptor = fs.openSync(temporary, "wx", mode);
    try {
      yield* produce((bytes) => {
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
    isPublished = true;
  } catch (error) {
    throw writeError(path, error, written);
  } finally {
    if (!isPublished) fs.rmSync(temporary, { force: true });
  }
  flushFolder(dirname(path));
}

/**
 * The same for bytes that are there already, beside the event loop: a server's goes on while the disk works.
 * @throws TorchError as {@link writeFileAtomically}
 */
export async function writeFileAtomicallyAside(
  path: string,
  bytes: Uint8Array,
  { overwrite = true, mode }: AtomicWriteOptions = {},
): Promise<void> {
  const folder = dirname(path);
  const prefix = prefixOf(path);
  removeUnfinished(folder, await promises.readdir(folder).catch(() => []), (name) => name.startsWith(prefix));
  const temporary = temporaryIn(folder, prefix);
  let written = 0;
  try {
    refuseSpecial(path, await presentAside(path));
    const file = await promises.open(temporary, "wx", mode);
    try {
      while (written < bytes.length) {
        const { bytesWritten } = await file.write(bytes, written, bytes.length - written);
        written += bytesWritten;
      }
      await file.sync();
    } finally {
      await file.close();
    }
    if (overwrite) await promises.rename(temporary, path);
    else await claimAside(temporary, path);
  } catch (error) {
    await promises.rm(temporary, { force: true });
    throw writeError(path, error, written);
  }
  await flushFolderAside(folder);
}

/** A rename would put a file in the place of a device or a pipe: `/dev/null` of a whole system, where root writes. */
function refuseSpecial(path: string, there: fs.Stats | undefined): void {
  if (there !== undefined && !there.isFile() && !there.isDirectory())
    throw new TorchError(`${path}: cannot be written: it is no regular file (but a device, a pipe or a socket)`);
}

/** What is at a path, links followed. */
const present = (path: string): fs.Stats | undefined => fs.statSync(path, { throwIfNoEntry: false });

/** As {@link present}. */
async function presentAside(path: string): Promise<fs.Stats | undefined> {
  return promises.stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw error;
  });
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

/** As {@link claim}. */
async function claimAside(temporary: string, path: string): Promise<void> {
  try {
    await promises.link(temporary, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") {
      await (await promises.open(path, "wx")).close();
      await promises.rename(temporary, path);
      return;
    }
    if ((await promises.stat(temporary)).nlink !== 2) throw error;
  }
  await promises.rm(temporary);
}

/**
 * The one way in which unfinished files and folders are named, so that it can be told whose they are:
 * `.NAME.OWNER.RANDOM.tmp` (the owner as in process-identity.ts). For writers that cannot use {@link
 * writeFileAtomically} because they take their time. What others left unfinished for the same destination is removed.
 */
export function beginFile(path: string): string {
  const folder = dirname(path);
  const prefix = prefixOf(path);
  removeUnfinished(folder, namesIn(folder), (name) => name.startsWith(prefix));
  return temporaryIn(folder, prefix);
}

function prefixOf(path: string): string {
  return `.${shortName(basename(path))}.`;
}

function temporaryIn(folder: string, prefix: string): string {
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
  return removeUnfinished(folder, namesIn(folder), () => true);
}

/** What a folder holds; nothing where it is not there, or can be written but not listed. */
function namesIn(folder: string): string[] {
  try {
    return fs.readdirSync(folder);
  } catch {
    return [];
  }
}

const UNFINISHED = new RegExp(`^\\..+\\.(${IDENTITY_PATTERN})\\.[0-9a-f]{12}\\.tmp$`, "s");

/**
 * Writers grow their files all the time: one whose process cannot be looked at and that has rested for so long has lost
 * it.
 */
const ABANDONED_MS = 24 * 3600_000;

function removeUnfinished(folder: string, names: readonly string[], isMeant: (name: string) => boolean): string[] {
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
    refuseSpecial(path, present(path));
    fs.renameSync(temporary, path);
  } catch (error) {
    throw writeError(path, error, 0);
  }
  flushFolder(dirname(path));
}

/**
 * Puts a folder that is filled in the place of `path`, durably. What is there is set aside first and removed last: it
 * is missing between two renames only.
 * @param overwrite whether a folder that is there and not empty may be replaced
 * @throws the system's error, without `overwrite` ENOTEMPTY; `path` is as it was then
 */
export function publishFolder(temporary: string, path: string, overwrite = true): void {
  flushBelow(temporary);
  const before: string[] = [];
  for (let done = false; !done; ) {
    if (overwrite && fs.existsSync(path)) before.push(...setAside(path));
    try {
      fs.renameSync(temporary, path);
      done = true;
    } catch (error) {
      // Another process has put a folder there in this moment: it goes too.
      if (overwrite && /^(ENOTEMPTY|EEXIST)$/.test((error as NodeJS.ErrnoException).code ?? "")) continue;
      if (before.length > 0) fs.renameSync(before.at(-1)!, path);
      throw error;
    }
  }
  flushFolder(dirname(path));
  for (const folder of before) fs.rmSync(folder, { recursive: true, force: true });
}

/** Gives a folder the name of something unfinished. @returns it; nothing where another process was faster */
function setAside(path: string): string[] {
  const aside = beginFile(path);
  try {
    fs.renameSync(path, aside);
    return [aside];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** Flushes a folder and all that is below it. */
function flushBelow(folder: string): void {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) flushBelow(path);
    else if (entry.isFile()) flushFile(path);
  }
  flushFolder(folder);
}

function flushFile(path: string): void {
  const descriptor = fs.openSync(path, "r");
  try {
    fs.fsyncSync(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
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
    if (!isRefusedFlush(error)) throw writeError(folder, error, 0);
  } finally {
    if (descriptor !== undefined) fs.closeSync(descriptor);
  }
}

/** As {@link flushFolder}. */
async function flushFolderAside(folder: string): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await promises.open(folder, "r");
    await handle.sync();
  } catch (error) {
    if (!isRefusedFlush(error)) throw writeError(folder, error, 0);
  } finally {
    await handle?.close();
  }
}

function isRefusedFlush(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code ?? "";
  return ["EINVAL", "EISDIR", "EPERM", "EACCES", "ENOTSUP"].includes(code);
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

/**
 * What to throw where a file cannot be written.
 * @internal
 */
export function writeError(path: string, error: unknown, written = 0): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === undefined || error instanceof TorchError) return error;
  const progress = written > 0 ? ` after ${written} bytes` : "";
  return new TorchError(`${path}: cannot be written${progress}: ${REASONS[code] ?? code}`, { cause: error });
}
