/**
 * Synthetic captions: which texts a sample has besides its original one, and where they come from.
 *
 * A table (tab-separated, no header: file name, short caption, long caption) is read as it stands: no quotes, no types,
 * no words that mean "missing". A file name loses its last extension; it is looked up by a sample's key, or the
 * last component of it. Where no table is given, the fields `synthetic_caption` (long), `short_synthetic_caption` and
 * `caption` of the sample's JSON are taken.
 */
import { statSync } from "node:fs";
import { InvalidInputError, MiroError, systemReason } from "../../errors.js";
import type { PythonJson } from "../../files/python-json.js";
import { hasLoneSurrogate, readLines } from "../../files/text-file.js";
import { cleanCaption } from "../dataset/clean-caption.js";
import { fingerprintOf } from "../shards/positional-file.js";

/** Where a sample's synthetic captions come from. */
export type SyntheticSource = "table" | "json" | "scores" | "none";

/** A sample's synthetic captions, cleaned; the short one is the long one where there is no other. */
export interface SyntheticCaptions {
  long: string;
  short: string;
}

/** What a table says about a name: two different rows are no answer. */
export type TableEntry = SyntheticCaptions | "ambiguous";

/** Tables of at most this size are kept in memory; larger ones are read once for each shard. */
const MAX_KEPT_BYTES = 256 * 2 ** 20;

export class SyntheticTable {
  #all: Promise<Rows> | null = null;
  readonly #isSmall: boolean;

  private constructor(
    readonly path: string,
    isSmall: boolean,
  ) {
    this.#isSmall = isSmall;
  }

  /** @throws InvalidInputError when the file cannot be read */
  static open(path: string): SyntheticTable {
    try {
      const stats = statSync(path);
      if (!stats.isFile()) throw new InvalidInputError(`${path}: expected a file of tab-separated captions`);
      return new SyntheticTable(path, stats.size <= MAX_KEPT_BYTES);
    } catch (error) {
      if (error instanceof MiroError) throw error;
      throw new InvalidInputError(`${path}: cannot be read: ${systemReason(error)}`, { cause: error });
    }
  }

  /** Changes with the content. */
  fingerprint(): string {
    return JSON.stringify(fingerprintOf(statSync(this.path)));
  }

  /** The rows of the given sample keys, by key. @throws InvalidInputError naming the line that has no two columns */
  async forKeys(keys: Iterable<string>): Promise<Map<string, TableEntry>> {
    const names = new Map([...keys].map((key) => [key, [key, key.slice(key.lastIndexOf("/") + 1)]]));
    if (this.#isSmall) this.#all ??= this.#read(null);
    const { exact, dotted } = await (this.#all ?? this.#read(new Set([...names.values()].flat())));
    const found = new Map<string, TableEntry>();
    for (const [key, own] of names)
      for (const rows of [exact, dotted])
        for (const name of own) {
          const row = rows.get(name);
          if (row !== undefined && !found.has(key)) found.set(key, row);
        }
    return found;
  }

  async #read(wanted: ReadonlySet<string> | null): Promise<Rows> {
    const rows: Rows = { exact: new Map(), dotted: new Map() };
    for await (const { text, number } of readLines(this.path)) {
      if (text === "") continue;
      const cells = text.split("\t");
      if (cells.length < 2) {
        throw new InvalidInputError(`${this.path}:${number}: expected a file name and captions, separated by tabs`);
      }
      const name = withoutExtension(cells[0]!);
      const row = { short: cells[1]!, long: cells.at(-1)! };
      if (wanted === null || wanted.has(name)) addRow(rows.exact, name, row);
      const key = name.replaceAll(".", "_");
      if (key !== name && (wanted === null || wanted.has(key))) addRow(rows.dotted, key, row);
    }
    return rows;
  }
}

/** Rows by their names. In keys of pictures in folders dots are `_`; so they are in the names of `dotted`. */
interface Rows {
  exact: Map<string, TableEntry>;
  dotted: Map<string, TableEntry>;
}

function addRow(rows: Map<string, TableEntry>, name: string, row: SyntheticCaptions): void {
  const earlier = rows.get(name);
  const same =
    earlier === undefined || (earlier !== "ambiguous" && earlier.short === row.short && earlier.long === row.long);
  rows.set(name, same ? row : "ambiguous");
}

/** A path without the last extension of its last component; a leading dot begins none. */
function withoutExtension(path: string): string {
  const base = path.lastIndexOf("/") + 1;
  const dot = path.lastIndexOf(".");
  return dot > base ? path.slice(0, dot) : path;
}

/** The captions of a table's row, null when it has no long one. */
export function captionsOfRow(row: SyntheticCaptions): SyntheticCaptions | null {
  return captions(row.long, row.short);
}

/** The captions in a sample's JSON, null when there is no long one. */
export function captionsOfJson(metadata: ReadonlyMap<string, PythonJson>): SyntheticCaptions | null {
  const text = (name: string): string => {
    const value = metadata.get(name);
    // Half of a character of UTF-16, as JSON may write it, has no place in a score file.
    return typeof value === "string" && !hasLoneSurrogate(value) ? value : "";
  };
  return captions(text("synthetic_caption"), text("short_synthetic_caption") || text("caption"));
}

function captions(long: string, short: string): SyntheticCaptions | null {
  const cleaned = cleanCaption(long);
  if (cleaned === "") return null;
  return { long: cleaned, short: cleanCaption(short) || cleaned };
}
