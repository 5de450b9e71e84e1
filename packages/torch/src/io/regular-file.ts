/**
 * A regular file opened for reading: bytes are copied from wherever they are asked for. A file that another process
 * cuts short meanwhile is an error here; over a memory map it would end the process.
 */
import fs from "node:fs";
import { TorchError } from "../errors.js";

/** A regular file opened for reading. */
export class RegularFile {
  #descriptor: number;

  private constructor(
    /** The file. */
    readonly path: string,
    descriptor: number,
    /** When it was opened. */
    readonly sizeBytes: number,
  ) {
    this.#descriptor = descriptor;
  }

  /** @throws TorchError naming the path when it is missing, unreadable or no regular file. */
  static open(path: string): RegularFile {
    let descriptor = -1;
    try {
      descriptor = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
      const stat = fs.fstatSync(descriptor);
      if (!stat.isFile()) throw new TorchError(`${path}: not a regular file`);
      return new RegularFile(path, descriptor, stat.size);
    } catch (error) {
      if (descriptor >= 0) fs.closeSync(descriptor);
      throw error instanceof TorchError ? error : cannotRead(path, error);
    }
  }

  /** A copy of `length` bytes from `offset` on. @throws TorchError when the file ends before */
  read(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.readInto(bytes, offset);
    return bytes;
  }

  /** Fills `target` from `offset` on. @throws TorchError when the file ends before */
  readInto(target: Uint8Array, offset: number): void {
    for (let at = 0; at < target.length; ) {
      let count: number;
      try {
        count = fs.readSync(this.#descriptor, target, at, target.length - at, offset + at);
      } catch (error) {
        throw cannotRead(this.path, error);
      }
      if (count === 0) {
        throw new TorchError(
          `${this.path}: cut short while it was read: it had ${this.sizeBytes} bytes, now it ends at ${offset + at}`,
        );
      }
      at += count;
    }
  }

  /** Closes the file; a second call does nothing. */
  close(): void {
    if (this.#descriptor >= 0) fs.closeSync(this.#descriptor);
    this.#descriptor = -1;
  }
}

function cannotRead(path: string, error: unknown): TorchError {
  const code = (error as NodeJS.ErrnoException).code ?? String(error);
  const reason = { ENOENT: "no such file", EACCES: "permission denied", EISDIR: "is a folder" }[code] ?? code;
  return new TorchError(`${path}: cannot be read: ${reason}`, { cause: error });
}
