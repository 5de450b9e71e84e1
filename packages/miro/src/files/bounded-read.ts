/**
 * Files that a person names, read whole and never without end: a device such as /dev/zero has none, and a pipe comes to
 * its end only if whoever writes it does.
 */
import { closeSync, fstatSync, openSync, readFileSync, readSync } from "node:fs";
import { open } from "node:fs/promises";
import { InvalidInputError } from "../errors.js";

/** What is read of something that is no regular file. */
const MAX_STREAM_BYTES = 256 * 2 ** 20;
const PIECE_BYTES = 2 ** 20;

/**
 * Reads a regular file, or a pipe or device to its end.
 * @param maxBytes by default a regular file of any size is read, and 256 MiB of what is none
 * @throws InvalidInputError naming the file when it has more bytes; the system's error when it cannot be read
 */
export function readBounded(path: string, maxBytes = Number.POSITIVE_INFINITY): Buffer {
  const descriptor = openSync(path, "r");
  try {
    const stats = fstatSync(descriptor);
    if (stats.isFile()) {
      if (stats.size > maxBytes) throw tooLarge(path, stats.size, maxBytes);
      return readFileSync(descriptor);
    }
    const stream = new Stream(path, maxBytes);
    while (stream.add(readSync(descriptor, stream.piece)));
    return stream.bytes();
  } finally {
    closeSync(descriptor);
  }
}

/** As {@link readBounded}, beside the event loop. */
export async function readBoundedAside(path: string): Promise<Buffer> {
  const file = await open(path, "r");
  try {
    if ((await file.stat()).isFile()) return await file.readFile();
    const stream = new Stream(path, MAX_STREAM_BYTES);
    while (stream.add((await file.read(stream.piece)).bytesRead));
    return stream.bytes();
  } finally {
    await file.close();
  }
}

/**
 * The lines of a file of any size, one after another, or of a pipe or device; the last one may be cut off.
 * @throws as {@link readBounded}
 */
export function* readBoundedLines(path: string): Generator<string> {
  const descriptor = openSync(path, "r");
  try {
    const most = fstatSync(descriptor).isFile() ? Number.POSITIVE_INFINITY : MAX_STREAM_BYTES;
    const piece = Buffer.alloc(PIECE_BYTES);
    let size = 0;
    /** The pieces of a line whose end has not been read yet. */
    let begun: Buffer[] = [];
    for (let count = readSync(descriptor, piece); count > 0; count = readSync(descriptor, piece)) {
      size += count;
      if (size > most) throw noRegularFile(path, most);
      let start = 0;
      for (let end = piece.indexOf(10); end >= 0 && end < count; end = piece.indexOf(10, start)) {
        const rest = piece.subarray(start, end);
        yield (begun.length === 0 ? rest : Buffer.concat([...begun, rest])).toString();
        begun = [];
        start = end + 1;
      }
      if (start < count) begun.push(Buffer.from(piece.subarray(start, count)));
    }
    if (begun.length > 0) yield Buffer.concat(begun).toString();
  } finally {
    closeSync(descriptor);
  }
}

/** What is read piece by piece. */
class Stream {
  readonly piece = Buffer.alloc(PIECE_BYTES);
  readonly #pieces: Buffer[] = [];
  readonly #maxBytes: number;
  #size = 0;

  constructor(
    readonly path: string,
    maxBytes: number,
  ) {
    this.#maxBytes = Math.min(maxBytes, MAX_STREAM_BYTES);
  }

  /** Takes what was read into the piece. @returns whether there may be more */
  add(count: number): boolean {
    this.#size += count;
    if (this.#size > this.#maxBytes) throw noRegularFile(this.path, this.#maxBytes);
    this.#pieces.push(Buffer.from(this.piece.subarray(0, count)));
    return count > 0;
  }

  bytes(): Buffer {
    return Buffer.concat(this.#pieces);
  }
}

function noRegularFile(path: string, most: number): InvalidInputError {
  return new InvalidInputError(`${path}: is no regular file and has more than ${most} bytes; name a regular file`);
}

function tooLarge(path: string, size: number, maxBytes: number): InvalidInputError {
  return new InvalidInputError(`${path}: ${size} bytes are too many; at most ${maxBytes} are read`);
}
