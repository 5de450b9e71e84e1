/**
 * Files that are whole or absent. Everything this package writes for a user goes through here: the engine's atomic
 * writer with errors in the words of this package, and a refusal to replace what is there.
 */
import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { writeFileAtomically } from "@miro-t2i/torch/atomic-write"; // without loading libtorch
import { InvalidInputError, MiroError, systemReason } from "../errors.js";
import { message, option } from "../message.js";
import { makeFolder } from "./make-folder.js";

export { removeKilledWrites } from "@miro-t2i/torch/atomic-write";
export { readJson } from "./json-file.js";

/**
 * Writes a file atomically, creating its folder.
 *
 * @param overwrite whether an existing file may be replaced; otherwise it is an error, also when the file appears
 *   while this one is being written
 * @param mode who may read and write the file, by default what the umask leaves
 * @throws InvalidInputError when the file exists; MiroError naming the file when the disk refuses
 */
export function writeFileAtomic(
  path: string,
  data: Uint8Array | string,
  { overwrite = false, mode }: { overwrite?: boolean; mode?: number } = {},
): void {
  createFolder(dirname(path), path);
  try {
    writeFileAtomically(path, (write) => write(typeof data === "string" ? Buffer.from(data) : data), {
      overwrite,
      mode,
    });
  } catch (error) {
    const reason = (error as Error).cause ?? error;
    if ((reason as NodeJS.ErrnoException).code === "EEXIST") throw existing(path);
    throw new MiroError(`${path}: cannot be written: ${systemReason(reason)}`, { cause: error });
  }
}

/** Makes the folder of a file. @throws MiroError naming the file when the disk refuses */
export function createFolder(folder: string, path: string): void {
  try {
    makeFolder(folder);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const reason = code === "EEXIST" ? "a part of its path is a file" : systemReason(error);
    throw new MiroError(`${path}: cannot be written: ${reason}`, { cause: error });
  }
}

/** The error for a file that is in the way. */
export function existing(path: string): InvalidInputError {
  return new InvalidInputError(
    message`${path}: exists already; choose another ${option("output")}, or ${option("overwrite", true)} to replace it`,
  );
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
