/**
 * The pages of a Parquet column, checked before hyparquet decodes them. It believes what they say of their lengths: a
 * hundred bytes that announce a run of a billion values end the process, others make it read in a circle.
 * Format: https://parquet.apache.org/docs/file-format/data-pages/
 *
 * Sizes, counts and places in dictionaries are looked at, never the values. What is refused here would be damage for
 * any reader; hyparquet leaves cells empty in its place, or takes what lies behind a page for a part of it.
 */
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import type { Compressors, ParquetType, SchemaElement, SchemaTree } from "hyparquet";
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
  codec: string | undefined;
  /** Rows of the group. */
  rows: number;
  /** The schema from its root to the column. */
  path: readonly SchemaTree[];
}

/** Bytes of a value that is written as it is; others have a length of their own. */
const WIDTHS: Partial<Record<ParquetType, number>> = { INT32: 4, INT64: 8, INT96: 12, FLOAT: 4, DOUBLE: 8 };

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

const PLAIN = 0;
const RLE = 3;
/** Of bits, and of places in a dictionary. */
const RUNS = [RLE, 2, 8];
/** Places of more bits are read wrongly where they are packed. No dictionary is as large. */
const MAX_PLACE_BITS = 24;
const DELTA_BINARY_PACKED = 5;
const DELTA_LENGTH_BYTE_ARRAY = 6;
const DELTA_BYTE_ARRAY = 7;
const BYTE_STREAM_SPLIT = 9;

/** hyparquet's does not know how nothing is written, as of a dictionary of no values. */
const lz4 = (input: Uint8Array, length: number) => (length === 0 ? new Uint8Array(0) : all.LZ4_RAW!(input, length));

/** Those of hyparquet, or of Node where hyparquet's take as much memory or time as the bytes ask for. */
export const boundedCompressors: Compressors = {
  ...all,
  GZIP: (input, length) => gunzipSync(input, { maxOutputLength: Math.max(1, length) }),
  BROTLI: (input, length) => brotliDecompressSync(input, { maxOutputLength: Math.max(1, length) }),
  ZSTD: (input, length) => decompressZstd(input, new Uint8Array(length)),
  LZ4_RAW: lz4,
  LZ4: (input, length) => (length === 0 || goesBack(input) ? lz4 : all.LZ4!)(input, length),
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
  const { element } = path.at(-1)!;
  const isFlat = path.length === 2 && most.repetition === 0;
  const weight = 1 + CELLS_A_LEVEL * (path.length - 2);
  let seen = 0;
  /** Values in the dictionary. */
  let places = 0;
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
    if (type === DICTIONARY_PAGE) {
      places = integer(part(header, 7), 1);
      take(places);
      plain(decompress(data, size), 0, places, element);
    } else if (type === DATA_PAGE) {
      const own = part(header, 5);
      const count = integer(own, 1);
      take(count);
      const page = decompress(data, size);
      let from = 0;
      /** Follows the levels at `from`. @returns how many are `counted` */
      const levels = (most: number, counted: number): number => {
        if (most === 0) return count;
        const length = uint32(page, from);
        from += 4 + length;
        return runs(page, from - length, { length, width: bitsOf(most), count, most, counted });
      };
      seen += levels(most.repetition, 0);
      const filled = levels(most.definition, most.definition);
      const isPrefixed = element.type === "BOOLEAN";
      checkValues(page, { from, count: filled, encoding: integer(own, 2), isPrefixed, element, places }, budget);
    } else if (type === DATA_PAGE_V2) {
      const own = part(header, 8);
      const [count, nulls, begun, encoding, definition, repetition] = [1, 2, 3, 4, 5, 6].map((id) => integer(own, id));
      take(count!);
      const before = repetition! + definition!;
      if (before > Math.min(size, data.length)) throw new Error("a page with wrong counts");
      const levels = (most: number, counted: number, from: number, length: number): number =>
        most === 0 ? count! : runs(data, from, { length, width: bitsOf(most), count: count!, most, counted });
      const filled = levels(most.definition, most.definition, repetition!, definition!);
      if (levels(most.repetition, 0, 0, repetition!) !== begun || count! - filled !== nulls)
        throw new Error("a page with wrong counts");
      seen += begun;
      const isCompressed = own.get(7) !== false;
      const values = data.subarray(before);
      const page = isCompressed ? decompress(values, size - before) : values;
      const isPrefixed = encoding === RLE;
      checkValues(page, { from: 0, count: filled, encoding: encoding!, isPrefixed, element, places }, budget);
    } else throw new Error(`a page of the unknown type ${type}`);
    take(0);
  }
  if (seen !== rows) throw new Error(`a column has ${seen} rows, its row group ${rows}`);
}

