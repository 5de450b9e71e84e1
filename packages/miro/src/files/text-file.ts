/**
 * Text files from strangers: tables, lists of captions and prompts, settings. One place decides what is text and where
 * a line ends.
 *
 * * UTF-8 with or without its mark, and UTF-16 with its mark. Everything else is refused with the byte at which it
 *   stops being text, so that no caption is ever drawn or stored with U+FFFD in it. A NUL is no text either: it tells
 *   UTF-16 without a mark, and binary files.
 * * A line ends in LF, CR LF or CR, as for Python's text files. U+2028, U+2029, U+0085, form feeds and the like are
 *   characters of a line.
 */
import { isUtf8 } from "node:buffer";
import { createReadStream } from "node:fs";
import { InvalidInputError, MiroError, systemReason } from "../errors.js";
import { wholeNumber } from "../numbers.js";
import { readBounded } from "./bounded-read.js";

/** No list or table that is read whole comes near this. */
const MAX_TEXT_BYTES = 256 * 2 ** 20;
/** No line of a table comes near this; a file without line ends must not fill the memory. */
const MAX_LINE_BYTES = 16 * 2 ** 20;
/** Each line of a file that is read whole becomes an object of its own: more of them do not fit into Node's memory. */
const MAX_LINES = 4_000_000;

type Encoding = "utf-8" | "utf-16le" | "utf-16be";

/** A line and its number, from 1. */
export interface Line {
  text: string;
  number: number;
}

/**
 * The text of a file's bytes, without a byte order mark.
 * @param name of the file, for the error
 * @throws InvalidInputError naming the file and the byte at which it is no text
 */
export function decodeText(bytes: Uint8Array, name: string): string {
  const { encoding, markBytes } = encodingOf(bytes, name);
  return decodeBlock(bytes.subarray(markBytes), encoding, markBytes, name);
}

/**
 * The text of bytes that a program has written, as it is: in UTF-8 a mark and a NUL are characters like any other.
 * @throws as {@link decodeText}
 */
export function decodeStored(bytes: Uint8Array, name: string): string {
  return isUtf8(bytes) ? DECODER.decode(bytes) : decodeText(bytes, name);
}

const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * Reads a text file whole.
 * @throws MiroError when it cannot be read; InvalidInputError when it is no text, or has too many lines
 */
export function readTextFile(path: string): string {
  return withFewLines(decodeText(bytesOf(path), path), path);
}

/** As {@link readTextFile}, of a file that a program has written: captions in it may hold a NUL. */
export function readStoredFile(path: string): string {
  return withFewLines(decodeStored(bytesOf(path), path).replace(/^\ufeff/, ""), path);
}

function withFewLines(text: string, path: string): string {
  let lines = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if ((unit === 0x0a || (unit === 0x0d && text.charCodeAt(i + 1) !== 0x0a)) && ++lines > MAX_LINES)
      throw new InvalidInputError(`${path}: has more than ${wholeNumber(MAX_LINES)} lines; split it`);
  }
  return text;
}

function bytesOf(path: string): Buffer {
  try {
    return readBounded(path, MAX_TEXT_BYTES);
  } catch (error) {
    if (error instanceof MiroError) throw error;
    throw new MiroError(`${path}: cannot be read: ${systemReason(error)}`, { cause: error });
  }
}

/** Whether a text holds half of a character of UTF-16, as JSON may write it: stored, it would become U+FFFD. */
export function hasLoneSurrogate(text: string): boolean {
  return /\p{Surrogate}/u.test(text);
}

/** The lines of a text. An end of line at the very end begins no further one. */
export function linesOf(text: string): string[] {
  const lines = text.split(/\r\n|\n|\r/);
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

/**
 * The lines of a file of any size, one after another.
 * @throws as {@link readTextFile}
 */
export async function* readLines(path: string): AsyncGenerator<Line> {
  const stream = createReadStream(path, { highWaterMark: 1 << 20 });
  let encoding: Encoding | null = null;
  let kept: Buffer = Buffer.alloc(0);
  /** Position of `kept` in the file. */
  let offset = 0;
  let number = 0;
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      kept = kept.length === 0 ? chunk : Buffer.concat([kept, chunk]);
      if (encoding === null) {
        if (kept.length < 4) continue;
        const found = encodingOf(kept, path);
        encoding = found.encoding;
        kept = kept.subarray(found.markBytes);
        offset = found.markBytes;
      }
      const end = afterLastLine(kept, encoding);
      if (end === 0 && kept.length > MAX_LINE_BYTES)
        throw new InvalidInputError(
          `${path}, line ${number + 1}: has more than ${MAX_LINE_BYTES} bytes; expected lines of text`,
        );
      if (end === 0) continue;
      for (const text of linesOf(decodeBlock(kept.subarray(0, end), encoding, offset, path)))
        yield { text, number: ++number };
      kept = kept.subarray(end);
      offset += end;
    }
    const rest = encoding === null ? decodeText(kept, path) : decodeBlock(kept, encoding, offset, path);
    for (const text of linesOf(rest)) yield { text, number: ++number };
  } catch (error) {
    if (error instanceof MiroError) throw error;
    throw new MiroError(`${path}: cannot be read: ${systemReason(error)}`, { cause: error });
  } finally {
    stream.destroy();
  }
}

