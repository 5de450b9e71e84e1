/**
 * The pages of a Parquet column, checked before hyparquet decodes them. It believes what they say of their lengths: a
 * hundred bytes that announce a run of a billion values end the process, others make it read in a circle.
 * Format: https://parquet.apache.org/docs/file-format/data-pages/
 *
 * Sizes and counts alone are looked at, never the values. What is refused here would be damage for any reader.
 */
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import type { Compressors, SchemaTree } from "hyparquet";
import { deltaBinaryUnpack } from "hyparquet/src/delta.js";
import { compressors as all, decompressZstd } from "hyparquet-compressors";

/** What may still be made of a row group. */
export interface ParquetBudget {
  cells: number;
  /** After decompression. */
  bytes: number;
}

/** A column of a row group. */
export interface ParquetColumn {
  codec: string;
  /** Rows of the group. */
  rows: number;
  /** The schema from its root to the column. */
  path: readonly SchemaTree[];
}

/** Structs and lists in page headers and in the directory. */
const MAX_DEPTH = 32;
const MAX_BLOCK = 2 ** 20;
/** What nesting costs: an array for each value on each level. */
const CELLS_A_LEVEL = 8;

const INT32_BYTES = 5;
const INT64_BYTES = 10;

const DATA_PAGE = 0;
const DICTIONARY_PAGE = 2;
const DATA_PAGE_V2 = 3;

const RLE = 3;
/** Of bits, and of places in a dictionary. */
const RUNS = [RLE, 2, 8];
const DELTA_BINARY_PACKED = 5;
const DELTA_LENGTH_BYTE_ARRAY = 6;
const DELTA_BYTE_ARRAY = 7;

/** hyparquet's does not know how nothing is written, as of a dictionary of no values. */
const lz4: Compressors["LZ4"] = (input, length) => (length === 0 ? new Uint8Array(0) : all.LZ4_RAW!(input, length));

/** Those of hyparquet, or of Node where hyparquet's take as much memory or time as the bytes ask for. */
export const boundedCompressors: Compressors = {
  ...all,
  GZIP: (input, length) => gunzipSync(input, { maxOutputLength: Math.max(1, length) }),
  BROTLI: (input, length) => brotliDecompressSync(input, { maxOutputLength: Math.max(1, length) }),
  ZSTD: (input, length) => decompressZstd(input, new Uint8Array(length)),
  LZ4_RAW: lz4,
  LZ4: (input, length) => (length === 0 || goesBack(input) ? lz4! : all.LZ4!)(input, length),
};

/** Whether what could be Hadoop's frames has a negative length, which hyparquet would follow in a circle. */
function goesBack(input: Uint8Array): boolean {
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  for (let at = 0; at + 8 <= input.length; ) {
    const length = view.getInt32(at + 4);
    if (length < 0) return true;
    at += 8 + length;
  }
  return false;
}

/** Checks a struct of Thrift's compact protocol, such as the directory. @throws Error saying what is wrong */
export function checkThrift(bytes: Uint8Array): void {
  new Thrift(bytes).struct();
}

/**
 * Checks the pages of a column.
 * @param budget of the row group, less what the column takes afterwards
 * @throws Error saying what is wrong
 */
