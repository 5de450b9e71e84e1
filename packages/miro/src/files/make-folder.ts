/**
 * Folders: whether a path is one, and making one with those above it. Node's own `mkdir` with `recursive` never ends
 * where the system says that a new folder has no parent although it has one, as below `/proc`.
 */
import fs, { existsSync, rmdirSync, statSync } from "node:fs";
import { mkdir, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { InvalidInputError, MiroError, systemReason } from "../errors.js";

/** Whether a path is that of a folder. @throws the system's error where that cannot be seen */
export function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/**
 * Makes a folder and those above it that are missing.
 *
 * @returns the first that was made, undefined where all were there
 * @throws the system's error
 */
export function makeFolder(path: string): string | undefined {
  const missing: string[] = [];
  let there = resolve(path);
  while (statSync(there, { throwIfNoEntry: false }) === undefined && dirname(there) !== there) {
    missing.unshift(there);
    there = dirname(there);
  }
  // A file at this place is told as EEXIST or ENOTDIR.
  if (missing.length === 0 && !statSync(there).isDirectory()) fs.mkdirSync(there);
  for (const folder of missing) {
    try {
      fs.mkdirSync(folder);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // Another process may have been faster, or have removed the folder above as an empty one of its own.
      if (code === "EEXIST" && isFolder(folder)) continue;
      if (code === "ENOENT" && !existsSync(dirname(folder))) return makeFolder(path);
      if (folder !== missing[0]) removeIfEmpty(dirname(folder), missing[0]);
      throw error;
    }
  }
  return missing[0];
}

/** As {@link makeFolder}. @throws MiroError naming the folder, with the reason */
export function createFolder(path: string): string | undefined {
  if (path === "") throw new InvalidInputError('expected the name of a folder, received ""');
  try {
    return makeFolder(path);
  } catch (error) {
    throw new MiroError(`${path}: cannot be created: ${refusalOfFolder(error)}`, { cause: error });
  }
}

/** Why a folder cannot be made, in words. */
export function refusalOfFolder(error: unknown): string {
  return (error as NodeJS.ErrnoException).code === "EEXIST" ? "a part of its path is a file" : systemReason(error);
}

/**
 * Removes a folder that {@link makeFolder} has made, and those above it that it had to make, where nothing has come to
 * lie in them: what fails before it has written anything leaves nothing.
 *
 * @param made what {@link makeFolder} has returned
 */
export function removeIfEmpty(path: string, made: string | undefined): void {
  if (made === undefined) return;
  for (let folder = resolve(path); ; folder = dirname(folder)) {
    try {
      rmdirSync(folder);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") return; // it holds something now
    }
    if (folder === resolve(made)) return;
  }
}

/** As {@link makeFolder}, beside the event loop. @throws the system's error */
export async function makeFolderAside(path: string): Promise<string | undefined> {
  try {
    await mkdir(path);
    return path;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ENOENT" || dirname(path) === path) return unlessFolder(path, error);
    const made = await makeFolderAside(dirname(path));
    const rest = await mkdir(path).then(
      () => path,
      (again: unknown) => unlessFolder(path, again), // another may have been faster
    );
    return made ?? rest;
  }
}

async function unlessFolder(path: string, error: unknown): Promise<undefined> {
  const there = await stat(path).catch(() => null);
  if (!there?.isDirectory()) throw error;
}
