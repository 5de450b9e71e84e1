/**
 * What a shard holds and where, learnt once: for each sample its key, where each member's content lies, how its arrays
 * are laid out, and the numbers of its metadata. With it, reading a sample is a few positional reads, and bins, filters
 * and rewards need neither JSON nor headers.
 *
 * The table is kept beside the shard as `.NAME.tar.idx` (see table-file.ts) and used as long as the shard has the size
 * and time that it was made from; where the folder cannot be written it lives in memory.
 */
import { type DType, itemSize } from "@miro-t2i/torch";
import { type FileFingerprint, PositionalFile } from "./positional-file.js";
import type { TarMember } from "./sample-key.js";
import { ShardError } from "./shard-error.js";
import {
  type ArrayLayout,
  type MemberColumn,
  readTable,
  readTableHeader,
  storeTable,
  type TableHeader,
  type TableParts,
  type TableProblem,
} from "./table-file.js";
import { scanTable } from "./table-scan.js";
import { TarFile } from "./tar-file.js";
import { BLOCK_BYTES } from "./tar-header.js";

/** Shards that end early may still be growing: their table is not kept. */
const UNFINISHED = new Set(["MissingEnd", "TruncatedHeader", "TruncatedMember"]);

/** Where an array lies and what it is. */
export interface ArrayPlace {
  dtype: DType;
  shape: number[];
  /** Where its values begin, in bytes from the start of the shard. */
  offset: number;
  sizeBytes: number;
}

export class ShardTable {
  readonly #members: ReadonlyMap<string, MemberColumn & { known: readonly ArrayLayout[] }>;

  readonly #keyEnds: Uint32Array;
  readonly #keyBytes: Buffer;
  readonly header: TableHeader;
  /** Numbers at the top level of each sample's metadata, NaN where there is none; in samples' order. */
  readonly columns: ReadonlyMap<string, Float64Array>;

  private constructor(
    /** The shard. */
    readonly path: string,
    { header, columns, keyEnds, keyBytes, members }: TableParts,
    /** Whether the table lies beside the shard. */
    readonly stored: boolean,
  ) {
    this.header = header;
    this.columns = columns;
    this.#keyEnds = keyEnds;
    this.#keyBytes = keyBytes;
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
      const parts = readTable(path, file);
      return parts === null ? ShardTable.build(path) : new ShardTable(path, parts, true);
    } finally {
      file.close();
    }
  }

  /** The header of the table beside a shard when it belongs to this very file, else that of one made anew. */
  static header(path: string): TableHeader {
    const file = PositionalFile.open(path);
    try {
      return readTableHeader(path, file) ?? ShardTable.build(path).header;
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
      return readTableHeader(path, file) !== null;
    } finally {
      file.close();
    }
  }

  /** Makes the table from the shard and puts it beside it where the folder allows. */
  static build(path: string): ShardTable {
    const tar = TarFile.open(path, { policy: "skip" });
    let parts: TableParts;
    try {
      parts = scanTable(tar);
      if (tar.isStale())
        throw new ShardError({ path, rule: "Changed", message: "the file changed while it was indexed" });
    } finally {
      tar.close();
    }
    const unfinished = parts.header.problems.some(({ rule }) => UNFINISHED.has(rule));
    const stored = !unfinished && storeTable(path, parts);
    return new ShardTable(path, parts, stored);
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
    return this.count * (9 * this.#members.size + 8 * this.columns.size + 4) + this.#keyBytes.length;
  }

  /** Key of a sample. */
  key(sample: number): string {
    return this.#keyBytes.toString("utf8", sample === 0 ? 0 : this.#keyEnds[sample - 1]!, this.#keyEnds[sample]!);
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
