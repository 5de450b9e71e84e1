/**
 * Reads tar shards by position: the headers once, then any member's content. Format: tar-header.ts.
 *
 * Shards come from strangers, so everything is refused that is not a plain file inside the archive: absolute names,
 * `..`, links, devices, sparse files, contents that leave the file, headers whose checksum is wrong, archives without
 * their end.
 */
import { z } from "zod";
import { describe } from "../../errors.js";
import { field, type OptionsOf, parseOptions } from "../../options.js";
import { compressorOf } from "./compressed.js";
import { type FileFingerprint, PositionalFile } from "./positional-file.js";
import { groupSamples, type Sample, type TarMember } from "./sample-key.js";
import { ShardError, type ShardProblem, saysCut } from "./shard-error.js";
import {
  BLOCK_BYTES,
  blocksOf,
  cString,
  decodeHeader,
  decodePax,
  isZeroBlock,
  TarFormatError,
  type TarHeader,
  utf8,
} from "./tar-header.js";

const tarFileOptions = z.strictObject({
  /**
   * What a problem in the archive does: end with an error, or leave the member out and go on as far as the archive can
   * be read. Default: error.
   */
  policy: field(z.enum(["error", "skip"]).default("error"), {
    expected: '"error" or "skip"',
    help: "what a problem in the archive does: end with an error, or leave the member out and go on as far as the archive can be read",
  }),
});

/** Options of {@link TarFile}. */
export type TarFileOptions = OptionsOf<typeof tarFileOptions>;

/** Extended headers hold a few names; more is an attack on the reader's memory. */
const MAX_EXTENDED_BYTES = 2 ** 20;
/** Members that a reader keeps in memory at most. */
const MAX_MEMBERS = 2 ** 22;
const NOT_FILES: Record<string, string> = {
  "1": "a hard link",
  "2": "a symbolic link",
  "3": "a character device",
  "4": "a block device",
  "6": "a pipe",
  D: "a folder listing of GNU tar",
  M: "a part of a file in another archive",
  S: "a sparse file",
  V: "a volume label",
};

/** The members of a tar archive, by position. */
export class TarFile {
  readonly #file: PositionalFile;

  private constructor(
    readonly path: string,
    /** The regular files, in the archive's order. */
    readonly members: readonly TarMember[],
    /** What was left out; with the policy `error` always empty. */
    readonly problems: readonly ShardProblem[],
    file: PositionalFile,
  ) {
    this.#file = file;
  }