/** Where the last whole line ends. A CR at the end of the bytes may be half of a CR LF, so it ends none yet. */
function afterLastLine(bytes: Buffer, encoding: Encoding): number {
  if (encoding === "utf-8") {
    const carriageReturn = bytes.length < 2 ? -1 : bytes.lastIndexOf(0x0d, bytes.length - 2);
    return Math.max(bytes.lastIndexOf(0x0a), carriageReturn) + 1;
  }
  const whole = bytes.length - (bytes.length % 2);
  for (let at = whole - 2; at >= 0; at -= 2) {
    const unit = encoding === "utf-16le" ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at);
    if (unit === 0x0a || (unit === 0x0d && at + 2 < whole)) return at + 2;
  }
  return 0;
}

function encodingOf(bytes: Uint8Array, name: string): { encoding: Encoding; markBytes: number } {
  const [a, b, c, d] = bytes;
  if ((a === 0xff && b === 0xfe && c === 0 && d === 0) || (a === 0 && b === 0 && c === 0xfe && d === 0xff))
    throw noText(name, 0, "the byte order mark of UTF-32");
  if (a === 0xff && b === 0xfe) return { encoding: "utf-16le", markBytes: 2 };
  if (a === 0xfe && b === 0xff) return { encoding: "utf-16be", markBytes: 2 };
  return { encoding: "utf-8", markBytes: a === 0xef && b === 0xbb && c === 0xbf ? 3 : 0 };
}

/** @param offset of the bytes in the file */
function decodeBlock(bytes: Uint8Array, encoding: Encoding, offset: number, name: string): string {
  const fault = encoding === "utf-8" ? faultInUtf8(bytes) : faultInUtf16(bytes, encoding === "utf-16le");
  if (fault !== null) throw noText(name, offset + fault.at, fault.what);
  return new TextDecoder(encoding, { ignoreBOM: true }).decode(bytes);
}

interface Fault {
  at: number;
  what: string;
}

function noText(name: string, at: number, what: string): InvalidInputError {
  return new InvalidInputError(
    `${name}: is not UTF-8 text: ${what} at byte ${at}; convert the file to UTF-8 (iconv -t UTF-8), or choose another one if it is no text`,
  );
}

function faultInUtf8(bytes: Uint8Array): Fault | null {
  const zero = bytes.indexOf(0);
  const text = zero < 0 ? bytes : bytes.subarray(0, zero);
  if (!isUtf8(text)) {
    const at = firstInvalid(text);
    return { at, what: `0x${text[at]!.toString(16).padStart(2, "0")}` };
  }
  return zero < 0 ? null : { at: zero, what: "a NUL" };
}

/** The first byte of the first character that is none. */
function firstInvalid(bytes: Uint8Array): number {
  let at = 0;
  while (at < bytes.length) {
    const first = bytes[at]!;
    const length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (length > 1 && !isUtf8(bytes.subarray(at, at + length))) break;
    at += length;
  }
  return at;
}

function faultInUtf16(bytes: Uint8Array, little: boolean): Fault | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + 1 < bytes.length; at += 2) {
    const unit = view.getUint16(at, little);
    if (unit === 0) return { at, what: "a NUL" };
    if (unit < 0xd800 || unit > 0xdfff) continue;
    const next = at + 3 < bytes.length ? view.getUint16(at + 2, little) : 0;
    if (unit > 0xdbff || next < 0xdc00 || next > 0xdfff) return { at, what: "half of a character of UTF-16" };
    at += 2;
  }
  return bytes.length % 2 === 0 ? null : { at: bytes.length - 1, what: "half of a character of UTF-16" };
}
