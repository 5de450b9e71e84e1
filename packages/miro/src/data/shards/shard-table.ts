/**
 * What a shard holds and where, learnt once: for each sample its key, where each member's content lies, how its arrays are laid
 * out, and the numbers of its metadata. With it, reading a sample is a few positional reads, and bins, filters and rewards need
 * neither JSON nor headers.
 *
 * The table is kept beside the shard as `.NAME.tar.idx` and used as long as the shard has the size and time that it was made
 * from; where the folder cannot be written it lives in memory. The file is a cache of this package, little-endian:
 *
 *   "MIROIDX2", length of the header (uint32), 4 zero bytes, SHA-256 of all that follows, header (JSON, padded to 8 with spaces),
 *   then for each extension: blocks (uint32 × n), sizes (uint32 × n), layouts (uint8 × n); keys: ends (uint32 × n), bytes (UTF-8);
 *   columns (float64 × n each); each part padded to 8 bytes
 */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync, readFileSync, readSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { type DType, itemSize, TorchError } from "@miro-t2i/torch";
import { FormatError, readNpyHeader, writeFileAtomically } from "@miro-t2i/torch/io";
import { z } from "zod";
import { numberField, parseMetadata } from "./metadata.js";
import { type FileFingerprint, PositionalFile, sameFingerprint } from "./positional-file.js";
import type { TarMember } from "./sample-key.js";
import { ShardError, type ShardProblem } from "./shard-error.js";
import { TarFile } from "./tar-file.js";
import { BLOCK_BYTES } from "./tar-header.js";

const MAGIC = "MIROIDX2";
const PREAMBLE_BYTES = 8 + 4 + 4 + 32;
/** Metadata of a sample are some kilobytes; more is an attack on the reader's memory. */
const MAX_JSON_BYTES = 16 * 2 ** 20;
/** Numeric fields that are kept, in order of appearance. */
const MAX_COLUMNS = 256;
const MAX_EXTENSIONS = 256;
const MAX_LAYOUTS = 255;
/** Problems that are kept; more of them are counted. */
const MAX_PROBLEMS = 100;
/** Shards that end early may still be growing: their table is not kept. */
const UNFINISHED = new Set(["MissingEnd", "TruncatedHeader", "TruncatedMember"]);

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

/** Where an array lies and what it is. */
export interface ArrayPlace {
  dtype: DType;
  shape: number[];
  /** Where its values begin, in bytes from the start of the shard. */
  offset: number;
  sizeBytes: number;
}

interface MemberColumn {
  /** Content offset in blocks; 0 where the sample lacks the member. */
  blocks: Uint32Array;
  sizes: Uint32Array;
  /** 1 + index in the layouts; 0 where the member is no array. */
  layouts: Uint8Array;
}

export class ShardTable {
  readonly #members: ReadonlyMap<string, MemberColumn & { known: readonly ArrayLayout[] }>;