function decompressed(codec: string | undefined, bytes: Uint8Array, length: number): Uint8Array {
  if (codec === "UNCOMPRESSED") return bytes;
  const decompress = boundedCompressors[codec as keyof Compressors];
  if (decompress === undefined) throw new Error(`a column is compressed by ${codec ?? "no known method"}`);
  return decompress(bytes, length);
}

interface PageValues {
  from: number;
  count: number;
  encoding: number;
  /** Runs say how long they are, and are of one bit; else the first byte says of how many bits. */
  isPrefixed: boolean;
  element: SchemaElement;
  /** Values in the dictionary. */
  places: number;
}

function checkValues(page: Uint8Array, values: PageValues, budget: ParquetBudget): void {
  const { from, count, encoding, isPrefixed, element, places } = values;
  if (encoding === PLAIN) plain(page, from, count, element);
  else if (RUNS.includes(encoding)) {
    if (isPrefixed) runs(page, from + 4, { length: uint32(page, from), width: 1, count });
    else if (count > 0) {
      const [width, length] = [page[from], page.length - from - 1];
      if (width === undefined || places === 0) throw new Error("values of a dictionary that is not there");
      if (width > MAX_PLACE_BITS) throw new Error(`values of ${width} bits`);
      // Where all are the first one, that they take no bits says it all.
      if (width > 0 || length > 0) runs(page, from + 1, { length, width, count, most: places - 1 });
    }
  } else if (encoding === DELTA_BINARY_PACKED) deltas(page, from, count);
  else if (encoding === DELTA_LENGTH_BYTE_ARRAY) {
    const end = deltas(page, from, count);
    fits(page, end, unpacked(page, from, count)[0]!);
  } else if (encoding === DELTA_BYTE_ARRAY) {
    // Each text begins as the one before it does, so that short pages make long texts.
    const end = deltas(page, deltas(page, from, count), count);
    const [prefixes, suffixes] = unpacked(page, from, count, 2) as [Int32Array, Int32Array];
    for (let i = 0, before = 0; i < count; i++) {
      if (prefixes[i]! < 0 || prefixes[i]! > before) throw new Error("a text begins with more than there is before it");
      before = prefixes[i]! + suffixes[i]!;
      if (prefixes[i]! > 0) budget.bytes -= before;
    }
    fits(page, end, suffixes);
  } else if (encoding !== BYTE_STREAM_SPLIT) throw new Error(`values of the unknown encoding ${encoding}`);
}

/** The lists of lengths from `from` on, which {@link deltas} has followed. */
function unpacked(page: Uint8Array, from: number, count: number, lists = 1): Int32Array[] {
  const reader = { view: new DataView(page.buffer, page.byteOffset, page.byteLength), offset: from };
  return Array.from({ length: lists }, () => {
    const lengths = new Int32Array(count);
    deltaBinaryUnpack(reader, count, lengths);
    return lengths;
  });
}

/** Checks that values of these lengths lie in their page. */
function fits(page: Uint8Array, from: number, lengths: Int32Array): void {
  let left = page.length - from;
  for (const length of lengths) {
    left -= length;
    if (length < 0 || left < 0) throw new Error("levels or values leave their page");
  }
}

/** Checks that values that are written as they are lie in their page. */
function plain(page: Uint8Array, from: number, count: number, { type, type_length: length }: SchemaElement): void {
  let end = from;
  if (type === "BOOLEAN") end += Math.ceil(count / 8);
  else if (type === "BYTE_ARRAY") for (let i = 0; i < count; i++) end += 4 + uint32(page, end);
  else end += count * (WIDTHS[type!] ?? length ?? 0);
  if (end > page.length) throw new Error("levels or values leave their page");
}

/**
 * Follows runs of repeated and of packed values.
 * @param most no value may be more; default: none is looked at
 * @param counted a value to count
 * @returns how many values are `counted`
 */
function runs(
  bytes: Uint8Array,
  from: number,
  options: { length: number; width: number; count: number; most?: number; counted?: number },
): number {
  const { length, width, count, most, counted } = options;
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
    if (most !== undefined) {
      const values = isPacked ? Math.min(run, left) : 1;
      const each = isPacked ? 1 : run;
      const reader = packed(bytes, start, isPacked ? width : Math.ceil(width / 8) * 8);
      for (let i = 0; i < values; i++) {
        const value = reader();
        if (value > most) throw new Error(`the value ${value} where ${most} is the most`);
        if (value === counted) found += each;
      }
    }
    left -= run;
  }
  return found;
}

/** Reads unsigned numbers of at most 24 bits, the lowest bits first. */
function packed(bytes: Uint8Array, at: number, width: number): () => number {
  let [waiting, bits] = [0, 0];
  return () => {
    for (; bits < width; bits += 8) waiting |= bytes[at++]! << bits;
    const value = waiting & (2 ** width - 1);
    waiting >>>= width;
    bits -= width;
    return value;
  };
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
