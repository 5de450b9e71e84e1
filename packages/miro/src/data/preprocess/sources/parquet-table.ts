/**
 * Tables in Parquet, read by hyparquet. A table may come from a stranger: every damage is one InvalidInputError that
 * names the file.
 *
 * hyparquet reads columns at the same time, and what it throws before it waits for them leaves the others' failures
 * without anybody who hears of them, which ends the process. So the directory is checked before anything is read, and
 * reading from the file never throws at once.
 */
import { open, stat } from "node:fs/promises";
import type { AsyncBuffer, ColumnMetaData, FileMetaData, RowGroup, SchemaTree } from "hyparquet";
import { describe, InvalidInputError, MiroError, systemReason } from "../../../errors.js";
import { type PythonJson, parsePythonJson } from "../../../files/python-json.js";

/** More rows are no table of captions. */
const MAX_ROWS = 2 ** 31;
/** Of a row group, whose columns are decoded whole. Writers make them of a million rows, older ones of 64 million. */
const MAX_GROUP_ROWS = 2 ** 26;
/** Cells and bytes that a row group may have whatever its size in the file is. */
const GROUP_CELLS = 2 ** 26;
const GROUP_BYTES = 2 ** 28;
/** Of a row group whose rows are kept while some of them are still to be asked for. */
const KEPT_CELLS = 1_000_000;
const MAX_COLUMNS = 10_000;
/** Groups within groups. */
const MAX_DEPTH = 100;

/** The mark `PAR1` in front, and behind the directory its length and the mark again. */
const MARK = 0x50415231;
const START_BYTES = 4;
const END_BYTES = 8;

/** A cell as hyparquet gives it: texts as strings, other bytes as Uint8Array, structs as objects. */
export type ParquetRow = Record<string, unknown>;

/** What cells hold, as the schema says it: the value 1 alone does not tell whether it is a whole number or a float. */
export interface ParquetKind {
  isInteger: boolean;
  /** What the items of a list hold. */
  item(): ParquetKind;
  /** What a field of a struct, or the values of a map, hold. */
  field(name: string): ParquetKind;
}

/** A table whose directory was read and checked. */
export interface ParquetTable {
  path: string;
  rows: number;
  /** The names of the columns. */
  columns: string[];
  /** Whether a column holds bytes, or structs with a field `bytes`, in place of texts. */
  holdsBytes(column: string): boolean;
  /** What the cells of a column hold. */
  kindOf(column: string): ParquetKind;
  /** Reads rows from `start` to before `end`. @throws InvalidInputError */
  read(start: number, end: number): Promise<ParquetRow[]>;
}

