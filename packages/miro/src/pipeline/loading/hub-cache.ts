/**
 * The cache folder, in the layout of Python's `huggingface_hub`, so that both share their files:
 *
 *   HUB_CACHE/models--OWNER--NAME/refs/REVISION                 commit that the revision meant when last asked
 *                                 /blobs/HASH                   contents, by SHA-256 (large files) or git object id
 *                                 /snapshots/COMMIT/PATH        links to the blobs
 */
import { existsSync, readdirSync, realpathSync, writeFileSync } from "node:fs";
import { copyFile, link as hardLink, mkdir, readFile, realpath, rename, rm, symlink } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { beginFile } from "@miro-t2i/torch/atomic-write";
import { InvalidInputError, MiroError, systemReason } from "../../errors.js";
import { isFolder, makeFolder } from "../../files/make-folder.js";
import { about, message } from "../../message.js";
import { symlinksDisabled } from "./hub-environment.js";

/** Files below a folder, two levels deep: a checkpoint, its parts, its variants. */
export function listFolder(folder: string, depth = 2): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isSymbolicLink() && !existsSync(path)) return []; // it leads nowhere, or in a circle
    if (!isFolder(path)) return [entry.name];
    return depth > 0 ? listFolder(path, depth - 1).map((file) => `${entry.name}/${file}`) : [];
  });
}

/**
 * Refuses links that lead out of a model's folder: a folder from elsewhere must not choose which of this machine's
 * files are read. In a snapshot of the cache, links lead to its blobs.
 */
export function checkLinks(folder: string, paths: readonly string[], parameter: string): void {
  const inside = realpathSync(folder);
  const cache = /^(.*)[/\\]models--[^/\\]+[/\\]snapshots[/\\]/.exec(inside)?.[1];
  const below = (path: string, root: string) => path.startsWith(root.endsWith(sep) ? root : root + sep);
  for (const path of paths) {
    const file = join(folder, path);
    if (!existsSync(file)) continue; // whoever reads it says so
    const target = realpathSync(file);
    if (below(target, inside) || (cache !== undefined && below(target, cache))) continue;
    throw new InvalidInputError(
      message`${about(parameter)}: ${file} is a link out of the folder, to ${target}; copy the file there, or name the folder that has it`,
    );
  }
}

/** A relative path that stays below its folder, by the rules of every system. */
export function safePath(path: string): boolean {
  return !/^[/\\]|^[A-Za-z]:|\\|\0/.test(path) && path !== "" && !path.split("/").includes("..");
}

/** Tells backup programs, as Python does, that the cache need not be kept (https://bford.info/cachedir/). */
export function tagCache(cache: string): void {
  const text = `Signature: 8a477f597d28d172789f06886806bc55
# This file is a cache directory tag created by huggingface_hub.
# For information about cache directory tags, see:
#\thttps://bford.info/cachedir/
`;
  try {
    writeFileSync(join(cache, "CACHEDIR.TAG"), text, { flag: "wx" });
  } catch {
    // There already, or not to be: nothing depends on it.
  }
}

/**
 * A relative link; a file of its own where the file system has no links, or the user wants none. It appears by a
 * rename: another process may have brought the same file, and be about to read it.
 */
export async function link(blob: string, path: string): Promise<void> {
  await writable(path, async () => {
    makeFolder(dirname(path));
    const temporary = beginFile(path);
    try {
      await (symlinksDisabled()
        ? realpath(blob).then((file) => hardLink(file, temporary))
        : symlink(relative(dirname(path), blob), temporary)
      ).catch(() => copyFile(blob, temporary));
      await rename(temporary, path);
    } finally {
      await rm(temporary, { force: true }); // where it failed, or where both were the same file already
    }
  });
}

/** The commit that a revision meant when the Hub was last asked, or null. */
export async function knownCommit(storage: string, revision: string): Promise<string | null> {
  try {
    return (await readFile(join(storage, "refs", revision), "utf8")).trim();
  } catch {
    return null; // the revision is a commit, or was never fetched
  }
}

/**
 * Notes the commit of a revision, where the cache can be written: one that is only read serves as well, as in Python.
 */
export async function noteCommit(storage: string, revision: string, commit: string): Promise<void> {
  if (revision === commit || (await knownCommit(storage, revision)) === commit) return;
  const ref = join(storage, "refs", revision);
  try {
    await mkdir(dirname(ref), { recursive: true });
    const { writeFileAtomic } = await import("../../files/whole-files.js");
    writeFileAtomic(ref, commit, { overwrite: true });
  } catch {
    // Without it the Hub has to be asked next time.
  }
}

export async function writable(path: string, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (error instanceof MiroError) throw error;
    throw cannotWrite(path, error);
  }
}

export function cannotWrite(path: string, error: unknown): MiroError {
  const { code } = error as NodeJS.ErrnoException;
  const then = /^(EROFS|EACCES|EPERM)$/.test(code ?? "") ? "; set HF_HUB_CACHE to a folder that can be written" : "";
  return new MiroError(`${path}: cannot be written: ${systemReason(error)}${then}`, { cause: error });
}
