/**
 * Archives of stored (uncompressed) members, as PyTorch writes them: where each member's bytes lie, nothing else.
 * Format: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5 (ZIP64).
 *
 * The central directory is read once; every offset and size is compared with the file before it is used.
 */
import { FormatError } from "./format-error.js";
import type { RegularFile } from "./regular-file.js";

const END = 0x06054b50;
const END_BYTES = 22;
const END64 = 0x06064b50;
const END64_BYTES = 56;
const LOCATOR64 = 0x07064b50;
const LOCATOR64_BYTES = 20;
const ENTRY = 0x02014b50;
const ENTRY_BYTES = 46;
const LOCAL = 0x04034b50;
const LOCAL_BYTES = 30;
const ZIP64_EXTRA = 1;
const ENCRYPTED = 1;
/** A directory of half a million members. */
const MAX_DIRECTORY_BYTES = 64 * 2 ** 20;

/** A member's bytes in the archive's file. */
export interface ZipMember {
  /** Where they begin, in bytes from the start of the file. */
  offset: number;
  /** How many there are. */
  sizeBytes: number;
}

interface Entry {
  localOffset: number;
  sizeBytes: number;
  stored: boolean;
  encrypted: boolean;
  /** Position of the entry in the directory, for errors. */
  at: number;
}

/** An archive of members that are stored as they are, as PyTorch writes its checkpoints. */
export class ZipFile {
  readonly #file: RegularFile;
  readonly #entries = new Map<string, Entry>();
  /** Where the central directory begins: members end before. */
  #directoryStart = 0;

  /** @throws FormatError when the directory breaks the format */
  constructor(file: RegularFile) {
    this.#file = file;
    this.#readDirectory();
  }

  /** Whether a file begins as an archive with members does. */
  static detect(file: RegularFile): boolean {
    return file.sizeBytes >= 4 && view(file.read(0, 4)).getUint32(0, true) === LOCAL;
  }