/** Opens a table. @throws InvalidInputError for what is no Parquet, cut or damaged */
export async function openParquet(path: string): Promise<ParquetTable> {
  const [{ parquetMetadata, parquetReadObjects, parquetSchema }, { boundedCompressors, checkPages, checkThrift }] =
    await Promise.all([import("hyparquet"), import("./parquet-pages.js")]);
  return orNamed(path, async () => {
    const { size } = await stat(path);
    const file = { byteLength: size, slice: (start: number, end = size) => readSlice(path, size, start, end) };
    const directory = await readDirectory(file);
    checkThrift(new Uint8Array(directory, 0, directory.byteLength - END_BYTES));
    const metadata = parquetMetadata(directory, { geoparquet: false });
    if (metadata.schema.length > MAX_COLUMNS) throw damaged(`it has ${metadata.schema.length} columns`);
    const schema = parquetSchema(metadata);
    checkDirectory(metadata, schema, size - directory.byteLength);
    const children = new Map(schema.children.map((child) => [child.element.name, child]));
    const checked = new Set<RowGroup>();
    const check = async (group: RowGroup, rows: number): Promise<void> => {
      const places = group.columns.map(({ meta_data }) => placeOf(meta_data!));
      const stored = places.reduce((sum, [from, to]) => sum + to - from, 0);
      const budget = { cells: GROUP_CELLS + 8 * stored, bytes: GROUP_BYTES + 100 * stored };
      for (const [i, { meta_data }] of group.columns.entries()) {
        const chunk = new Uint8Array(await file.slice(...places[i]!));
        const path = pathOf(schema, meta_data!.path_in_schema)!;
        checkPages(chunk, { codec: meta_data!.codec, rows, path }, budget);
      }
      checked.add(group);
    };
    const readGroup = (rowStart: number, rowEnd: number): Promise<ParquetRow[]> => {
      const [compressors, parsers] = [boundedCompressors, { jsonFromBytes }];
      return parquetReadObjects({ file, metadata, compressors, parsers, utf8: false, rowStart, rowEnd });
    };
    /**
     * All rows of the group of which some are still to be asked for: a table is read from its beginning to its end, and
     * columns of a group are decoded whole whichever of its rows are wanted.
     */
    let begun: { group: RowGroup; rows: ParquetRow[] } | null = null;
    const readRows = async (start: number, end: number): Promise<ParquetRow[]> => {
      const found: ParquetRow[] = [];
      let after = 0;
      for (const group of metadata.row_groups) {
        const count = Number(group.num_rows);
        const first = after;
        after += count;
        const [from, to] = [Math.max(start, first), Math.min(end, after)];
        if (from >= to) continue;
        if (!checked.has(group)) await check(group, count);
        if (count * children.size > KEPT_CELLS) {
          for (const row of await readGroup(from, to)) found.push(row);
          continue;
        }
        const rows: ParquetRow[] = begun?.group === group ? begun.rows : await readGroup(first, after);
        begun = after > end ? { group, rows } : null;
        for (const row of rows.slice(from - first, to - first)) found.push(row);
      }
      return found;
    };
    return {
      path,
      rows: Number(metadata.num_rows),
      columns: [...children.keys()],
      holdsBytes(column) {
        const child = children.get(column);
        return (
          child !== undefined && (isBytes(child) || child.children.some(({ element }) => element.name === "bytes"))
        );
      },
      kindOf: (column) => kindOf(children.get(column)!),
      read: (start, end) => orNamed(path, () => readRows(start, end)),
    };
  });
}

function kindOf(node: SchemaTree): ParquetKind {
  const { type, converted_type: converted, logical_type: logical } = node.element;
  const isDecimal = converted === "DECIMAL" || logical?.type === "DECIMAL";
  return {
    isInteger: (type === "INT32" || type === "INT64") && !isDecimal,
    // A list is a group around a repeated group around its items; older writers leave out the one or the other.
    item() {
      const isRepeated = ({ element }: SchemaTree) => element.repetition_type === "REPEATED";
      const inner = node.children.length === 1 ? node.children[0]! : node;
      const items = isRepeated(inner) && inner.children.length === 1 ? inner.children[0]! : inner;
      return kindOf(items);
    },
    field(name) {
      const found = node.children.find(({ element }) => element.name === name);
      const entries = node.children[0]?.children ?? [];
      return kindOf(found ?? entries.find(({ element }) => element.name === "value") ?? node);
    },
  };
}

/** Bytes that are not said to be a text. */
function isBytes({ element, children }: SchemaTree): boolean {
  const { type, converted_type: converted, logical_type: logical } = element;
  return children.length === 0 && type === "BYTE_ARRAY" && converted === undefined && logical === undefined;
}