export function checkPages(chunk: Uint8Array, column: ParquetColumn, budget: ParquetBudget): void {
  const { path, rows, codec } = column;
  const levels = path.slice(1).map(({ element }) => element.repetition_type);
  const most = {
    repetition: levels.filter((type) => type === "REPEATED").length,
    definition: levels.filter((type) => type !== "REQUIRED").length,
  };
  const isBoolean = path.at(-1)!.element.type === "BOOLEAN";
  const isFlat = path.length === 2 && most.repetition === 0;
  const weight = 1 + CELLS_A_LEVEL * (path.length - 2);
  let seen = 0;
  for (let at = 0; at < chunk.length - 1 && !(isFlat && seen >= rows); ) {
    const thrift = new Thrift(chunk, at);
    const header = thrift.struct();
    const [type, size, stored] = [integer(header, 1), integer(header, 2), integer(header, 3)];
    const end = thrift.at + stored;
    if (end > chunk.length) throw new Error("a page leaves its column");
    const data = chunk.subarray(thrift.at, end);
    at = end;
    budget.bytes -= size;
    const take = (cells: number) => {
      budget.cells -= cells * weight;
      if (budget.cells < 0 || budget.bytes < 0) throw new Error("a row group holds too much for the size of the file");
    };
    const decompress = (bytes: Uint8Array, length: number) => decompressed(codec, bytes, length);
    if (type === DICTIONARY_PAGE) take(integer(part(header, 7), 1));
    else if (type === DATA_PAGE) {
      const own = part(header, 5);
      const count = integer(own, 1);
      take(count);
      seen += count;
      const page = decompress(data, size);
      let from = 0;
      let filled = count;
      for (const [level, counts] of [
        [most.repetition, false],
        [most.definition, true],
      ] as const) {
        if (level === 0) continue;
        const length = uint32(page, from);
        const top = runs(page, from + 4, { length, width: bitsOf(level), count, top: level });
        if (counts) filled = top;
        from += 4 + length;
      }
      checkValues(page, { from, count: filled, encoding: integer(own, 2), isPrefixed: isBoolean }, budget);
    } else if (type === DATA_PAGE_V2) {
      const own = part(header, 8);
      const [count, nulls, , encoding, definition, repetition] = [1, 2, 3, 4, 5, 6].map((id) => integer(own, id));
      take(count!);
      seen += count!;
      const before = repetition! + definition!;
      if (nulls! > count! || before > Math.min(size, data.length)) throw new Error("a page with wrong counts");
      for (const [level, from, length] of [
        [most.repetition, 0, repetition!],
        [most.definition, repetition!, definition!],
      ] as const)
        if (level > 0) runs(data, from, { length, width: bitsOf(level), count: count! });
      const isCompressed = own.get(7) !== false;
      const values = data.subarray(before);
      const page = isCompressed ? decompress(values, size - before) : values;
      const isPrefixed = encoding === RLE;
      checkValues(page, { from: 0, count: count! - nulls!, encoding: encoding!, isPrefixed }, budget);
    } else throw new Error(`a page of the unknown type ${type}`);
    take(0);
  }
}

function decompressed(codec: string, bytes: Uint8Array, length: number): Uint8Array {
  if (codec === "UNCOMPRESSED") return bytes;
  const decompress = boundedCompressors[codec as keyof Compressors];
  if (decompress === undefined) throw new Error(`a column is compressed by ${codec}`);
  return decompress(bytes, length);
}

interface PageValues {
  from: number;
  count: number;
  encoding: number;
  /** Runs say how long they are, and are of one bit; else the first byte says of how many bits. */
  isPrefixed: boolean;
}

function checkValues(page: Uint8Array, { from, count, encoding, isPrefixed }: PageValues, budget: ParquetBudget): void {
  if (RUNS.includes(encoding)) {
    if (isPrefixed) runs(page, from + 4, { length: uint32(page, from), width: 1, count });
    else if (from < page.length) runs(page, from + 1, { length: page.length - from - 1, width: page[from]!, count });
  } else if (encoding === DELTA_BINARY_PACKED || encoding === DELTA_LENGTH_BYTE_ARRAY) deltas(page, from, count);
  else if (encoding === DELTA_BYTE_ARRAY) {
    // Each text begins as the one before it does, so that short pages make long texts.
    deltas(page, deltas(page, from, count), count);
    const reader = { view: new DataView(page.buffer, page.byteOffset, page.byteLength), offset: from };
    const [prefixes, suffixes] = [new Int32Array(count), new Int32Array(count)];
    for (const lengths of [prefixes, suffixes]) deltaBinaryUnpack(reader, count, lengths);
    for (let i = 0; i < count; i++) if (prefixes[i]! > 0) budget.bytes -= prefixes[i]! + Math.max(0, suffixes[i]!);
  }
}

/**
 * Follows runs of repeated and of packed values.
 * @param top a value to count
 * @returns how many values are `top`
 */
function runs(
  bytes: Uint8Array,
  from: number,
  { length, width, count, top }: { length: number; width: number; count: number; top?: number },
): number {
  if (from + length > bytes.length) throw new Error("levels or values leave their page");
  if (width > 32) throw new Error(`values of ${width} bits`);
  const thrift = new Thrift(bytes, from);
  let found = 0;
  for (let left = count; left > 0; ) {
    const header = thrift.varint(INT32_BYTES);
    const isPacked = header % 2 === 1;
    const run = Math.floor(header / 2) * (isPacked ? 8 : 1);
    // The last group of eight may be filled up; where values take no bits nothing else ends a run.
    if (isPacked ? run === 0 || (width === 0 && run > left + 7) : run > left)
      throw new Error(`a run of ${run} values where ${left} are left`);
    const start = thrift.at;
    thrift.skip(isPacked ? Math.max(1, (run / 8) * width) : Math.ceil(width / 8));
    if (top !== undefined) {
      if (!isPacked) found += numberAt(bytes, start * 8, Math.ceil(width / 8) * 8) === top ? run : 0;
      else
        for (let i = 0; i < Math.min(run, left); i++)
          if (numberAt(bytes, start * 8 + i * width, width) === top) found++;
    }
    left -= run;
  }
  return found;
}