  /** Names of the members, in the directory's order. */
  names(): string[] {
    return [...this.#entries.keys()];
  }

  /** Whether there is a member of this name. */
  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /** @throws FormatError when there is no such member, it is compressed or encrypted, or does not lie in the file */
  member(name: string): ZipMember {
    const { localOffset, sizeBytes, stored, encrypted, at } = this.#entry(name);
    const label = JSON.stringify(name);
    if (!stored) this.#fail("Compressed", `member ${label} is compressed; PyTorch stores members as they are`, at);
    if (encrypted) this.#fail("Encrypted", `member ${label} is encrypted`, at);
    if (localOffset + LOCAL_BYTES > this.#directoryStart)
      this.#fail("MemberOutOfBounds", `member ${label} should begin at byte ${localOffset}`, at);
    const local = view(this.#file.read(localOffset, LOCAL_BYTES));
    if (local.getUint32(0, true) !== LOCAL)
      this.#fail("BadMember", `no member begins where ${label} should`, localOffset);
    const offset = localOffset + LOCAL_BYTES + local.getUint16(26, true) + local.getUint16(28, true);
    if (offset + sizeBytes > this.#directoryStart)
      this.#fail(
        "MemberOutOfBounds",
        `member ${label} should end at byte ${offset + sizeBytes}, the members end at ${this.#directoryStart}`,
        localOffset,
      );
    return { offset, sizeBytes };
  }

  #entry(name: string): Entry {
    const entry = this.#entries.get(name);
    if (entry === undefined)
      throw new FormatError({
        path: this.#file.path,
        rule: "MissingMember",
        message: `the archive has no member ${JSON.stringify(name)}`,
      });
    return entry;
  }

  #fail(rule: string, message: string, byteOffset: number): never {
    throw new FormatError({ path: this.#file.path, rule, message, byteOffset });
  }

  #readDirectory(): void {
    const { start, sizeBytes, count } = this.#findDirectory();
    this.#directoryStart = start;
    const bytes = this.#file.read(start, sizeBytes);
    const directory = view(bytes);
    let at = 0;
    for (let i = 0; i < count; i++) {
      if (at + ENTRY_BYTES > sizeBytes || directory.getUint32(at, true) !== ENTRY)
        this.#fail("BadDirectory", `entry ${i + 1} of ${count} of the central directory is damaged`, start + at);
      const nameBytes = directory.getUint16(at + 28, true);
      const extraBytes = directory.getUint16(at + 30, true);
      const next = at + ENTRY_BYTES + nameBytes + extraBytes + directory.getUint16(at + 32, true);
      if (next > sizeBytes)
        this.#fail("BadDirectory", `entry ${i + 1} of the central directory is cut short`, start + at);
      const nameStart = at + ENTRY_BYTES;
      const name = new TextDecoder().decode(bytes.subarray(nameStart, nameStart + nameBytes));
      if (this.#entries.has(name))
        this.#fail("DuplicateMember", `the member ${JSON.stringify(name)} occurs twice`, start + at);
      const extra = view(bytes.subarray(nameStart + nameBytes, nameStart + nameBytes + extraBytes));
      this.#entries.set(name, this.#readEntry(directory, at, extra, start + at));
      at = next;
    }
    if (at !== sizeBytes)
      this.#fail("BadDirectory", `${sizeBytes - at} bytes behind the last entry of the central directory`, start + at);
  }

  #readEntry(directory: DataView, at: number, extra: DataView, byteOffset: number): Entry {
    const stated = {
      sizeBytes: directory.getUint32(at + 24, true),
      compressedBytes: directory.getUint32(at + 20, true),
      localOffset: directory.getUint32(at + 42, true),
    };
    // Fields that do not fit 32 bits are all ones there, and follow in this order in the ZIP64 extra field.
    let wide = wideFields(extra);
    for (const field of ["sizeBytes", "compressedBytes", "localOffset"] as const) {
      if (stated[field] !== 0xffffffff) continue;
      if (wide === null || wide.byteLength < 8)
        this.#fail("BadDirectory", "a ZIP64 entry of the central directory lacks its wide fields", byteOffset);
      stated[field] = this.#safe(wide.getBigUint64(0, true), byteOffset);
      wide = new DataView(wide.buffer, wide.byteOffset + 8, wide.byteLength - 8);
    }
    const method = directory.getUint16(at + 10, true);
    return {
      localOffset: stated.localOffset,
      sizeBytes: stated.sizeBytes,
      stored: method === 0 && stated.compressedBytes === stated.sizeBytes,
      encrypted: (directory.getUint16(at + 8, true) & ENCRYPTED) !== 0,
      at: byteOffset,
    };
  }

  #findDirectory(): { start: number; sizeBytes: number; count: number } {
    const { sizeBytes: fileBytes } = this.#file;
    const tailStart = Math.max(0, fileBytes - END_BYTES - 0xffff);
    const tail = view(this.#file.read(tailStart, fileBytes - tailStart));
    let end = tail.byteLength - END_BYTES;
    while (
      end >= 0 &&
      (tail.getUint32(end, true) !== END || end + END_BYTES + tail.getUint16(end + 20, true) !== tail.byteLength)
    )
      end--;
    if (end < 0) this.#fail("NoDirectory", "the archive's directory is missing: the file is cut short", fileBytes);
    const endAt = tailStart + end;
    let count = tail.getUint16(end + 10, true);
    let sizeBytes = tail.getUint32(end + 12, true);
    let start = tail.getUint32(end + 16, true);
    let directoryEnd = endAt;
    const locatorAt = endAt - LOCATOR64_BYTES;
    const locator = locatorAt >= 0 ? view(this.#file.read(locatorAt, LOCATOR64_BYTES)) : null;
    if (locator?.getUint32(0, true) === LOCATOR64) {
      directoryEnd = this.#safe(locator.getBigUint64(8, true), locatorAt);
      if (directoryEnd + END64_BYTES > locatorAt)
        this.#fail("BadDirectory", `the ZIP64 record should be at byte ${directoryEnd}`, locatorAt);
      const record = view(this.#file.read(directoryEnd, END64_BYTES));
      if (record.getUint32(0, true) !== END64)
        this.#fail("BadDirectory", "the ZIP64 record is not where it should be", directoryEnd);
      count = this.#safe(record.getBigUint64(32, true), directoryEnd);
      sizeBytes = this.#safe(record.getBigUint64(40, true), directoryEnd);
      start = this.#safe(record.getBigUint64(48, true), directoryEnd);
    }
    if (sizeBytes > MAX_DIRECTORY_BYTES)
      this.#fail("DirectoryTooLarge", `the directory has ${sizeBytes} bytes, at most ${MAX_DIRECTORY_BYTES}`, endAt);
    if (start + sizeBytes !== directoryEnd || count * ENTRY_BYTES > sizeBytes)
      this.#fail(
        "BadDirectory",
        `a directory of ${count} entries in ${sizeBytes} bytes at byte ${start} does not end at ${directoryEnd}`,
        endAt,
      );
    return { start, sizeBytes, count };
  }

  #safe(value: bigint, byteOffset: number): number {
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) this.#fail("BadDirectory", `${value} is no size`, byteOffset);
    return Number(value);
  }
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The ZIP64 field of an entry's extra fields. */
function wideFields(extra: DataView): DataView | null {
  for (let at = 0; at + 4 <= extra.byteLength; ) {
    const length = extra.getUint16(at + 2, true);
    if (at + 4 + length > extra.byteLength) return null;
    if (extra.getUint16(at, true) === ZIP64_EXTRA) return new DataView(extra.buffer, extra.byteOffset + at + 4, length);
    at += 4 + length;
  }
  return null;
}
