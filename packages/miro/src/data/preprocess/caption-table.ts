/** Captions in a table: CSV or TSV with a header, JSON lines, or Parquet; a column names the picture of each row. */
import { closeSync, openSync, readSync, statSync } from "node:fs";
import { extname } from "node:path";
import { InvalidInputError, MiroError } from "../../errors.js";
import { filledLines, parseTable } from "../../files/table-file.js";
import { readTextFile } from "../../files/text-file.js";
import { JsonInteger, type PythonJson, parsePythonJson, writePythonJson } from "./python-json.js";

/** Names of the two columns where none is given, the preferred one first. */
const IMAGE_COLUMNS = ["image", "image_path", "file_name", "filename", "path", "file"];
const CAPTION_COLUMNS = ["caption", "text", "txt", "prompt"];

/** One row: a picture, its caption and whatever else is known of it. */
export interface CaptionRow {
  /** Path of the picture, relative to the table's folder or absolute. */
  image: string;
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
 * @throws InvalidInputError for another kind of file, a column that is not there, a row without a picture
 */
export async function readCaptionTable(path: string, columns: CaptionColumns = {}): Promise<CaptionRow[]> {
  const read = READERS[extname(path).toLowerCase()];
  if (read === undefined) {
    throw new InvalidInputError(
      `${path}: expected a folder of tars or pictures, or a table (${Object.keys(READERS).join(", ")})`,
    );
  }
  const rows = await read(path);
  if (rows.length === 0) throw new InvalidInputError(`${path}: holds no rows`);
  const image = chooseColumn(path, rows, "image column", columns.imageColumn, IMAGE_COLUMNS);
  const caption = chooseColumn(path, rows, "caption column", columns.captionColumn, CAPTION_COLUMNS);
  if (read === readDelimited) readNumbers(rows, [image, caption]);
  return rows.map((row, i) => {
    const picture = row.get(image);
    if (typeof picture !== "string" || picture === "")
      throw new InvalidInputError(`${path}, row ${i + 1}, column ${image}: expected the path of a picture`);
    const text = textOf(row.get(caption));
    const metadata = new Map([...row].filter(([name]) => name !== image && name !== caption));
    return { image: picture, caption: text === "" ? null : text, metadata };
  });
}

/** A caption as a text, also one that happens to be a number; null for what is none. */
function textOf(value: PythonJson | undefined): string | null {
  if (typeof value === "string") return value;
  return typeof value === "number" || value instanceof JsonInteger ? writePythonJson(value) : null;
}

const READERS: Record<string, (path: string) => Row[] | Promise<Row[]>> = {
  ".csv": readDelimited,
  ".tsv": readDelimited,
  ".jsonl": readJsonLines,
  ".ndjson": readJsonLines,
  ".parquet": readParquet,
};

function chooseColumn(
  path: string,
  rows: readonly Row[],
  what: string,
  given: string | undefined,
  usual: readonly string[],
): string {
  const present = new Set(rows.flatMap((row) => [...row.keys()]));
  const found = given === undefined ? usual.find((name) => present.has(name)) : present.has(given) ? given : undefined;
  if (found !== undefined) return found;
  const wanted = given === undefined ? `one of ${usual.join(", ")}` : JSON.stringify(given);
  throw new InvalidInputError(`${path}: ${what}: expected ${wanted}; the table has ${[...present].join(", ")}`);
}

function readDelimited(path: string): Row[] {
  const { columns, rows } = parseTable(readTextFile(path), path);
  return rows.map(({ cells }) => new Map(columns.map((column, i) => [column, cells[i]!] as const).filter(filled)));
}

const filled = ([, cell]: readonly [string, string]): boolean => cell !== "";

/** Numbers as JSON writes them, which leaves names such as `007` and `+1` texts. */
const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?$/;
/** What programs write into a column of numbers where there is none. */
const NO_NUMBER = /^(?:nan|null|none|n\/a)$/i;

/** Makes numbers of the cells of each column that holds numbers alone. Columns of texts stay as they are, whatever single cells look like. */
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

function readJsonLines(path: string): Row[] {
  return filledLines(readTextFile(path)).map(({ text, number }) => {
    let value: PythonJson;
    try {
      value = parsePythonJson(text);
    } catch (error) {
      throw new InvalidInputError(`${path}:${number}: ${(error as Error).message}`, { cause: error });
    }
    if (!(value instanceof Map)) throw new InvalidInputError(`${path}:${number}: expected an object`);
    return value;
  });
}

async function readParquet(path: string): Promise<Row[]> {
  const [{ parquetReadObjects }, { compressors }] = await Promise.all([
    import("hyparquet"),
    import("hyparquet-compressors"),
  ]);
  try {
    const file = {
      byteLength: statSync(path).size,
      slice: (start: number, end: number = statSync(path).size) => readSlice(path, start, end),
    };
    const records = (await parquetReadObjects({ file, compressors })) as Record<string, unknown>[];
    return records.map((record) => {
      const row: Row = new Map();
      for (const [name, value] of Object.entries(record)) {
        const json = fromParquet(value);
        if (json !== undefined) row.set(name, json);
      }
      return row;
    });
  } catch (error) {
    if (error instanceof MiroError) throw error;
    throw new InvalidInputError(`${path}: cannot be read as Parquet: ${(error as Error).message}`, { cause: error });
  }
}

function readSlice(path: string, start: number, end: number): ArrayBuffer {
  const buffer = new ArrayBuffer(end - start);
  const bytes = new Uint8Array(buffer);
  const descriptor = openSync(path, "r");
  try {
    for (let done = 0; done < bytes.length; ) {
      const count = readSync(descriptor, bytes, done, bytes.length - done, start + done);
      if (count === 0) throw new MiroError(`${path}: ends at byte ${start + done}, ${end} expected`);
      done += count;
    }
  } finally {
    closeSync(descriptor);
  }
  return buffer;
}

/** A cell as JSON; undefined for missing ones and for what has no place in JSON (bytes). */
function fromParquet(value: unknown): PythonJson | undefined {
  if (value === null || value === undefined) return undefined;
  if (typeof value === "bigint") return new JsonInteger(value.toString());
  if (typeof value === "number") return Number.isInteger(value) ? new JsonInteger(String(value)) : value;
  if (typeof value === "string" || typeof value === "boolean") return value;
  if (value instanceof Date) return value.toISOString();
  if (ArrayBuffer.isView(value)) return undefined;
  if (Array.isArray(value)) return value.map((item) => fromParquet(item) ?? null);
  return new Map(Object.entries(value).map(([name, item]) => [name, fromParquet(item) ?? null]));
}