  /**
   * Opens an archive and reads its headers. The caller closes it.
   * @throws ShardError naming file, rule and byte; with the policy `skip` only when the file itself cannot be read
   */
  static open(path: string, options: TarFileOptions = {}): TarFile {
    const { policy } = parseOptions(tarFileOptions, options);
    const file = PositionalFile.open(path);
    try {
      const problems: ShardProblem[] = [];
      const members = walk(file, (problem) => {
        if (policy === "error") throw new ShardError(problem);
        // That an archive was cut comes first: lists of problems are shortened at their end.
        if (saysCut(problem)) problems.unshift(problem);
        else problems.push(problem);
      });
      return new TarFile(path, members, problems, file);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Size and time of the file when it was opened. */
  get fingerprint(): FileFingerprint {
    return this.#file.fingerprint;
  }

  /** A copy of a member's content. @throws ShardError `ShortRead` when the file was cut since it was opened */
  read(member: TarMember): Uint8Array {
    return this.#file.read(member.offset, member.size);
  }

  /** A copy of the first bytes of a member's content, all of it when it has fewer. */
  readStart(member: TarMember, length: number): Buffer {
    return Buffer.from(this.#file.peek(member.offset, Math.min(length, member.size)));
  }

  /** The members as samples. */
  samples(): Sample[] {
    return groupSamples(this.members);
  }

  /** Whether the file was changed or replaced since it was opened. */
  isStale(): boolean {
    return this.#file.isStale();
  }

  close(): void {
    this.#file.close();
  }
}

/** What extended headers say about the member behind them. */
interface Pending {
  path?: string;
  size?: number;
  sparse?: boolean;
  /** An extended header could not be read: what it would have said of the member is not known. */
  unreadable?: boolean;
}

const EXTENSIONS = "xgLK";
/**
 * Links, devices, folders and pipes have no content. What their size field holds is the writer's own business (POSIX,
 * pax: ustar).
 */
const WITHOUT_CONTENT = "123456";

/**
 * Goes from header to header. What is refused is reported, and costs one member: behind a header that cannot be
 * believed the walk goes on with the next block that is one.
 */
function walk(file: PositionalFile, report: (problem: ShardProblem) => void): TarMember[] {
  const { path, sizeBytes } = file;
  const members: TarMember[] = [];
  let pending: Pending = {};
  let at = 0;
  const problem = (rule: string, message: string, byteOffset = at, member?: string): void =>
    report({ path, rule, message, byteOffset, ...(member === undefined ? {} : { member }) });
  /** Goes on at the next header from a byte on, or at the file's end. */
  const findNext = (from: number): boolean => {
    pending = {};
    at = nextHeader(file, from);
    return at < sizeBytes;
  };

  const start = file.peek(0, BLOCK_BYTES);
  const compressor = start.length === BLOCK_BYTES && isHeader(start) ? null : compressorOf(start);
  if (compressor !== null) {
    problem("Compressed", `the file was compressed with ${compressor}; shards are uncompressed tars, so unpack it`);
    return members;
  }
  for (;;) {
    if (at === sizeBytes) {
      const message =
        at === 0
          ? "the file is empty"
          : "the archive ends without the zero block that closes it; it was cut or is still being written";
      problem("MissingEnd", message);
      return members;
    }
    const block = file.peek(at, BLOCK_BYTES);
    if (block.length < BLOCK_BYTES) {
      problem("TruncatedHeader", `a header needs ${BLOCK_BYTES} bytes, the file has ${block.length} more`);
      return members;
    }
    if (isZeroBlock(block)) {
      checkEnd(file, at, problem);
      return members;
    }
    let header: TarHeader;
    try {
      header = decodeHeader(block);
    } catch (error) {
      if (!(error instanceof TarFormatError)) throw error;
      problem(error.rule, error.message, at + error.byteOffset);
      if (!findNext(at + BLOCK_BYTES) && hasEnd(file)) return members;
      continue;
    }
    const offset = at + BLOCK_BYTES;
    const isExtension = EXTENSIONS.includes(header.type);
    if (!isExtension) header.size = contentSize(file, header, pending, offset);
    if (offset + header.size > sizeBytes) {
      problem("TruncatedMember", `${header.size} bytes from ${offset} on are needed, the file ends at ${sizeBytes}`);
      findNext(offset);
      continue;
    }
    if (isExtension) {
      try {
        if (header.size > MAX_EXTENDED_BYTES)
          throw new TarFormatError("ExtendedTooLarge", `an extended header of ${header.size} bytes`, 124 - BLOCK_BYTES);
        if (header.type !== "K") readExtension(header.type, file.read(offset, header.size), pending);
      } catch (error) {
        if (!(error instanceof TarFormatError)) throw error;
        pending.unreadable = header.type !== "g"; // a global header is no member's own
        problem(error.rule, error.message, offset + error.byteOffset);
      }
    } else {
      const found = pending.unreadable ? null : memberOf(header, pending, offset);
      pending = {};
      if (found !== null && "rule" in found) problem(found.rule, found.message, at, found.member);
      else if (found !== null) members.push(found);
      if (members.length > MAX_MEMBERS) {
        problem("TooManyMembers", `more than ${MAX_MEMBERS} members`);
        return members.slice(0, MAX_MEMBERS);
      }
    }
    at = Math.min(offset + blocksOf(header.size), sizeBytes); // the last content may lack its padding
  }
}

/**
 * Bytes of content behind a member's header. Where there should be none but the header gives a size, the block behind
 * it decides: if it is a header or the archive's end, the size is no content's.
 */
function contentSize(file: PositionalFile, header: TarHeader, pending: Pending, offset: number): number {
  const size = pending.size ?? header.size;
  // Before ustar a folder was a file whose name ends in a slash.
  const isFolder = header.type === "\0" && (pending.path ?? header.name.toString("latin1")).endsWith("/");
  if (size === 0 || !(isFolder || WITHOUT_CONTENT.includes(header.type))) return size;
  if (offset === file.sizeBytes) return 0;
  const next = file.peek(offset, BLOCK_BYTES);
  return next.length === BLOCK_BYTES && (isZeroBlock(next) || isHeader(next)) ? 0 : size;
}

/** Whether an archive ends as whole ones do, with a zero block. */
function hasEnd(file: PositionalFile): boolean {
  const { sizeBytes } = file;
  return sizeBytes > 0 && sizeBytes % BLOCK_BYTES === 0 && isZeroBlock(file.peek(sizeBytes - BLOCK_BYTES, BLOCK_BYTES));
}

/**
 * The next byte at which a header of ustar or GNU tar begins, in steps of blocks; the file's end where there is none.
 */
function nextHeader(file: PositionalFile, from: number): number {
  for (let at = from; at + BLOCK_BYTES <= file.sizeBytes; at += BLOCK_BYTES) {
    const block = file.peek(at, BLOCK_BYTES);
    if (block.toString("latin1", 257, 262) === "ustar" && isHeader(block)) return at;
  }
  return file.sizeBytes;
}

function isHeader(block: Buffer): boolean {
  try {
    decodeHeader(block);
    return true;
  } catch (error) {
    if (error instanceof TarFormatError) return false;
    throw error;
  }
}

/** Takes in what an extended header says; of a broken one as much as can be read. */
function readExtension(type: string, content: Buffer, pending: Pending): void {
  if (type === "L") {
    const name = utf8(cString(content, 0, content.length));
    if (name === null) throw new TarFormatError("NameNotUtf8", "a long name is not UTF-8");
    pending.path = name;
    return;
  }
  const { records, fault } = decodePax(content);
  const sparse = [...records.keys()].some((key) => key.startsWith("GNU.sparse."));
  if (type === "g") {
    if (fault !== null) throw fault;
    if (records.has("path") || records.has("size") || sparse)
      throw new TarFormatError("GlobalPath", "a global header gives all members one path, size or sparse map");
    return;
  }
  pending.path = records.get("path") ?? pending.path;
  pending.sparse = sparse || pending.sparse;
  const size = records.get("size");
  if (size !== undefined) {
    if (!/^(?:0|[1-9][0-9]{0,15})$/.test(size) || !Number.isSafeInteger(Number(size)))
      throw new TarFormatError("BadNumber", `the size ${describe(size)} of an extended header is no number`);
    pending.size = Number(size);
  }
  if (fault !== null) throw fault;
}

/** The member that a header describes, why it is refused, or null for a folder. */
function memberOf(
  { type, name: raw, size }: TarHeader,
  pending: Pending,
  offset: number,
): TarMember | { rule: string; message: string; member?: string } | null {
  const full = pending.path ?? utf8(raw);
  if (full === null)
    return { rule: "NameNotUtf8", message: `the name ${describe(raw.toString("latin1"))} is not UTF-8` };
  const member = full.length > 200 ? `${full.slice(0, 200)}...` : full;
  const refuse = (rule: string, message: string) => ({ rule, message, member });
  const kind = NOT_FILES[type];
  if (kind !== undefined) return refuse(type === "S" ? "Sparse" : "NotAFile", `${kind}, where only files are read`);
  if (pending.sparse) return refuse("Sparse", "a sparse file, where only plain ones are read");
  if (full === "") return refuse("BadName", "the name is empty");
  if (full.includes("\0")) return refuse("BadName", "the name holds a NUL");
  if (full.startsWith("/")) return refuse("AbsolutePath", "an absolute path");
  if (full.split("/").includes("..")) return refuse("ParentPath", "a path with '..'");
  // Folders; before ustar they were files whose name ends in a slash.
  if (type === "5" || full.endsWith("/")) return null;
  if (!"07\0".includes(type)) return refuse("UnknownType", `the type ${describe(type)} is not known`);
  return { name: full.replace(/^(?:\.\/+)+/, ""), offset, size };
}

/** An archive ends in two zero blocks; some writers leave only one at the very end of the file. */
function checkEnd(
  file: PositionalFile,
  at: number,
  problem: (rule: string, message: string, at: number) => void,
): void {
  for (let next = at + BLOCK_BYTES; next < file.sizeBytes; next += BLOCK_BYTES) {
    if (isZeroBlock(file.peek(next, Math.min(BLOCK_BYTES, file.sizeBytes - next)))) {
      if (next < at + MAX_EXTENDED_BYTES) continue;
      return;
    }
    const message =
      "bytes follow the zero block that ends the archive; members in them (archives put one behind the other?) are not read";
    problem("TrailingData", message, next);
    return;
  }
}
