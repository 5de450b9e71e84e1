/**
 * The file that keeps the table of a shard beside it, a cache of this package, little-endian:
 *
 *   "MIROIDX2", length of the header (uint32), 4 zero bytes, SHA-256 of all that follows, header (JSON, padded to 8
 *   with spaces), then for each extension: blocks (uint32 × n), sizes (uint32 × n), layouts (uint8 × n);
 *   keys: ends (uint32 × n), bytes (UTF-8); columns (float64 × n each); each part padded to 8 bytes
 */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync, readFileSync, readSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { TorchError } from "@miro-t2i/torch";
import { writeFileAtomically } from "@miro-t2i/torch/io";
import { z } from "zod";
import { type PositionalFile, sameFingerprint } from "./positional-file.js";
import { ShardError, type ShardProblem } from "./shard-error.js";
import { BLOCK_BYTES } from "./tar-header.js";

const MAGIC = "MIROIDX2";
const PREAMBLE_BYTES = 8 + 4 + 4 + 32;
/** Longer headers are none of this program's. */
const MAX_HEADER_BYTES = 16 * 2 ** 20;

const layoutSchema = z.strictObject({
  dtype: z.enum(["uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "bool"]),
  /** Sizes behind the first; null for an array of no dimension. */
  row: z.array(z.int().min(0)).nullable(),
  /** Bytes of the header. */
  dataStart: z.int().min(0),
});
const problemSchema = z.strictObject({
  path: z.string(),
  rule: z.string(),
  message: z.string(),
  byteOffset: z.int().optional(),
  member: z.string().optional(),
  extension: z.string().optional(),
});
const headerSchema = z.strictObject({
  fingerprint: z.strictObject({ sizeBytes: z.int().min(0), mtimeUs: z.int() }),
  probe: z.string(),
  count: z
    .int()
    .min(0)
    .max(2 ** 22),
  keyBytes: z
    .int()
    .min(0)
    .max(2 ** 32),
  extensions: z.array(z.strictObject({ name: z.string(), present: z.int().min(0), layouts: z.array(layoutSchema) })),
  columns: z.array(z.string()),
  problems: z.array(problemSchema),
  problemCount: z.int().min(0),
});

/** How the arrays of a member are laid out, their first size apart. */
export type ArrayLayout = z.output<typeof layoutSchema>;
/** A problem of a shard; `extension` where it concerns that member of one sample only. */
export type TableProblem = ShardProblem & { extension?: string };
/** What the header of a table says about its shard. */
export type TableHeader = z.output<typeof headerSchema>;

/** Where the members of one extension lie, by sample. */
export interface MemberColumn {
  /** Content offset in blocks; 0 where the sample lacks the member. */
  blocks: Uint32Array;
  sizes: Uint32Array;
  /** 1 + index in the layouts; 0 where the member is no array. */
  layouts: Uint8Array;
}

/** A table as it is stored. */
export interface TableParts {
  header: TableHeader;
  members: Map<string, MemberColumn>;
  columns: Map<string, Float64Array>;
  keyEnds: Uint32Array;
  keyBytes: Buffer;
}

/** Where the table of a shard lies. */
export function tablePath(shard: string): string {
  return join(dirname(shard), `.${basename(shard)}.idx`);
}

/**
 * Hash of some headers of the shard, spread over it: a file that was exchanged for one of the same size and time
 * (copied with its times, or times that a tool makes all equal) is still told apart, unless its names and sizes agree
 * too.
 */
export function probeOf(
  count: number,
  members: readonly MemberColumn[],
  file: { read(offset: number, length: number): Uint8Array },
): string {
  const hash = createHash("sha256");
  const probes = Math.min(8, count);
  for (let j = 0; j < probes; j++) {
    const sample = Math.floor((j * (count - 1)) / Math.max(1, probes - 1));
    const blocks = members.flatMap(({ blocks }) => blocks[sample] || []);
    if (blocks.length > 0) hash.update(file.read((Math.min(...blocks) - 1) * BLOCK_BYTES, BLOCK_BYTES));
  }
  return hash.digest("hex");
}

const padded = (length: number): number => Math.ceil(length / 8) * 8;

function encode({ header, members, columns, keyEnds, keyBytes }: TableParts): Buffer[] {
  const json = Buffer.from(JSON.stringify(header));
  const head = Buffer.alloc(padded(json.length), " ");
  json.copy(head);
  const parts: Buffer[] = [head];
  const add = (view: ArrayBufferView): void => {
    const bytes = Buffer.from(view.buffer, view.byteOffset, view.byteLength);
    parts.push(bytes, Buffer.alloc(padded(bytes.length) - bytes.length));
  };
  for (const { name } of header.extensions) {
    const { blocks, sizes, layouts } = members.get(name)!;
    for (const view of [blocks, sizes, layouts]) add(view);
  }
  add(keyEnds);
  add(keyBytes);
  for (const name of header.columns) add(columns.get(name)!);
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  const preamble = Buffer.alloc(PREAMBLE_BYTES);
  preamble.write(MAGIC, "latin1");
  preamble.writeUInt32LE(head.length, 8);
  hash.digest().copy(preamble, 16);
  return [preamble, ...parts];
}

/** Puts a table beside its shard; false where the folder does not allow it (read-only, full, …). */
export function storeTable(shard: string, parts: TableParts): boolean {
  try {
    writeFileAtomically(tablePath(shard), (write) => {
      for (const part of encode(parts)) write(part);
    });
    return true;
  } catch (error) {
    if (error instanceof TorchError) return false; // a cache: what it would have held is in memory
    throw error;
  }
}

/** Whether bytes begin with the mark and have zeros where they belong, which the hash does not cover. */
function beginsAsTable(bytes: Buffer): boolean {
  return bytes.toString("latin1", 0, 8) === MAGIC && bytes.readUInt32LE(12) === 0;
}

function parseHeader(bytes: Buffer): TableHeader | null {
  try {
    const parsed = headerSchema.safeParse(JSON.parse(bytes.toString("utf8")));
    return parsed.success ? parsed.data : null;
  } catch {
    return null;
  }
}

/** The parts of a stored table, null when they are not what was written. */
function decode(bytes: Buffer): TableParts | null {
  if (bytes.length < PREAMBLE_BYTES || !beginsAsTable(bytes)) return null;
  const headBytes = bytes.readUInt32LE(8);
  if (!createHash("sha256").update(bytes.subarray(PREAMBLE_BYTES)).digest().equals(bytes.subarray(16, PREAMBLE_BYTES)))
    return null;
  const header = parseHeader(bytes.subarray(PREAMBLE_BYTES, PREAMBLE_BYTES + headBytes));
  if (header === null) return null;
  let at = PREAMBLE_BYTES + headBytes;
  const take = (length: number): Buffer => {
    const part = bytes.subarray(at, at + length);
    at += padded(length);
    if (part.length !== length) throw new RangeError("a part is missing");
    return part;
  };
  const n = header.count;
  const uint32 = (): Uint32Array => {
    const part = take(4 * n);
    return new Uint32Array(part.buffer, part.byteOffset, n);
  };
  try {
    const members = new Map<string, MemberColumn>();
    for (const { name } of header.extensions)
      members.set(name, { blocks: uint32(), sizes: uint32(), layouts: new Uint8Array(take(n)) });
    const keyEnds = uint32();
    const keyBytes = take(header.keyBytes);
    const columns = new Map<string, Float64Array>();
    for (const name of header.columns) {
      const part = take(8 * n);
      columns.set(name, new Float64Array(part.buffer, part.byteOffset, n));
    }
    return at === bytes.length ? { header, members, columns, keyEnds, keyBytes } : null;
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

/** The stored header of a shard's table, null when there is none or it is of another file. */
export function readTableHeader(path: string, shard: PositionalFile): TableHeader | null {
  let descriptor: number;
  try {
    descriptor = openSync(tablePath(path), "r");
  } catch {
    return null;
  }
  try {
    if (!fstatSync(descriptor).isFile()) return null;
    const preamble = Buffer.alloc(PREAMBLE_BYTES);
    if (readSync(descriptor, preamble, 0, PREAMBLE_BYTES, 0) < PREAMBLE_BYTES) return null;
    const length = preamble.readUInt32LE(8);
    if (!beginsAsTable(preamble) || length > MAX_HEADER_BYTES) return null;
    const bytes = Buffer.alloc(length);
    if (readSync(descriptor, bytes, 0, length, PREAMBLE_BYTES) < length) return null;
    const header = parseHeader(bytes);
    return header !== null && sameFingerprint(header.fingerprint, shard.fingerprint) ? header : null;
  } catch {
    return null;
  } finally {
    closeSync(descriptor);
  }
}

/** The stored table of a shard, null when there is none, it is damaged, or of another file. */
export function readTable(path: string, shard: PositionalFile): TableParts | null {
  const header = readTableHeader(path, shard);
  if (header === null) return null;
  let parts: TableParts | null;
  try {
    parts = decode(readFileSync(tablePath(path)));
  } catch {
    return null;
  }
  if (parts === null || !sameFingerprint(parts.header.fingerprint, shard.fingerprint)) return null;
  try {
    return probeOf(parts.header.count, [...parts.members.values()], shard) === header.probe ? parts : null;
  } catch (error) {
    if (error instanceof ShardError) return null; // places outside the file: not this file's table
    throw error;
  }
}
