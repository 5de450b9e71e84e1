/**
 * The blocks of a tar archive: ustar headers as POSIX.1-1988 defines them, PAX extended records (POSIX.1-2001), and
 * what GNU tar adds to both (long names, base-256 numbers). Format:
 * https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_06
 *
 *   name 0-99, mode 100, uid 108, gid 116, size 124-135, mtime 136, checksum 148-155, type 156, linkname 157, magic
 *     257-262,
 *   version 263, uname 265, gname 297, devmajor 329, devminor 337, prefix 345-499
 */

/** Everything in a tar is a multiple of this many bytes. */
export const BLOCK_BYTES = 512;
/** Archives end on a multiple of this many bytes, as the programs that write to tape left it. */
export const RECORD_BYTES = 20 * BLOCK_BYTES;

const NAME_BYTES = 100;
const PREFIX_BYTES = 155;
/** The largest number that eleven octal digits hold. */
const LARGEST_OCTAL = 8 ** 11 - 1;
/** The name that Python gives to extended headers; readers of upstream's shards look for it. */
const PAX_NAME = "././@PaxHeader";

/** A rule of the format that bytes break; the reader adds file and position. */
export class TarFormatError extends Error {
  constructor(
    readonly rule: string,
    message: string,
    /** Position of the fault from the start of the bytes that were decoded. */
    readonly byteOffset = 0,
  ) {
    super(message);
  }
}

/** What a header says. */
export interface TarHeader {
  /** The type flag: `0` and NUL are regular files, `5` folders, `x` and `g` extended headers, `L` GNU long names. */
  type: string;
  /** Name with the ustar prefix in front; raw bytes, not yet known to be UTF-8. */
  name: Buffer;
  /** Bytes of content behind the header. */
  size: number;
}

/** How members are marked; the same for all members of an archive, so that equal contents give equal archives. */
export interface MemberStamp {
  /** Seconds since 1970. */
  mtime: number;
  mode: number;
  /** User and group name. */
  owner: string;
}

/** Rounds up to whole blocks. */
export function blocksOf(size: number): number {
  return Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;
}

/** Whether a block holds zeros only; two of them end an archive. */
export function isZeroBlock(block: Buffer): boolean {
  return block.every((byte) => byte === 0);
}

/**
 * The header blocks of a regular file. A name that fits neither the name field nor, split at a slash, the prefix and
 * name fields is carried by a PAX record in front.
 */
export function encodeHeader(name: string, size: number, stamp: MemberStamp): Buffer {
  const split = splitName(Buffer.from(name));
  if (split !== null) return ustar({ ...split, size, type: "0", stamp });
  const record = paxRecord("path", name);
  const content = Buffer.alloc(blocksOf(record.length));
  record.copy(content);
  return Buffer.concat([
    ustar({ name: Buffer.from(PAX_NAME), prefix: EMPTY, size: record.length, type: "x", stamp }),
    content,
    ustar({ name: Buffer.from(name).subarray(0, NAME_BYTES), prefix: EMPTY, size, type: "0", stamp }),
  ]);
}

const EMPTY = Buffer.alloc(0);

/** A name as the two fields hold it, null when they do not. */
function splitName(name: Buffer): { name: Buffer; prefix: Buffer } | null {
  if (name.length <= NAME_BYTES) return { name, prefix: EMPTY };
  // The leftmost slash that leaves at most 100 bytes behind it.
  const slash = name.indexOf(0x2f, name.length - NAME_BYTES - 1);
  if (slash <= 0 || slash > PREFIX_BYTES || slash === name.length - 1) return null;
  return { prefix: name.subarray(0, slash), name: name.subarray(slash + 1) };
}

interface UstarFields {
  name: Buffer;
  prefix: Buffer;
  size: number;
  type: string;
  stamp: MemberStamp;
}

function ustar({ name, prefix, size, type, stamp }: UstarFields): Buffer {
  if (!(Number.isInteger(size) && size >= 0 && size <= LARGEST_OCTAL))
    throw new RangeError(`a member of ${size} bytes; at most ${LARGEST_OCTAL} fit`);
  const block = Buffer.alloc(BLOCK_BYTES);
  const octal = (value: number, at: number, digits: number): void => {
    block.write(value.toString(8).padStart(digits, "0"), at, "latin1");
  };
  name.copy(block, 0);
  octal(stamp.mode, 100, 7);
  octal(0, 108, 7);
  octal(0, 116, 7);
  octal(size, 124, 11);
  octal(stamp.mtime, 136, 11);
  block.fill(" ", 148, 156);
  block.write(type, 156, "latin1");
  block.write("ustar\x0000", 257, "latin1");
  block.write(stamp.owner, 265, 31, "utf8");
  block.write(stamp.owner, 297, 31, "utf8");
  octal(0, 329, 7);
  octal(0, 337, 7);
  prefix.copy(block, 345);
  octal(
    block.reduce((sum, byte) => sum + byte, 0),
    148,
    6,
  );
  block[154] = 0;
  return block;
}