/** An unsigned number of some bits, the lowest first. */
function numberAt(bytes: Uint8Array, bit: number, width: number): number {
  let value = 0;
  for (let i = 0; i < width; i++) value += ((bytes[(bit + i) >> 3]! >> ((bit + i) & 7)) & 1) * 2 ** i;
  return value;
}

/** Follows packed differences. @returns the byte behind them */
function deltas(bytes: Uint8Array, from: number, count: number): number {
  const thrift = new Thrift(bytes, from);
  const [block, miniblocks] = [thrift.varint(INT32_BYTES), thrift.varint(INT32_BYTES)];
  const each = block / miniblocks;
  if (!(each % 8 === 0 && each > 0 && block <= MAX_BLOCK))
    throw new Error(`${miniblocks} miniblocks of ${block} values`);
  thrift.varint(INT32_BYTES);
  thrift.varint(INT64_BYTES);
  for (let left = count - 1; left > 0; ) {
    thrift.varint(INT64_BYTES);
    const widths = thrift.at;
    thrift.skip(miniblocks);
    for (let i = 0; i < miniblocks && left > 0; i++, left -= each) thrift.skip((each * bytes[widths + i]!) / 8);
  }
  return thrift.at;
}

type Field = number | boolean | Struct | null;
type Struct = Map<number, Field>;

/** Thrift's compact protocol; of values that are not needed only the length is looked at. */
class Thrift {
  constructor(
    readonly bytes: Uint8Array,
    public at = 0,
  ) {}

  skip(length: number): void {
    this.at += length;
    if (this.at > this.bytes.length) throw new Error("it ends within a value");
  }

  byte(): number {
    this.skip(1);
    return this.bytes[this.at - 1]!;
  }

  /** Seven bits a byte, the lowest first. */
  varint(mostBytes: number): number {
    let value = 0;
    for (let i = 0; i < mostBytes; i++) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** (7 * i);
      if (byte >= 0x80) continue;
      if (mostBytes === INT32_BYTES && value > 0xffffffff) break;
      return value;
    }
    throw new Error("a number is too long");
  }

  struct(depth = 0): Struct {
    if (depth > MAX_DEPTH) throw new Error("it is nested too deeply");
    const fields: Struct = new Map();
    for (let id = 0; ; ) {
      const byte = this.byte();
      if (byte % 16 === 0) return fields;
      id = byte < 16 ? zigzag(this.varint(INT32_BYTES)) : id + (byte >> 4);
      fields.set(id, this.#element(byte % 16, depth));
    }
  }

  #element(type: number, depth: number): Field {
    switch (type) {
      case 1:
      case 2:
        return type === 1;
      case 4:
      case 5:
        return zigzag(this.varint(INT32_BYTES));
      case 12:
        return this.struct(depth + 1);
      case 3:
        this.skip(1);
        break;
      case 6:
        this.varint(INT64_BYTES);
        break;
      case 7:
        this.skip(8);
        break;
      case 8:
        this.skip(this.varint(INT32_BYTES));
        break;
      case 9:
        this.#list(depth);
        break;
      default:
        throw new Error(`a value of the unknown type ${type}`);
    }
    return null;
  }

  #list(depth: number): void {
    if (depth > MAX_DEPTH) throw new Error("it is nested too deeply");
    const byte = this.byte();
    const type = byte % 16;
    for (let left = byte >= 0xf0 ? this.varint(INT32_BYTES) : byte >> 4; left > 0; left--)
      this.#element(type <= 2 ? 3 : type, depth + 1);
  }
}

function zigzag(value: number): number {
  return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
}

function integer(fields: Struct, id: number): number {
  const value = fields.get(id);
  if (typeof value !== "number" || value < 0) throw new Error("a page header without its sizes");
  return value;
}

function part(fields: Struct, id: number): Struct {
  const value = fields.get(id);
  if (!(value instanceof Map)) throw new Error("a page header without its description");
  return value;
}

function uint32(bytes: Uint8Array, at: number): number {
  if (at + 4 > bytes.length) throw new Error("levels or values leave their page");
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true);
}

function bitsOf(level: number): number {
  return 32 - Math.clz32(level);
}
