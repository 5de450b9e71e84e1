/** Folders that are there as a whole or not at all. */
import { existsSync, mkdirSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { beginFile, publishFolder } from "@miro-t2i/torch/atomic-write";
import { InvalidInputError, MiroError } from "../errors.js";
import { Message } from "../message.js";
import { makeFolder, removeIfEmpty } from "./make-folder.js";
import { existing } from "./whole-files.js";

/**
 * Fills a new folder beside `path` and puts it in its place once it is complete. Behind a link, it is the folder that
 * the link leads to which is replaced.
 * @throws InvalidInputError for a mount point, which cannot be replaced, and without `overwrite` where a folder with
 *   something in it is there, even if it appeared meanwhile; what `fill` throws, where errors that name a file of the
 *   new folder name it as it would have been called; `path` is as it was then
 */
export async function replaceFolder(
  path: string,
  fill: (folder: string) => void | Promise<void>,
  { overwrite = true }: { overwrite?: boolean } = {},
): Promise<void> {
  const target = existsSync(path) ? realpathSync(path) : resolve(path);
  if (isMountPoint(target))
    throw new InvalidInputError(`${path}: is a mount point, which cannot be replaced as a whole; name a folder in it`);
  const parent = dirname(target);
  const made = makeFolder(parent);
  const temporary = beginFile(target);
  try {
    mkdirSync(temporary);
    await fill(temporary);
    publishFolder(temporary, target, overwrite);
  } catch (error) {
    try {
      rmSync(temporary, { recursive: true, force: true });
      removeIfEmpty(parent, made);
    } catch {
      // What has failed may keep this from being done too; the next one that is written here does it.
    }
    if (/^(ENOTEMPTY|EEXIST)$/.test((error as NodeJS.ErrnoException).code ?? "")) throw existing(path);
    nameFinally(error, temporary, path);
    throw error;
  }
}

/** Makes an error speak of the folder instead of the unfinished one. */
function nameFinally(error: unknown, temporary: string, path: string): void {
  // What does not name it stays as it is: the reason of a signal, such as a timeout, cannot be changed.
  if (!(error instanceof Error) || !error.message.includes(temporary)) return;
  const named = (text: string) => text.replaceAll(temporary, path);
  error.message = named(error.message);
  const { path: first, dest: second } = error as NodeJS.ErrnoException & { dest?: string };
  if (first !== undefined) Object.assign(error, { path: named(first) });
  if (second !== undefined) Object.assign(error, { dest: named(second) });
  if (error instanceof MiroError) {
    const parts = error.wording.parts.map((part) => (typeof part === "string" ? named(part) : part));
    Object.defineProperty(error, "wording", { value: new Message(parts) });
  }
}

/** Whether another file system, or a folder of another place, is mounted at a path, as proc_pid_mountinfo(5) tells. */
function isMountPoint(path: string): boolean {
  let mounts: string;
  try {
    mounts = readFileSync("/proc/self/mountinfo", "utf8");
  } catch {
    return false;
  }
  const unescaped = (text: string) =>
    text.replace(/\\([0-7]{3})/g, (_, code) => String.fromCharCode(Number.parseInt(code, 8)));
  return mounts.split("\n").some((line) => unescaped(line.split(" ")[4] ?? "") === path);
}
