/**
 * Tables of text: a row of names, then one row a record. CSV (RFC 4180), TSV (IANA text/tab-separated-values: no
 * quoting, a quote is a character like any other), and JSON lines. Encodings and line ends: text-file.ts.
 *
 * Spreadsheets in many countries separate by semicolons and still say `.csv`: the separator of a CSV is the one that
 * its first row has most of. A line `sep=;` in front of it, as spreadsheets write it, decides.
 */
import { type CsvError, parse } from "csv-parse/sync";
import { InvalidInputError } from "../errors.js";
import { repeatedKey } from "./json-file.js";
import { hasLoneSurrogate, type Line, linesOf } from "./text-file.js";

/** Cells of one row, and its line in the file, from 1. */
export interface TableRow {
  cells: string[];
  line: number;
}

/** A table; all its rows have as many cells as it has columns. */
export interface Table {
  columns: string[];
  /** Line of the names. */
  line: number;
  rows: TableRow[];
}

/**
 * Reads a table with a header. Columns without a name, as programs write for the numbers of rows, are left out, and so
 * are rows of empty cells alone.
 * @param name of the file, for errors; `.tsv` makes it tab-separated
 * @throws InvalidInputError naming file and line
 */
export function parseTable(text: string, name: string): Table {
  const records = /\.tsv$/i.test(name) ? fromTsv(text) : fromCsv(text, name);
  const [header, ...rows] = records.filter(({ cells }) => cells.some((cell) => cell.trim() !== ""));
  if (header === undefined) return { columns: [], line: 1, rows: [] };
  const names = header.cells.map((cell) => cell.trim());
  const seen = new Set<string>();
  const twice = names.find((column) => column !== "" && seen.size === seen.add(column).size);
  if (twice !== undefined) throw new InvalidInputError(`${name}:${header.line}: two columns ${JSON.stringify(twice)}`);
  const named = names.flatMap((column, i) => (column === "" ? [] : [i]));
  for (const { cells, line } of rows) {
    if (cells.length !== names.length)
      throw new InvalidInputError(
        `${name}:${line}: expected ${names.length} cells as in the header, found ${cells.length}`,
      );
  }
  return {
    columns: named.map((i) => names[i]!),
    line: header.line,
    rows: rows.map(({ cells, line }) => ({ cells: named.map((i) => cells[i]!), line })),
  };
}

/** The lines of a text that are not empty, each with its number: what JSON lines and lists of texts consist of. */
export function filledLines(text: string): Line[] {
  return linesOf(text).flatMap((line, i) => (line.trim() === "" ? [] : [{ text: line, number: i + 1 }]));
}

/**
 * One line of JSON lines: an object in which no name stands twice, as of two values one would be lost.
 * @throws SyntaxError
 */
export function parseJsonLine(line: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(line, (_, item: unknown) => {
      if (typeof item === "string" && hasLoneSurrogate(item)) throw new SyntaxError("half of a character of UTF-16");
      return item;
    });
  } catch (error) {
    throw new SyntaxError(`not valid JSON: ${(error as Error).message.split("\n")[0]}`, { cause: error });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new SyntaxError("expected a JSON object");
  const twice = repeatedKey(line);
  if (twice !== null) throw new SyntaxError(`the name ${JSON.stringify(twice)} stands twice in one object`);
  return value as Record<string, unknown>;
}

/** One row of a CSV file; cells are quoted where they must be. */
export function csvLine(cells: readonly string[]): string {
  return `${cells.map(quoted).join(",")}\r\n`;
}

function quoted(cell: string): string {
  return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}

function fromTsv(text: string): TableRow[] {
  return filledLines(text).map(({ text: line, number }) => ({ cells: line.split("\t"), line: number }));
}

function fromCsv(text: string, name: string): TableRow[] {
  const announced = /^sep=(.)(?:\r\n|\n|\r)/i.exec(text);
  const body = announced ? text.slice(announced[0].length) : text;
  const skipped = announced ? 1 : 0;
  try {
    return parse(body, {
      // Of what it knows of a row the line alone is kept: the rest takes more memory than the cells.
      on_record: (cells, { lines }) => ({ cells, line: lines + skipped }) as unknown as string[],
      delimiter: announced?.[1] ?? separatorOf(body),
      // Named, as otherwise the first line would decide for all of them.
      record_delimiter: ["\r\n", "\n", "\r"],
      skip_empty_lines: true,
      relax_column_count: true,
    }) as unknown as TableRow[];
  } catch (error) {
    const { lines, message } = error as CsvError & { lines?: number };
    throw new InvalidInputError(`${name}:${(lines ?? 1) + skipped}: not valid CSV: ${message.split("\n")[0]}`, {
      cause: error,
    });
  }
}

/** The separator of which the first row has most outside of quotes. */
function separatorOf(text: string): string {
  const counts = new Map([",", ";", "\t"].map((separator) => [separator, 0]));
  let quoted = false;
  for (const character of text.trimStart()) {
    if (character === '"') quoted = !quoted;
    else if (quoted) continue;
    else if (character === "\n" || character === "\r") break;
    else if (counts.has(character)) counts.set(character, counts.get(character)! + 1);
  }
  return [...counts].reduce((most, next) => (next[1] > most[1] ? next : most))[0];
}
