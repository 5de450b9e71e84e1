/**
 * Files that are whole or absent. Everything this package writes for a user goes through here: into a temporary file
 * beside the target, synced, then given its name in one step.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { InvalidInputError, MiroError, systemReason } from "../errors.js";

/**
 * Writes a file atomically, creating its folder.
 *
 * @param overwrite whether an existing file may be replaced; otherwise it is an error, also when the file appears
 *   while this one is being written
 * @throws InvalidInputError when the file exists; MiroError naming the file when the disk refuses
 */
export function writeFileAtomic(path: string, data: Uint8Array | string, { overwrite = false } = {}): void {
  let temporary: string | null = null;
  try {
    mkdirSync(dirname(path), { recursive: true });
    temporary = join(dirname(path), `.${basename(path).slice(0, 100)}.${randomBytes(6).toString("hex")}.tmp`);
    const file = openSync(temporary, "wx", 0o666);
    try {
      const bytes = typeof data === "string" ? Buffer.from(data) : data;
      for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    if (overwrite) renameSync(temporary, path);
    else claim(temporary, path);
    temporary = null;
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException;
    if (code === "EEXIST" && syscall !== "mkdir") throw existing(path);
    if (code === "EEXIST")
      throw new MiroError(`${path}: cannot be written: a part of its path is a file`, { cause: error });
    throw new MiroError(`${path}: cannot be written: ${systemReason(error)}`, { cause: error });
  } finally {
    if (temporary !== null) rmSync(temporary, { force: true });
  }
}

/** Gives the finished file its name unless the name is taken. */
function claim(temporary: string, path: string): void {
  try {
    linkSync(temporary, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") throw error;
    // File systems without hard links: reserve the name, then replace the reservation.
    closeSync(openSync(path, "wx"));
    renameSync(temporary, path);
    return;
  }
  rmSync(temporary);
}

/** The error for a file that is in the way. */
export function existing(path: string): InvalidInputError {
  return new InvalidInputError(`${path}: exists already; choose another --output, or --overwrite to replace it`);
}

/** Reads a text file whole; a failure names it and says why. */
export function readText(path: string): string {
  return readBytes(path).toString("utf8");
}

/** Reads a file whole; a failure names it and says why. */
export function readBytes(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new MiroError(`${path}: cannot be read: ${systemReason(error)}`, { cause: error });
  }
}

/** Reads a JSON file; a syntax error names the file and the place. */
export function readJson(path: string): unknown {
  const text = readText(path);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new MiroError(`${path}: not valid JSON: ${(error as Error).message.split("\n")[0]}`, { cause: error });
  }
}
