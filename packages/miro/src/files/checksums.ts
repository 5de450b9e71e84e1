/** `SHA256SUMS` of a folder: the hashes of its files, as `sha256sum` writes and checks them. */
import { createHash } from "node:crypto";
import { closeSync, existsSync, openSync, readdirSync, readSync } from "node:fs";
import { join } from "node:path";
import { MiroError } from "../errors.js";
import { readText } from "./whole-files.js";

/** Name of the file. */
export const SUMS_FILE = "SHA256SUMS";

/** The text of the file: a line for each other file of the folder, by name. */
export function sumsOf(folder: string): string {
  return readdirSync(folder)
    .filter((name) => name !== SUMS_FILE)
    .sort()
    .map((name) => `${sha256OfFile(join(folder, name))}  ${name}\n`)
    .join("");
}

/**
 * The hashes of a folder's files by their names.
 * @returns null where the folder has no such file
 * @throws MiroError when the file is damaged
 */
export function readSums(folder: string): ReadonlyMap<string, string> | null {
  const path = join(folder, SUMS_FILE);
  if (!existsSync(path)) return null;
  const sums = new Map<string, string>();
  for (const line of readText(path).split("\n").filter(Boolean)) {
    const [, hash, name] = /^([0-9a-f]{64}) {2}([\w.-]+)$/.exec(line) ?? [];
    if (hash === undefined || name === undefined)
      throw new MiroError(`${path}: is damaged: a line is no hash and name`);
    sums.set(name, hash);
  }
  return sums;
}

/** Compares a file with its hash. @throws MiroError when it is missing, damaged or not listed */
export function checkSum(folder: string, name: string, sums: ReadonlyMap<string, string>): void {
  const path = join(folder, name);
  if (!existsSync(path)) throw new MiroError(`${path}: is missing`);
  if (!sums.has(name)) throw new MiroError(`${path}: is not listed in ${SUMS_FILE}`);
  if (sha256OfFile(path) !== sums.get(name))
    throw new MiroError(`${path}: is damaged: its SHA-256 is not the one in ${SUMS_FILE}`);
}

/** The hash of a file, a piece at a time. */
function sha256OfFile(path: string): string {
  const hash = createHash("sha256");
  const piece = Buffer.alloc(2 ** 20);
  const descriptor = openSync(path, "r");
  try {
    for (let count = readSync(descriptor, piece); count > 0; count = readSync(descriptor, piece))
      hash.update(piece.subarray(0, count));
  } finally {
    closeSync(descriptor);
  }
  return hash.digest("hex");
}