  private constructor(
    /** The shard. */
    readonly path: string,
    readonly header: TableHeader,
    /** Numbers at the top level of each sample's metadata, NaN where there is none; in samples' order. */
    readonly columns: ReadonlyMap<string, Float64Array>,
    private readonly keyEnds: Uint32Array,
    private readonly keyBytes: Buffer,
    members: ReadonlyMap<string, MemberColumn>,
    /** Whether the table lies beside the shard. */
    readonly stored: boolean,
  ) {
    this.#members = new Map(
      header.extensions.map(({ name, layouts }) => [name, { ...members.get(name)!, known: layouts }]),
    );
  }

  /**
   * The table of a shard: the one beside it when it belongs to this very file, else made anew and put there.
   * @throws ShardError when the shard cannot be read at all, or changes meanwhile
   */
  static load(path: string): ShardTable {
    const file = PositionalFile.open(path);
    try {
      return readTable(path, file) ?? ShardTable.build(path);
    } finally {
      file.close();
    }
  }

  /** The header of the table beside a shard when it belongs to this very file, else that of one made anew. */
  static header(path: string): TableHeader {
    const file = PositionalFile.open(path);
    try {
      return readHeader(path, file) ?? ShardTable.build(path).header;
    } finally {
      file.close();
    }
  }

  /** Whether a shard has a table beside it that belongs to this very file. */
  static isStored(path: string): boolean {
    let file: PositionalFile;
    try {
      file = PositionalFile.open(path);
    } catch (error) {
      if (error instanceof ShardError) return false;
      throw error;
    }
    try {
      return readHeader(path, file) !== null;
    } finally {
      file.close();
    }
  }

  /** Makes the table from the shard and puts it beside it where the folder allows. */
  static build(path: string): ShardTable {
    const tar = TarFile.open(path, { policy: "skip" });
    let parts: TableParts;
    try {
      parts = scan(tar);
      if (tar.isStale())
        throw new ShardError({ path, rule: "Changed", message: "the file changed while it was indexed" });
    } finally {
      tar.close();
    }
    const unfinished = parts.header.problems.some(({ rule }) => UNFINISHED.has(rule));
    const stored = !unfinished && store(tablePath(path), encode(parts));
    const { header, columns, keyEnds, keyBytes, members } = parts;
    return new ShardTable(path, header, columns, keyEnds, keyBytes, members, stored);
  }

  /** @internal */
  static decode(path: string, bytes: Buffer): ShardTable | null {
    const parts = decode(bytes);
    if (parts === null) return null;
    return new ShardTable(path, parts.header, parts.columns, parts.keyEnds, parts.keyBytes, parts.members, true);
  }

  /** @internal Hash of some headers of the shard. */
  probe(file: { read(offset: number, length: number): Uint8Array }): string {
    return probe(this.count, [...this.#members.values()], file);
  }

  /** Number of samples. */
  get count(): number {
    return this.header.count;
  }

  get fingerprint(): FileFingerprint {
    return this.header.fingerprint;
  }

  /** What is wrong with the shard, at most a hundred of `header.problemCount`. */
  get problems(): readonly TableProblem[] {
    return this.header.problems;
  }

  /** Extensions of its members, in order of appearance. */
  get extensions(): string[] {
    return [...this.#members.keys()];
  }

  /** Memory that the table takes. */
  get sizeBytes(): number {
    return this.count * (9 * this.#members.size + 8 * this.columns.size + 4) + this.keyBytes.length;
  }

  /** Key of a sample. */
  key(sample: number): string {
    return this.keyBytes.toString("utf8", sample === 0 ? 0 : this.keyEnds[sample - 1]!, this.keyEnds[sample]!);
  }

  /** Whether a sample has a member that can be read. */
  has(sample: number, extension: string): boolean {
    return (this.#members.get(extension)?.blocks[sample] ?? 0) > 0;
  }

  /** Where a member's content lies, null when the sample has none. */
  member(sample: number, extension: string): TarMember | null {
    const column = this.#members.get(extension);
    const block = column?.blocks[sample] ?? 0;
    if (column === undefined || block === 0) return null;
    return { name: `${this.key(sample)}.${extension}`, offset: block * BLOCK_BYTES, size: column.sizes[sample]! };
  }

  /** Where an array lies, null when the sample has no such member or it is no array. */
  array(sample: number, extension: string): ArrayPlace | null {
    const column = this.#members.get(extension);
    const layout = column?.known[(column.layouts[sample] ?? 0) - 1];
    if (column === undefined || layout === undefined) return null;
    const { dtype, row, dataStart } = layout;
    const sizeBytes = column.sizes[sample]! - dataStart;
    const rowBytes = row?.reduce((product, size) => product * size, itemSize(dtype));
    return {
      dtype,
      shape: row === null ? [] : [sizeBytes / rowBytes!, ...row],
      offset: column.blocks[sample]! * BLOCK_BYTES + dataStart,
      sizeBytes,
    };
  }

  /** A number of a sample's metadata, NaN when there is none of that name. */
  value(sample: number, column: string): number {
    return this.columns.get(column)?.[sample] ?? Number.NaN;
  }
}

/** Where the table of a shard lies. */
export function tablePath(shard: string): string {
  return join(dirname(shard), `.${basename(shard)}.idx`);
}

interface TableParts {
  header: TableHeader;
  members: Map<string, MemberColumn>;
  columns: Map<string, Float64Array>;
  keyEnds: Uint32Array;
  keyBytes: Buffer;
}

/** Reads what there is to know in a shard. */
function scan(tar: TarFile): TableParts {
  const { path } = tar;
  const problems: TableProblem[] = [];
  let problemCount = 0;
  const report = (problem: TableProblem): void => {
    if (problemCount++ < MAX_PROBLEMS) problems.push({ ...problem, message: problem.message.slice(0, 300) });
  };
  for (const problem of tar.problems) report(problem);

  const samples = tar.samples();
  const columns = new Map<string, Float64Array>();
  const members = new Map<string, MemberColumn & { known: LayoutList }>();
  for (const [i, sample] of samples.entries()) {
    for (const { name, offset } of sample.duplicates) {
      const message = "another member of the sample has this extension; the first one counts";
      report({ path, rule: "DuplicateMember", message, member: name, byteOffset: offset });
    }
    for (const [extension, member] of sample.members) {
      const bad = (rule: string, message: string, byteOffset = member.offset): void =>
        report({ path, rule, message, member: member.name, byteOffset, extension });
      let column = members.get(extension);
      if (column === undefined) {
        if (members.size === MAX_EXTENSIONS) {
          bad("TooManyExtensions", `more than ${MAX_EXTENSIONS} different extensions; this one is left out`);
          continue;
        }
        const n = samples.length;
        column = {
          blocks: new Uint32Array(n),
          sizes: new Uint32Array(n),
          layouts: new Uint8Array(n),
          known: new LayoutList(),
        };
        members.set(extension, column);
      }
      if (member.size >= 2 ** 32 || member.offset >= 2 ** 32 * BLOCK_BYTES) {
        bad("MemberTooLarge", `a member of ${member.size} bytes at ${member.offset}`);
        continue;
      }
      if (extension.endsWith(".npy") || extension === "npy") {
        const layout = column.known.of(tar, member, bad);
        if (layout === 0) continue;
        column.layouts[i] = layout;
      } else if (extension === "json" && !addNumbers(columns, samples.length, i, tar, member, bad)) continue;
      column.blocks[i] = member.offset / BLOCK_BYTES;
      column.sizes[i] = member.size;
    }
  }
  const keys = samples.map(({ key }) => Buffer.from(key));
  const keyEnds = new Uint32Array(keys.length);
  for (let i = 0, end = 0; i < keys.length; i++) keyEnds[i] = end += keys[i]!.length;
  const keyBytes = Buffer.concat(keys);
  const file = { read: (offset: number, size: number) => tar.read({ name: "", offset, size }) };
  return {
    header: {
      fingerprint: tar.fingerprint,
      probe: probe(samples.length, [...members.values()], file),
      count: samples.length,
      keyBytes: keyBytes.length,
      extensions: [...members].map(([name, { blocks, known }]) => ({
        name,
        present: blocks.reduce((sum, block) => sum + (block > 0 ? 1 : 0), 0),
        layouts: known.list,
      })),
      columns: [...columns.keys()],
      problems,
      problemCount,
    },
    members,
    columns,
    keyEnds,
    keyBytes,
  };
}

/**
 * Hash of some headers of the shard, spread over it: a file that was exchanged for one of the same size and time (copied with its
 * times, or times that a tool makes all equal) is still told apart, unless its names and sizes agree too.
 */
function probe(
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

type Bad = (rule: string, message: string, byteOffset?: number) => void;

/** The different layouts of one extension's arrays. */
class LayoutList {
  readonly list: ArrayLayout[] = [];
  /** By header and size of the member: nearly all repeat. */
  readonly #seen = new Map<string, number>();

  /** 1 + the index of an array's layout, 0 when it cannot be used. */
  of(tar: TarFile, member: TarMember, bad: Bad): number {
    const start = tar.readStart(member, 128);
    const key = `${member.size} ${start.toString("latin1")}`;
    const known = this.#seen.get(key);
    if (known !== undefined) return known;
    const index = this.read(tar, member, bad);
    const whole = start.length === 128 && start[6] === 1 && start.readUInt16LE(8) + 10 <= 128;
    if (index > 0 && whole && this.#seen.size < 10_000) this.#seen.set(key, index);
    return index;
  }

  private read(tar: TarFile, member: TarMember, bad: Bad): number {
    let layout: ArrayLayout;
    try {
      const { dtype, fortranOrder, shape, dataStart } = readNpyHeader({
        path: tar.path,
        sizeBytes: member.size,
        read: (offset, length) => tar.readStart(member, offset + length).subarray(offset),
      });
      if (fortranOrder && shape.filter((size) => size !== 1).length > 1) {
        bad("FortranOrder", "an array in Fortran order; store it in C order (numpy.ascontiguousarray)");
        return 0;
      }
      const row = shape.length === 0 ? null : shape.slice(1);
      if (row?.includes(0)) {
        bad("EmptyArray", `an array of shape (${shape}) holds nothing`);
        return 0;
      }
      layout = { dtype: dtype as ArrayLayout["dtype"], row, dataStart };
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      bad(error.rule, error.message.replace(/^.*?: /, ""), member.offset + (error.byteOffset ?? 0));
      return 0;
    }
    const text = JSON.stringify(layout);
    const index = this.list.findIndex((other) => JSON.stringify(other) === text);
    if (index >= 0) return index + 1;
    if (this.list.length === MAX_LAYOUTS) {
      bad("TooManyLayouts", `more than ${MAX_LAYOUTS} different shapes or types of one member`);
      return 0;
    }
    return this.list.push(layout);
  }
}

/** Takes the numbers of a sample's metadata into the columns. */
function addNumbers(
  columns: Map<string, Float64Array>,
  count: number,
  sample: number,
  tar: TarFile,
  member: TarMember,
  bad: Bad,
): boolean {
  if (member.size > MAX_JSON_BYTES) {
    bad("JsonTooLarge", `metadata of ${member.size} bytes, at most ${MAX_JSON_BYTES}`);
    return false;
  }
  let metadata: Record<string, unknown>;
  try {
    metadata = parseMetadata(tar.readStart(member, member.size));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    bad("BadJson", `the metadata cannot be read: ${error.message.split("\n")[0]}`);
    return false;
  }
  for (const name of Object.keys(metadata)) {
    const number = numberField(metadata, name);
    if (Number.isNaN(number)) continue;
    let column = columns.get(name);
    if (column === undefined) {
      if (columns.size === MAX_COLUMNS) {
        bad(
          "TooManyFields",
          `more than ${MAX_COLUMNS} numeric fields; ${JSON.stringify(name.slice(0, 60))} is left out`,
        );
        break;
      }
      column = new Float64Array(count).fill(Number.NaN);
      columns.set(name, column);
    }
    column[sample] = number;
  }
  return true;
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

/** Writes the table; false where the folder does not allow it (read-only, full, …). */
function store(path: string, parts: readonly Buffer[]): boolean {
  try {
    writeFileAtomically(path, (write) => {
      for (const part of parts) write(part);
    });
    return true;
  } catch (error) {
    if (error instanceof TorchError) return false; // a cache: what it would have held is in memory
    throw error;
  }
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
  if (bytes.length < PREAMBLE_BYTES || bytes.toString("latin1", 0, 8) !== MAGIC) return null;
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
function readHeader(path: string, shard: PositionalFile): TableHeader | null {
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
    if (preamble.toString("latin1", 0, 8) !== MAGIC || length > MAX_JSON_BYTES) return null;
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
function readTable(path: string, shard: PositionalFile): ShardTable | null {
  const header = readHeader(path, shard);
  if (header === null) return null;
  let table: ShardTable | null;
  try {
    table = ShardTable.decode(path, readFileSync(tablePath(path)));
  } catch {
    return null;
  }
  if (table === null || !sameFingerprint(table.fingerprint, shard.fingerprint)) return null;
  try {
    return table.probe(shard) === header.probe ? table : null;
  } catch (error) {
    if (error instanceof ShardError) return null; // places outside the file: not this file's table
    throw error;
  }
}
