/**
 * Raw samples of tables of captions: a column names picture files, or in Parquet holds the pictures; the other columns
 * become the sample's JSON.
 */
import { basename, dirname, resolve } from "node:path";
import { InvalidInputError } from "../../../errors.js";
import { type DecodedFormat, IMAGE_EXTENSIONS, imageFormat } from "../../../pictures/decode.js";
import { type CaptionRow, chooseColumns, parquetRow, readCaptionTable, textOf } from "./caption-table.js";
import { openParquet, type ParquetTable } from "./parquet-table.js";
import { statsOf } from "./picture-folder.js";
import {
  chunks,
  claimKey,
  imageExtension,
  isImageName,
  keyOf,
  numbered,
  type RawSample,
  type ShardContent,
  type SourceOptions,
  type SourceShard,
  skip,
  stamp,
  take,
} from "./raw-sample.js";

/** Shards of tables that name picture files; several tables are the parts of one, in one folder. */
export async function tableShards(
  paths: readonly string[],
  { shardSize, imageColumn, captionColumn }: SourceOptions,
): Promise<SourceShard[]> {
  const rows: CaptionRow[] = [];
  for (const path of paths)
    for (const row of await readCaptionTable(path, { imageColumn, captionColumn })) rows.push(row);
  const folder = dirname(paths[0]!);
  const path = paths.length === 1 ? paths[0]! : folder;
  return chunks(rows, shardSize).map((part, i) => ({
    ...numbered(i),
    label: `${path}, rows ${i * shardSize + 1} to ${i * shardSize + part.length}`,
    fingerprint: () =>
      stamp([...paths, ...part.flatMap(({ image }) => image ?? []).map((image) => resolve(folder, image))], folder),
    read: () => {
      const content: ShardContent = { samples: [], skipped: [] };
      const keys = new Set<string>();
      for (const [row, { image, caption, metadata }] of part.entries()) {
        if (image === null) {
          const message = `row ${i * shardSize + row + 1} names no picture`;
          content.skipped.push({ key: "", reason: "missing-image", message });
          continue;
        }
        const key = keyOf(image);
        take(content, key, () => {
          claimKey(keys, key, image);
          if (!isImageName(image)) skip("missing-image", `${image} is not called ${IMAGE_EXTENSIONS.join(", ")}`);
          if (caption === null) skip("missing-caption", "the cell holds no text");
          const file = resolve(folder, image);
          if (statsOf(file)?.isFile() !== true) skip("missing-image", `no file ${file}`);
          return {
            key,
            extension: imageExtension(image),
            image: { path: file, offset: 0, size: null },
            caption,
            metadata,
          };
        });
      }
      return content;
    },
  }));
}

/** Rows of a Parquet part. */
interface Rows {
  table: ParquetTable;
  start: number;
  end: number;
}

/** Shards of Parquet parts, which name picture files or hold the pictures. */
export async function parquetShards(paths: readonly string[], options: SourceOptions): Promise<SourceShard[]> {
  const tables: ParquetTable[] = [];
  for (const path of paths) tables.push(await openParquet(path));
  const columns = tables.map((table) => chooseColumns(table.path, new Set(table.columns), options));
  if (!tables.some((table, i) => table.holdsBytes(columns[i]!.image))) return tableShards(paths, options);
  const label = paths.length === 1 ? paths[0]! : dirname(paths[0]!);
  const total = tables.reduce((sum, { rows }) => sum + rows, 0);
  if (total === 0) throw new InvalidInputError(`${label}: holds no rows`);
  return Array.from({ length: Math.ceil(total / options.shardSize) }, (_, i) => {
    const first = i * options.shardSize;
    const parts = rowsBetween(tables, first, Math.min(total, first + options.shardSize));
    return {
      ...numbered(i),
      label: `${label}, rows ${first + 1} to ${Math.min(total, first + options.shardSize)}`,
      fingerprint: () =>
        stamp(
          parts.map(({ table }) => table.path),
          dirname(paths[0]!),
        ),
      read: async () => {
        const content: ShardContent = { samples: [], skipped: [] };
        const keys = new Set<string>();
        for (const rows of parts) await readParquetRows(rows, columns[tables.indexOf(rows.table)]!, content, keys);
        return content;
      },
    };
  });
}

function rowsBetween(tables: readonly ParquetTable[], start: number, end: number): Rows[] {
  let first = 0;
  return tables.flatMap((table) => {
    const from = Math.max(start - first, 0);
    const to = Math.min(end - first, table.rows);
    first += table.rows;
    return from < to ? [{ table, start: from, end: to }] : [];
  });
}

/**
 * Rows that hold their pictures, as a cell of bytes or as `datasets` does: a struct of `bytes`, which may be missing,
 * and `path`.
 */
async function readParquetRows(
  { table, start, end }: Rows,
  columns: { image: string; caption: string },
  content: ShardContent,
  keys: Set<string>,
): Promise<void> {
  const part = keyOf(basename(table.path));
  for (const [i, record] of (await table.read(start, end)).entries()) {
    const { [columns.image]: cell, [columns.caption]: text, ...others } = record;
    const { bytes, path } = pictureCell(cell);
    const named = path === null ? null : keyOf(path);
    // Names repeat in some tables; the row tells such pictures apart.
    const key = named !== null && !keys.has(named) ? named : `${part}/${String(start + i).padStart(8, "0")}`;
    take(content, key, () => {
      claimKey(keys, key, path ?? `row ${start + i + 1}`);
      const caption = textOf(parquetRow({ [columns.caption]: text }, table).get(columns.caption));
      const image = bytes === null ? pictureFile(table.path, path) : pictureBytes(table.path, bytes);
      if (caption === null || caption === "") skip("missing-caption", "the cell holds no text");
      return { key, ...image, caption, metadata: parquetRow(others, table) };
    });
  }
}

function pictureCell(cell: unknown): { bytes: Uint8Array | null; path: string | null } {
  if (cell instanceof Uint8Array) return { bytes: cell, path: null };
  if (typeof cell === "string") return { bytes: null, path: cell };
  const { bytes, path } = (cell ?? {}) as { bytes?: unknown; path?: unknown };
  return {
    bytes: bytes instanceof Uint8Array ? bytes : null,
    path: typeof path === "string" && path !== "" ? path : null,
  };
}

/** Endings of the formats that are decoded. */
const ENDINGS: Record<DecodedFormat, (typeof IMAGE_EXTENSIONS)[number]> = {
  jpeg: "jpg",
  png: "png",
  webp: "webp",
  gif: "gif",
  bmp: "bmp",
  tiff: "tif",
  avif: "avif",
};

function pictureBytes(path: string, bytes: Uint8Array): Pick<RawSample, "extension" | "image"> {
  const format = imageFormat(bytes);
  if (format === null) return skip("unsupported-image", `bytes of no known format (${bytes.length} bytes)`);
  // A copy of its own: the cell may be a view of a whole page.
  return { extension: ENDINGS[format], image: { path, offset: 0, size: bytes.length, bytes: new Uint8Array(bytes) } };
}

function pictureFile(table: string, path: string | null): Pick<RawSample, "extension" | "image"> {
  if (path === null) return skip("missing-image", "the cell is empty");
  if (!isImageName(path)) skip("missing-image", `${path} is not called ${IMAGE_EXTENSIONS.join(", ")}`);
  const file = resolve(dirname(table), path);
  if (statsOf(file)?.isFile() !== true) skip("missing-image", `no file ${file}`);
  return { extension: imageExtension(path), image: { path: file, offset: 0, size: null } };
}
