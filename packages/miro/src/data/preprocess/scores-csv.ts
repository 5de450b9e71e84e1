/**
 * The per-shard score files `<stem>_scores.csv`, as upstream writes and reads them: `key` first, then the other columns
 * sorted by name, rows sorted by key, CRLF, quotes only where needed, numbers in the shortest form that gives them
 * again, empty cells for what is missing.
 *
 * Unlike upstream's reader this one knows which columns are texts (those with `caption` in their name) and tells where
 * a number is none.
 */
import { existsSync } from "node:fs";
import { InvalidInputError, MiroError } from "../../errors.js";
import { byCodePoint } from "../../files/code-point-order.js";
import { pythonFloat } from "../../files/python-number.js";
import { csvLine, parseTable } from "../../files/table-file.js";
import { readStoredFile } from "../../files/text-file.js";
import { writeFileAtomic } from "../../files/whole-files.js";

/** One row without its key: numbers, and texts in the columns that `isTextColumn` tells. */
export type ScoreRow = Map<string, number | string>;

/** Rows by key. */
export type ScoreTable = Map<string, ScoreRow>;

/** Whether a column holds texts; all others but `key` hold numbers. */
export function isTextColumn(name: string): boolean {
  return name.includes("caption");
}

/** The names of the columns besides `key`, sorted. */
function scoreColumns(table: ScoreTable): string[] {
  const names = new Set<string>();
  for (const row of table.values()) for (const name of row.keys()) names.add(name);
  return [...names].sort(byCodePoint);
}

const NUMBER = /^[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?$/;
const NOT_FINITE: ReadonlyMap<string, number> = new Map([
  ["nan", Number.NaN],
  ["inf", Number.POSITIVE_INFINITY],
  ["infinity", Number.POSITIVE_INFINITY],
]);

/**
 * Reads a file; an empty table when there is none.
 * @throws InvalidInputError naming file, line and column of what cannot be read
 */
export function readScores(path: string): ScoreTable {
  return existsSync(path) ? parseScores(readStoredFile(path), path) : new Map();
}

/** Parses a file's text. @param path for errors */
export function parseScores(text: string, path: string): ScoreTable {
  const { columns: header, line, rows } = parseTable(text, path);
  if (header.length === 0) throw new InvalidInputError(`${path}: is empty; expected a header that begins with "key"`);
  if (header[0] !== "key")
    throw new InvalidInputError(`${path}:${line}: expected "key" first, received ${JSON.stringify(header[0])}`);
  const table: ScoreTable = new Map();
  for (const { cells: record, line } of rows) {
    const where = `${path}:${line}`;
    const key = record[0]!;
    if (table.has(key)) throw new InvalidInputError(`${where}: the key ${JSON.stringify(key)} twice`);
    const row: ScoreRow = new Map();
    for (let i = 1; i < header.length; i++) {
      const [name, cell] = [header[i]!, record[i]!];
      if (cell === "") continue;
      row.set(name, isTextColumn(name) ? cell : parseNumber(cell, () => `${where}, column ${name}`));
    }
    table.set(key, row);
  }
  return table;
}

function parseNumber(cell: string, where: () => string): number {
  const text = cell.trim();
  if (NUMBER.test(text)) return Number(text);
  const [, sign, word] = /^([-+]?)([a-z]+)$/i.exec(text) ?? [];
  const value = word === undefined ? undefined : NOT_FINITE.get(word.toLowerCase());
  if (value === undefined)
    throw new InvalidInputError(`${where()}: expected a number, received ${JSON.stringify(cell)}`);
  return sign === "-" ? -value : value;
}

/** The file's text. Numbers that are not finite become empty cells. */
export function formatScores(table: ScoreTable): string {
  const columns = scoreColumns(table);
  const lines = [["key", ...columns], ...rowsOf(table, columns)];
  return lines.map(csvLine).join("");
}

function rowsOf(table: ScoreTable, columns: readonly string[]): string[][] {
  return [...table]
    .sort(([a], [b]) => byCodePoint(a, b))
    .map(([key, row]) => [
      key,
      ...columns.map((name) => {
        const value = row.get(name);
        if (value === undefined) return "";
        if (typeof value === "string") return value;
        return Number.isFinite(value) ? pythonFloat(value) : "";
      }),
    ]);
}

/** Puts new values over old ones, key by key and column by column; neither argument is changed. */
export function mergeScores(old: ScoreTable, added: ScoreTable): ScoreTable {
  const merged: ScoreTable = new Map([...old].map(([key, row]) => [key, new Map(row)]));
  for (const [key, row] of added) merged.set(key, new Map([...(merged.get(key) ?? []), ...row]));
  return merged;
}

/** Writes a file whole or not at all. @returns its text */
export function writeScores(path: string, table: ScoreTable): string {
  for (const row of table.values())
    for (const [name, value] of row)
      if ((typeof value === "string") !== isTextColumn(name))
        throw new MiroError(`${path}: column ${name}: expected ${isTextColumn(name) ? "a text" : "a number"}`);
  const text = formatScores(table);
  writeFileAtomic(path, text, { overwrite: true });
  return text;
}