/** `LENGTH key=value\n`, where LENGTH counts its own digits. */
function paxRecord(key: string, value: string): Buffer {
  const rest = Buffer.byteLength(` ${key}=${value}\n`);
  let length = rest;
  while (length !== rest + String(length).length) length = rest + String(length).length;
  return Buffer.from(`${length} ${key}=${value}\n`);
}

/**
 * Reads a header.
 * @throws TarFormatError when the checksum or a number is wrong
 */
export function decodeHeader(block: Buffer): TarHeader {
  const stated = octalField(block, 148, 8, "checksum");
  let unsigned = 0;
  let signed = 0;
  for (let i = 0; i < BLOCK_BYTES; i++) {
    const byte = i >= 148 && i < 156 ? 0x20 : block[i]!;
    unsigned += byte;
    signed += byte < 0x80 ? byte : byte - 0x100; // what some old programs computed
  }
  if (stated !== unsigned && stated !== signed)
    throw new TarFormatError("HeaderChecksum", `the header's checksum is ${stated}, its bytes give ${unsigned}`, 148);
  const name = cString(block, 0, NAME_BYTES);
  // GNU's own magic is "ustar " and its headers keep times where the prefix would be.
  const prefix = block.toString("latin1", 257, 263) === "ustar\0" ? cString(block, 345, PREFIX_BYTES) : EMPTY;
  return {
    type: String.fromCharCode(block[156]!),
    name: prefix.length > 0 ? Buffer.concat([prefix, Buffer.from("/"), name]) : Buffer.from(name),
    size: numberField(block, 124, 12, "size"),
  };
}

/** The bytes of a field up to the first NUL. */
export function cString(bytes: Buffer, start: number, length: number): Buffer {
  const field = bytes.subarray(start, start + length);
  const end = field.indexOf(0);
  return end < 0 ? field : field.subarray(0, end);
}

/** Octal digits, or GNU's base-256: the top bit of the first byte set, the rest a big-endian number. */
function numberField(block: Buffer, start: number, length: number, what: string): number {
  if ((block[start]! & 0x80) === 0) return octalField(block, start, length, what);
  if ((block[start]! & 0x40) !== 0) throw new TarFormatError("NegativeNumber", `the ${what} is negative`, start);
  let value = block[start]! & 0x3f;
  for (let i = 1; i < length; i++) {
    value = value * 256 + block[start + i]!;
    if (value > Number.MAX_SAFE_INTEGER) throw new TarFormatError("NumberTooLarge", `the ${what} exceeds 2^53`, start);
  }
  return value;
}

function octalField(block: Buffer, start: number, length: number, what: string): number {
  const text = block.toString("latin1", start, start + length);
  const digits = /^ *([0-7]+)[ \0]*$/.exec(text)?.[1];
  if (digits === undefined) throw new TarFormatError("BadNumber", `the ${what} is no octal number`, start);
  return Number.parseInt(digits, 8); // twelve digits at most: below 2^36
}

/**
 * The records of an extended header, and the first fault in it: with that the records are those that can be read all
 * the same.
 */
export function decodePax(content: Buffer): { records: Map<string, string>; fault: TarFormatError | null } {
  const records = new Map<string, string>();
  let fault: TarFormatError | null = null;
  for (let at = 0; at < content.length; ) {
    const broken = (message: string) => ({ records, fault: new TarFormatError("PaxRecord", message, at) });
    const space = content.indexOf(0x20, at);
    const digits = space < 0 || space - at > 10 ? "" : content.toString("latin1", at, space);
    if (!/^[1-9][0-9]*$/.test(digits)) return broken("an extended record does not begin with its length");
    const end = at + Number(digits);
    if (end > content.length || end <= space + 1)
      return broken(`an extended record of ${digits} bytes leaves its header`);
    if (content[end - 1] !== 0x0a) return broken("an extended record does not end in a newline");
    const equals = content.indexOf(0x3d, space + 1);
    if (equals < 0 || equals >= end) return broken("an extended record has no '='");
    const value = utf8(content.subarray(equals + 1, end - 1));
    const key = utf8(content.subarray(space + 1, equals));
    // Values of other keys (extended attributes) may be binary.
    if (key === "path" && value === null)
      fault ??= new TarFormatError("NameNotUtf8", "an extended path is not UTF-8", at);
    else if (key !== null && value !== null) records.set(key, value);
    at = end;
  }
  return { records, fault };
}

const DECODER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Text, null when the bytes are not UTF-8. */
export function utf8(bytes: Uint8Array): string | null {
  try {
    return DECODER.decode(bytes);
  } catch {
    return null;
  }
}
