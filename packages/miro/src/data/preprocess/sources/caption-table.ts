/** Captions in a table: CSV or TSV with a header, JSON lines, or Parquet; a column names the picture of each row. */
import { extname } from "node:path";
import { describe, InvalidInputError } from "../../../errors.js";
import { repeatedKey } from "../../../files/json-file.js";
import {
  JsonInteger,
  MAX_DEPTH,
  type PythonJson,
  parsePythonJson,
  writePythonJson,
} from "../../../files/python-json.js";
import { filledLines, parseTable } from "../../../files/table-file.js";
import { readTextFile } from "../../../files/text-file.js";
import { message, option } from "../../../message.js";
import { counted } from "../../../numbers.js";
import { openParquet, type ParquetKind, type ParquetTable } from "./parquet-table.js";

/** Names of the two columns where none is given, the preferred one first. */
const IMAGE_COLUMNS = ["image", "image_path", "file_name", "filename", "path", "file"];
const CAPTION_COLUMNS = ["caption", "text", "txt", "prompt"];

/** Of a table whose rows are all in memory: more take several gigabytes. */
const MAX_CELLS = 12_000_000;

/** One row: a picture, its caption and whatever else is known of it. */
export interface CaptionRow {
  /** Path of the picture, relative to the table's folder or absolute; null for a cell that holds none. */
  image: string | null;
  /** null for an empty cell. */
  caption: string | null;
  metadata: Map<string, PythonJson>;
}

/** Which columns hold what. */
export interface CaptionColumns {
  imageColumn?: string | undefined;
  captionColumn?: string | undefined;
}

type Row = Map<string, PythonJson>;

/**
 * Reads a table.
 * @throws InvalidInputError for another kind of file, a column that is not there
 */
export async function readCaptionTable(path: string, columns: CaptionColumns = {}): Promise<CaptionRow[]> {
  const read = READERS[extname(path).toLowerCase()];
  if (read === undefined) {
    throw new InvalidInputError(
      `${path}: expected a folder of tars or pictures, or a table (${Object.keys(READERS).join(", ")})`,
    );
  }
  const { rows, columns: present } = await read(path, columns);
  if (rows.length === 0) throw new InvalidInputError(`${path}: holds no rows`);
  const { image, caption } = chooseColumns(path, present, columns);
  if (read === readDelimited) readNumbers(rows, [image, caption]);
  return rows.map((row) => {
    const picture = row.get(image);
    const text = textOf(row.get(caption));
    const metadata = new Map([...row].filter(([name]) => name !== image && name !== caption));
    return {
      image: typeof picture === "string" && picture !== "" ? picture : null,
      caption: text === "" ? null : text,
      metadata,
    };
  });
}

/** A caption as a text, also one that happens to be a number; null for what is none. */
export function textOf(value: PythonJson | undefined): string | null {
  if (typeof value === "string") return value;
  return typeof value === "number" || value instanceof JsonInteger ? writePythonJson(value) : null;
}

/** A table's rows without empty cells, and its columns, whether or not their cells are filled. */
interface Table {
  rows: Row[];
  columns: ReadonlySet<string>;
}

const READERS: Record<string, (path: string, columns: CaptionColumns) => Table | Promise<Table>> = {
  ".csv": readDelimited,
  ".tsv": readDelimited,
  ".jsonl": readJsonLines,
  ".ndjson": readJsonLines,
  ".parquet": readParquet,
};

/** Whether a file's name is that of a table. */
export function isTable(name: string): boolean {
  return Object.hasOwn(READERS, extname(name).toLowerCase());
}

/** The columns of pictures and captions among those of a table. @throws InvalidInputError when one is not there */
export function chooseColumns(
  path: string,
  present: ReadonlySet<string>,
  { imageColumn, captionColumn }: CaptionColumns,
): { image: string; caption: string } {
  const choose = (
    what: string,
    name: "imageColumn" | "captionColumn",
    given: string | undefined,
    usual: readonly string[],
  ): string => {
    const found =
      given === undefined ? usual.find((name) => present.has(name)) : present.has(given) ? given : undefined;
    if (found !== undefined) return found;
    const wanted = given === undefined ? `one of ${usual.join(", ")}` : JSON.stringify(given);
    const remedy = given === undefined ? message`, one of which ${option(name)} may name` : "";
    const there = [...present].join(", ");
    throw new InvalidInputError(message`${path}: ${what}: expected ${wanted}; the table has ${there}${remedy}`);
  };
  return {
    image: choose("image column", "imageColumn", imageColumn, IMAGE_COLUMNS),
    caption: choose("caption column", "captionColumn", captionColumn, CAPTION_COLUMNS),
  };
}

