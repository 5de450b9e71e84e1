/**
 * Files that are whole or absent. Everything this package writes for a user goes through here: the engine's atomic
 * writer with errors in the words of this package, and a refusal to replace what is there.
 */
import { dirname } from "node:path";
// This entry does not load libtorch.
import { writeFileAtomically, writeFileAtomicallyAside } from "@miro-t2i/torch/atomic-write";
import { InvalidInputError, MiroError, systemReason } from "../errors.js";
import { message, option } from "../message.js";
import { readBounded, readBoundedAside, readBoundedLines } from "./bounded-read.js";
import { makeFolder, makeFolderAside, refusalOfFolder, removeIfEmpty } from "./make-folder.js";

export { removeKilledWrites } from "@miro-t2i/torch/atomic-write";
export { readJson } from "./json-file.js";

/** How a file is written. */
export interface WriteOptions {
  /**
   * Whether an existing file may be replaced; otherwise it is an error, also when the file appears while this one is
   * being written.
   */
  overwrite?: boolean;
  /** Who may read and write the file, by default what the umask leaves. */
  mode?: number;
}

/**
 * Writes a file atomically, creating its folder.
 *
 * @param data the file, or its pieces in order
 * @throws InvalidInputError when the file exists; MiroError naming the file when the disk refuses
 */
export function writeFileAtomic(
  path: string,
  data: Uint8Array | string | Generator<Uint8Array>,
  { overwrite = false, mode }: WriteOptions = {},
): void {
  const folder = dirname(path);
  let made: string | undefined;
  try {
    made = makeFolder(folder);
  } catch (error) {
    throw refusedFolder(path, error);
  }
  try {
    const pieces = typeof data === "string" ? [Buffer.from(data)] : data instanceof Uint8Array ? [data] : data;
    writeFileAtomically(
      path,
      (write) => {
        for (const piece of pieces) write(piece);
      },
      { overwrite, mode },
    );
  } catch (error) {
    removeIfEmpty(folder, made);
    throw refusedWrite(path, error);
  }
}

/** As {@link writeFileAtomic}, beside the event loop: what runs in a server goes on while the disk works. */
export async function writeFileAside(
  path: string,
  data: Uint8Array,
  { overwrite = false, mode }: WriteOptions = {},
): Promise<void> {
  const folder = dirname(path);
  let made: string | undefined;
  try {
    made = await makeFolderAside(folder);
  } catch (error) {
    throw refusedFolder(path, error);
  }
  try {
    await writeFileAtomicallyAside(path, data, { overwrite, mode });
  } catch (error) {
    removeIfEmpty(folder, made);
    throw refusedWrite(path, error);
  }
}

function refusedWrite(path: string, error: unknown): Error {
  const reason = (error as Error).cause ?? error;
  if ((reason as NodeJS.ErrnoException).code === "EEXIST") return existing(path);
  return new MiroError(`${path}: cannot be written: ${systemReason(reason)}`, { cause: error });
}

function refusedFolder(path: string, error: unknown): MiroError {
  return new MiroError(`${path}: cannot be written: ${refusalOfFolder(error)}`, { cause: error });
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
    return readBounded(path);
  } catch (error) {
    throw unreadable(path, error);
  }
}

/** The lines of a file of any size, one after another; a failure names it and says why. */
export function* readLinesOf(path: string): Generator<string> {
  try {
    yield* readBoundedLines(path);
  } catch (error) {
    throw unreadable(path, error);
  }
}

/** As {@link readBytes}, beside the event loop. */
export async function readBytesAside(path: string): Promise<Buffer> {
  try {
    return await readBoundedAside(path);
  } catch (error) {
    throw unreadable(path, error);
  }
}

function unreadable(path: string, error: unknown): MiroError {
  if (error instanceof MiroError) return error;
  return new MiroError(`${path}: cannot be read: ${systemReason(error)}`, { cause: error });
}
