/** Proof, before long work, that what comes of it can be written. Nothing is left behind. */
import {
  accessSync,
  constants,
  lstatSync,
  mkdirSync,
  readlinkSync,
  realpathSync,
  rmdirSync,
  type Stats,
  statSync,
} from "node:fs";
import { dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { beginFile } from "@miro-t2i/torch/atomic-write"; // without loading libtorch
import { InvalidInputError, MiroError, systemReason } from "../errors.js";
import { about, message } from "../message.js";
import type { Writing } from "../options.js";

/** What is at a path; nothing where there is nothing, or a file above it. */
function look(path: string, stat: typeof statSync = statSync): Stats | undefined {
  try {
    return stat(path, { throwIfNoEntry: false });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOTDIR") return undefined;
    throw error;
  }
}

/**
 * The path without `..` behind a name, to the same place: the parent of a link to a folder is that of the folder it
 * leads to, where `path.join` would take that of the link.
 */
export function withoutParents(path: string): string {
  const parts = path.split(sep);
  if (!parts.includes("..")) return path;
  let known = isAbsolute(path) ? sep : "";
  for (const part of parts) {
    const isLink = part === ".." && look(known, lstatSync)?.isSymbolicLink() && look(known) !== undefined;
    known = join(isLink ? realpathSync(known) : known, part);
  }
  return known;
}

/**
 * Where a file is written that a path names: where a link leads to, unless that is a folder, a device or a pipe.
 * @throws the system's error where links lead in a circle
 */
export function behindLinks(path: string): string {
  if (look(path)?.isFile() === false) return path;
  let place = path;
  while (look(place, lstatSync)?.isSymbolicLink()) {
    const target = readlinkSync(place);
    place = isAbsolute(target) ? target : withoutParents(`${dirname(place)}/${target}`);
  }
  return place;
}

/**
 * Proves that a file or a folder can be made, or that something can be written into a folder that is there: by making
 * something beside or in it, and removing that.
 *
 * @param parameter the option that names the path, for the error
 * @throws InvalidInputError where a file is in the place of a folder, or the reverse; MiroError with the system's
 * reason
 * @returns the first folder that will have to be made for it, if any
 */
export function proveWritable(path: string, kind: Writing, parameter: string): string | undefined {
  const target = resolve(path);
  const there = look(target);
  if (kind === "file" && there?.isDirectory())
    throw new InvalidInputError(message`${about(parameter)}: ${path} is a folder, expected a file`);
  if (kind === "file" && there && !there.isFile()) return undefined; // a device or a pipe takes what it is given
  const wanted = kind === "file" ? dirname(target) : target;
  const folder = firstThere(wanted);
  refuseFile(folder, path, parameter);
  try {
    const probe = beginFile(join(folder, "writable"));
    mkdirSync(probe);
    rmdirSync(probe);
  } catch (error) {
    const what = kind === "file" || there ? "written" : "created";
    throw new MiroError(message`${about(parameter)}: ${path} cannot be ${what}: ${systemReason(error)}`, {
      cause: error,
    });
  }
  return folder === wanted ? undefined : join(folder, relative(folder, wanted).split(sep)[0]!);
}

/** Whether files can be made in a folder. */
export function isWritable(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Refuses a folder that is a file, or lies below one.
 * @throws InvalidInputError
 */
export function refuseFileAsFolder(folder: string, parameter: string): void {
  refuseFile(firstThere(resolve(folder)), folder, parameter);
}

/** The path itself where it is there, else the first above it that is. */
function firstThere(path: string): string {
  let there = path;
  while (look(there) === undefined && dirname(there) !== there) there = dirname(there);
  return there;
}

function refuseFile(there: string, path: string, parameter: string): void {
  if (look(there)?.isDirectory()) return;
  const which = resolve(path) === there ? "" : `: ${there}`;
  throw new InvalidInputError(message`${about(parameter)}: ${path}${which} is a file, not a folder`);
}