function readDelimited(path: string): Table {
  const { columns, rows } = parseTable(readTextFile(path), path);
  return {
    rows: rows.map(({ cells }) => new Map(columns.map((column, i) => [column, cells[i]!] as const).filter(filled))),
    columns: new Set(columns),
  };
}

const filled = ([, cell]: readonly [string, string]): boolean => cell !== "";

/** Numbers as JSON writes them, which leaves names such as `007` and `+1` texts. */
const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?$/;
/** What programs write into a column of numbers where there is none that counts. */
const NO_NUMBER = /^(?:[-+]?(?:nan|inf|infinity)|null|none|#?n\/a|na)$/i;

/**
 * Makes numbers of the cells of each column that holds numbers alone. Columns of texts stay as they are, whatever
 * single cells look like.
 */
function readNumbers(rows: readonly Row[], texts: readonly string[]): void {
  for (const column of new Set(rows.flatMap((row) => [...row.keys()]))) {
    if (texts.includes(column)) continue;
    const cells = rows.flatMap((row) => row.get(column) ?? []) as string[];
    if (!cells.some((cell) => NUMBER.test(cell)) || !cells.every((cell) => NUMBER.test(cell) || NO_NUMBER.test(cell)))
      continue;
    for (const row of rows) {
      const cell = row.get(column) as string | undefined;
      if (cell === undefined) continue;
      if (NUMBER.test(cell)) row.set(column, parsePythonJson(cell));
      else row.delete(column);
    }
  }
}

function readJsonLines(path: string): Table {
  const rows = filledLines(readTextFile(path)).map(({ text, number }) => {
    let value: PythonJson;
    try {
      value = parsePythonJson(text);
    } catch (error) {
      throw new InvalidInputError(`${path}:${number}: ${(error as Error).message}`, { cause: error });
    }
    if (!(value instanceof Map)) throw new InvalidInputError(`${path}:${number}: expected an object`);
    const twice = repeatedKey(text);
    if (twice !== null)
      throw new InvalidInputError(`${path}:${number}: the name ${describe(twice)} stands twice in one object`);
    return value;
  });
  return { rows, columns: new Set(rows.flatMap((row) => [...row.keys()])) };
}

async function readParquet(path: string, columns: CaptionColumns): Promise<Table> {
  const table = await openParquet(path);
  chooseColumns(path, new Set(table.columns), columns); // before rows are read in vain
  // A file of some bytes may hold a billion rows that are all the same.
  if (table.rows * table.columns.length > MAX_CELLS)
    throw new InvalidInputError(
      `${path}: ${counted(table.rows, "row")} of ${counted(table.columns.length, "column")} are too many for one table of captions; ` +
        `split it, at most ${counted(MAX_CELLS, "cell")} are read`,
    );
  const rows = (await table.read(0, table.rows)).map((record) => parquetRow(record, table));
  return { rows, columns: new Set(table.columns) };
}

/** A row without the cells that are empty or have no place in JSON. */
export function parquetRow(record: Record<string, unknown>, table: ParquetTable): Row {
  const row: Row = new Map();
  for (const [name, value] of Object.entries(record)) {
    const json = fromParquet(value, table.kindOf(name));
    if (json !== undefined) row.set(name, json);
  }
  return row;
}

/** A cell as JSON; undefined for missing ones and for what has no place in JSON: bytes, nesting without end. */
function fromParquet(value: unknown, kind: ParquetKind, depth = 0): PythonJson | undefined {
  if (value === null || value === undefined || depth > MAX_DEPTH) return undefined;
  if (typeof value === "bigint") return new JsonInteger(value.toString());
  if (typeof value === "number")
    return kind.isInteger && Number.isInteger(value) ? new JsonInteger(String(value)) : value;
  if (typeof value === "string" || typeof value === "boolean") return value;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? undefined : value.toISOString();
  if (value instanceof Uint8Array) return textOfBytes(value);
  if (ArrayBuffer.isView(value)) return undefined;
  if (value instanceof JsonInteger || value instanceof Map) return value; // of a cell of JSON
  if (Array.isArray(value)) return value.map((item) => fromParquet(item, kind.item(), depth + 1) ?? null);
  return new Map(
    Object.entries(value).map(([name, item]) => [name, fromParquet(item, kind.field(name), depth + 1) ?? null]),
  );
}

/** The text of a cell that is not said to be one, as old writers leave them; undefined for other bytes. */
function textOfBytes(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