/** A cell of JSON, whose numbers keep their digits. */
function jsonFromBytes(bytes: Uint8Array | undefined): PythonJson | undefined {
  return bytes && parsePythonJson(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
}

const damaged = (what: string) => new Error(what);

/** Checks that each column has a name of its own. @returns how many hold values */
function checkNames({ children }: SchemaTree, depth = 0): number {
  if (depth > MAX_DEPTH) throw damaged("its columns are nested too deeply");
  const names = new Set<string>();
  let columns = 0;
  for (const child of children) {
    const { name } = child.element;
    if (typeof name !== "string") throw damaged("it has a column without a name");
    if (names.has(name)) throw damaged(`it has the column ${describe(name)} twice`);
    names.add(name);
    columns += child.children.length === 0 ? 1 : checkNames(child, depth + 1);
  }
  return columns;
}

/** Checks that the row groups are whole and lie before `end`. */
function checkDirectory({ num_rows, row_groups }: FileMetaData, schema: SchemaTree, end: number): void {
  const expected = checkNames(schema);
  let total = 0;
  for (const [i, { num_rows, columns }] of row_groups.entries()) {
    const rows = Number(num_rows);
    if (!(rows >= 0 && rows <= MAX_GROUP_ROWS))
      throw damaged(`row group ${i + 1} has ${num_rows ?? "no number of"} rows`);
    total += rows;
    const seen = new Set<SchemaTree>();
    for (const { meta_data: column } of columns) {
      if (column === undefined) throw damaged(`row group ${i + 1} has a column without a description`);
      const name = column.path_in_schema.join(".");
      const path = pathOf(schema, column.path_in_schema);
      const leaf = path?.at(-1);
      if (path === undefined || leaf === undefined || leaf.children.length > 0 || leaf.element.type !== column.type)
        throw damaged(`column ${name} is not in the schema`);
      seen.add(leaf);
      // Its parts may be the same ones many times over.
      if (path.some(({ element }) => element.logical_type?.type === "VARIANT"))
        throw damaged(`column ${name} is of the type VARIANT, which is not read`);
      const [start, last] = placeOf(column);
      // A group of no rows need not have pages.
      if (rows > 0 && !(start >= 4 && last >= start && last <= end))
        throw damaged(`column ${name} lies at bytes ${start} to ${last} of ${end}`);
    }
    if (seen.size !== expected || columns.length !== expected)
      throw damaged(`row group ${i + 1} has ${columns.length} columns of ${expected}`);
  }
  if (total !== Number(num_rows) || total > MAX_ROWS)
    throw damaged(`it declares ${num_rows} rows, its row groups have ${total}`);
}

/** Where the pages of a column are. */
function placeOf(column: ColumnMetaData): [start: number, end: number] {
  const start = Number(column.dictionary_page_offset || column.data_page_offset);
  return [start, start + Number(column.total_compressed_size)];
}

/** The schema from its root to a column; nothing where there is none of this name. */
function pathOf(schema: SchemaTree, names: readonly string[]): SchemaTree[] | undefined {
  const path = [schema];
  for (const name of names) {
    const node = path.at(-1)!.children.find(({ element }) => element.name === name);
    if (node === undefined) return undefined;
    path.push(node);
  }
  return path;
}

/** The directory, its length and the mark at the end. */
async function readDirectory(file: AsyncBuffer): Promise<ArrayBuffer> {
  const { byteLength: size } = file;
  if (size < START_BYTES + END_BYTES) throw new Error(`it has ${size} bytes`);
  const end = new DataView(await file.slice(size - END_BYTES));
  if (end.getUint32(4) !== MARK) throw new Error("it does not end as Parquet does");
  const length = end.getUint32(0, true);
  if (length > size - START_BYTES - END_BYTES) throw new Error(`its directory of ${length} bytes is not in it`);
  return file.slice(size - END_BYTES - length);
}

/** Runs, and gives each failure the file's name. */
async function orNamed<T>(path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof MiroError) throw error;
    const isOfSystem = error instanceof Error && "syscall" in error;
    // What hyparquet and Node say where a part is missing or of another kind tells a user nothing.
    const isOfCode = error instanceof TypeError || (error instanceof RangeError && !("code" in error));
    const reason = isOfSystem ? systemReason(error) : isOfCode ? "its parts do not fit together" : messageOf(error);
    throw new InvalidInputError(`${path}: cannot be read as Parquet: ${reason}`, { cause: error });
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

async function readSlice(path: string, size: number, start: number, end: number): Promise<ArrayBuffer> {
  if (!(start >= 0 && end >= start && end <= size)) throw new Error(`bytes ${start} to ${end} of ${size}`);
  const buffer = new ArrayBuffer(end - start);
  const bytes = new Uint8Array(buffer);
  const file = await open(path);
  try {
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await file.read(bytes, done, bytes.length - done, start + done);
      if (bytesRead === 0) throw new Error(`ends at byte ${start + done}, ${end} expected`);
      done += bytesRead;
    }
  } finally {
    await file.close();
  }
  return buffer;
}
