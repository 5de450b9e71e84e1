/**
 * A file read by position, without a map: a file that is cut short while it is open gives an error with the byte, where
 * a memory map would end the process.
 */
import { closeSync, constants, fstatSync, openSync, readSync, type Stats, statSync } from "node:fs";
import { systemReason } from "../../errors.js";
import { ShardError } from "./shard-error.js";

/** By which a file is recognised as the one that was looked at before. */
export interface FileFingerprint {
  sizeBytes: number;
  /** Modification time in whole microseconds since 1970: what every file system and a JSON number can hold. */
  mtimeUs: number;
}

/** Bytes that are read around a small request: headers lie near one another where members are small. */
const WINDOW_BYTES = 4096;

export class PositionalFile {
  readonly fingerprint: FileFingerprint;
  #window = Buffer.allocUnsafe(WINDOW_BYTES);
  #windowStart = 0;
  #windowLength = 0;
  #closed = false;

  private constructor(
    readonly path: string,
    readonly descriptor: number,
    stats: Stats,
  ) {
    this.fingerprint = fingerprintOf(stats);
  }

  /** @throws ShardError `Unreadable` naming the path when it is missing, unreadable or no regular file */
  static open(path: string): PositionalFile {
    let descriptor: number | undefined;
    try {
      descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
      const stats = fstatSync(descriptor);
      if (!stats.isFile()) throw new ShardError({ path, rule: "Unreadable", message: "not a regular file" });
      return new PositionalFile(path, descriptor, stats);
    } catch (error) {
      if (descriptor !== undefined) closeSync(descriptor);
      if (error instanceof ShardError) throw error;
      throw new ShardError({ path, rule: "Unreadable", message: systemReason(error) }, { cause: error });
    }
  }

  get sizeBytes(): number {
    return this.fingerprint.sizeBytes;
  }

  /** A copy of the bytes. @throws ShardError `ShortRead` when the file has fewer */
  read(offset: number, length: number): Buffer {
    // Checked before memory is taken: lengths come from files.
    if (length < 0 || offset < 0 || offset + length > this.sizeBytes) throw this.#short(offset, length, this.sizeBytes);
    const bytes = Buffer.allocUnsafeSlow(length);
    for (let done = 0; done < length; ) {
      const count = this.#readInto(bytes, done, length - done, offset + done);
      if (count === 0) throw this.#short(offset, length, offset + done);
      done += count;
    }
    return bytes;
  }

  /** A few bytes that are valid until the next call; fewer than asked for at the end of the file. */
  peek(offset: number, length: number): Buffer {
    if (length > WINDOW_BYTES) return this.read(offset, Math.min(length, this.sizeBytes - offset));
    if (offset < this.#windowStart || offset + length > this.#windowStart + this.#windowLength) {
      this.#windowStart = offset;
      this.#windowLength = 0;
      while (this.#windowLength < length) {
        const filled = this.#windowLength;
        const count = this.#readInto(this.#window, filled, WINDOW_BYTES - filled, offset + filled);
        if (count === 0) break;
        this.#windowLength += count;
      }
    }
    const start = offset - this.#windowStart;
    return this.#window.subarray(start, Math.min(start + length, this.#windowLength));
  }

  /** Whether the file has changed since it was opened, or its name now denotes another one. */
  isStale(): boolean {
    try {
      return (
        !sameFingerprint(fingerprintOf(fstatSync(this.descriptor)), this.fingerprint) ||
        !sameFingerprint(fingerprintOf(statSync(this.path)), this.fingerprint)
      );
    } catch {
      return true;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.descriptor);
  }

  #readInto(target: Buffer, at: number, length: number, offset: number): number {
    if (this.#closed) throw new ShardError({ path: this.path, rule: "Closed", message: "the file was closed" });
    try {
      return readSync(this.descriptor, target, at, length, offset);
    } catch (error) {
      const { path } = this;
      throw new ShardError(
        { path, rule: "Unreadable", message: systemReason(error), byteOffset: offset },
        { cause: error },
      );
    }
  }

  #short(offset: number, length: number, end: number): ShardError {
    const message = `${length} bytes from ${offset} on are needed, the file ends at ${end}`;
    return new ShardError({ path: this.path, rule: "ShortRead", message, byteOffset: end });
  }
}

/** Size and time of a file. */
export function fingerprintOf(stats: Pick<Stats, "size" | "mtimeMs">): FileFingerprint {
  return { sizeBytes: stats.size, mtimeUs: Math.round(stats.mtimeMs * 1000) };
}

export function sameFingerprint(a: FileFingerprint, b: FileFingerprint): boolean {
  return a.sizeBytes === b.sizeBytes && a.mtimeUs === b.mtimeUs;
}
