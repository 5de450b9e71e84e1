/**
 * Where raw samples come from: tar shards (picture + txt + json), a folder of pictures with captions beside them, or a
 * table of captions (CSV, TSV, JSONL, Parquet or a folder of Parquet parts) with a column of picture files, or in
 * Parquet of pictures. All of them become shards of located samples; of pictures nothing is read here but those that
 * Parquet holds.
 *
 * In a tar a sample needs all three members, as in the published preparation. In a folder the caption is `name.txt`, or
 * the field `caption` or `text` of `name.json`. In a table it is a column, and the other columns become the sample's
 * JSON.
 */
import { createHash } from "node:crypto";
import { readdirSync, statSync } from "node:fs";
import { basename, dirname, extname, join, relative, resolve } from "node:path";
import { InvalidInputError, MiroError, systemReason } from "../../errors.js";
import { byCodePoint } from "../../files/code-point-order.js";
import { type PythonJson, parsePythonJson } from "../../files/python-json.js";
import { decodeText as decode, hasLoneSurrogate } from "../../files/text-file.js";
import { readBytes } from "../../files/whole-files.js";
import { type DecodedFormat, IMAGE_EXTENSIONS, imageFormat } from "../../pictures/decode.js";
import { fingerprintOf } from "../shards/positional-file.js";
import { groupSamples, splitMemberName } from "../shards/sample-key.js";
import { CUT_REMEDY, cutProblem, problemText, ShardError } from "../shards/shard-error.js";
import { TarFile } from "../shards/tar-file.js";
import { type CaptionRow, chooseColumns, isTable, parquetRow, readCaptionTable, textOf } from "./caption-table.js";
import { openParquet, type ParquetTable } from "./parquet-table.js";
import { findPictures, type LeftOut, statsOf } from "./picture-folder.js";

/** A caption or JSON larger than this is no such thing. */
const MAX_TEXT_BYTES = 16 * 2 ** 20;

/** Why a sample was left out. */
export type SkipReason =
  | "archive"
  | "hidden"
  | "missing-image"
  | "missing-caption"
  | "missing-json"
  | "bad-caption"
  | "bad-json"
  | "bad-name"
  | "duplicate-member"
  | "duplicate-key"
  | "unreadable"
  | "unsupported-image"
  | "image-too-large"
  | "bad-image"
  | "score-failed"
  | "not-finite"
  | "no-scores";

/** A sample, or part of an archive, that was left out. */
export interface Skipped {
  /** The sample's key, or "" for what belongs to none. */
  key: string;
  reason: SkipReason;
  message: string;
  /** The one column that the sample lacks, where it is not left out as a whole. */
  column?: string;
}

/** Bytes somewhere in a file. */
export interface Piece {
  path: string;
  offset: number;
  /** Bytes; null for the whole file. */
  size: number | null;
  /** The bytes themselves, where no file holds them as they are. */
  bytes?: Uint8Array;
}

/** A sample whose texts are read and whose picture is not. */
export interface RawSample {
  key: string;
  /** The picture's extension, one of {@link IMAGE_EXTENSIONS}. */
  extension: string;
  image: Piece;
  /** The original caption, as it is. */
  caption: string;
  metadata: Map<string, PythonJson>;
}

/** A shard's samples in order, and what is left out. */
export interface ShardContent {
  samples: RawSample[];
  skipped: Skipped[];
}

/** A shard before anything of it is read. */
export interface SourceShard {
  /** Name of the enriched tar without its extension, and stem of the CSV. */
  stem: string;
  /** Path or name, for messages. */
  label: string;
  /** Changes with the content: sizes and times of the files. */
  fingerprint(): string;
  /** Reads captions and JSON. @throws MiroError when there is nothing to read from */
  read(): ShardContent | Promise<ShardContent>;
}

/** The number of samples that a shard holds, those that are left out included. */
export function seenSamples({ samples, skipped }: ShardContent): number {
  return samples.length + new Set(skipped.filter(({ reason }) => reason !== "hidden").map(({ key }) => key)).size;
}

/** How samples are found. */
export interface SourceOptions {
  /** Pictures of one shard, where the source is not cut into shards already. */
  shardSize: number;
  /** Column of a table that names the picture; default: the first known name. */
  imageColumn?: string | undefined;
  captionColumn?: string | undefined;
}

/**
 * The shards of a source, in order of their names.
 * @param source a folder of `*.tar`, of pictures or of Parquet parts, or a table of captions
 * @throws InvalidInputError when it is none of these or holds nothing
 */
export async function listShards(source: string, options: SourceOptions): Promise<SourceShard[]> {
  let isFolder: boolean;
  try {
    isFolder = statSync(source).isDirectory();
  } catch (error) {
    throw new InvalidInputError(`${source}: cannot be read: ${systemReason(error)}`, { cause: error });
  }
  if (!isFolder) return isParquet(source) ? parquetShards([source], options) : tableShards([source], options);
  const names = listFolder(source);
  const tars = names.filter((name) => name.endsWith(".tar") && !name.startsWith(".")).sort(byCodePoint);
  if (tars.length > 0) return tars.map((name) => tarShard(join(source, name)));
  const found = findPictures(source, isImageName);
  const parts = names.filter((name) => isParquet(name) && !/^[._]/.test(name)).sort(byCodePoint);
  if (found.pictures.length === 0 && parts.length > 0) {
    return parquetShards(
      parts.map((name) => join(source, name)),
      options,
    );
  }
  return folderShards(source, found, names, options);
}

function isParquet(path: string): boolean {
  return extname(path).toLowerCase() === ".parquet";
}

function listFolder(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    throw new InvalidInputError(`${folder}: cannot be read: ${systemReason(error)}`, { cause: error });
  }
}

function tarShard(path: string): SourceShard {
  return {
    stem: basename(path, ".tar"),
    label: path,
    fingerprint: () => stamp([path], dirname(path)),
    read: () => readTar(path),
  };
}

function readTar(path: string): ShardContent {
  const tar = TarFile.open(path, { policy: "skip" });
  try {
    const cut = cutProblem(tar.problems);
    if (cut !== undefined) throw new ShardError(cut, { remedy: CUT_REMEDY });
    const content: ShardContent = {
      samples: [],
      skipped: tar.problems.map((problem) => ({
        key: problem.member === undefined ? "" : (splitMemberName(problem.member)?.key ?? ""),
        reason: "archive",
        message: problemText(problem),
      })),
    };
    for (const { key, members, duplicates } of groupSamples(tar.members)) {
      for (const { name } of duplicates)
        content.skipped.push({ key, reason: "duplicate-member", message: `${name} again; the first one counts` });
      const extension = IMAGE_EXTENSIONS.find((name) => members.has(name));
      const text = members.get("txt");
      const json = members.get("json");
      take(content, key, () => {
        if (extension === undefined) skip("missing-image", `none of ${IMAGE_EXTENSIONS.join(", ")}`);
        if (text === undefined) skip("missing-caption", "no txt");
        if (json === undefined) skip("missing-json", "no json");
        const image = members.get(extension!)!;
        return {
          key,
          extension: extension!,
          image: { path, offset: image.offset, size: image.size },
          caption: decodeText(
            limited(text!.size, () => tar.read(text!)),
            "bad-caption",
          ),
          metadata: decodeJson(limited(json!.size, () => tar.read(json!))),
        };
      });
    }
    return content;
  } finally {
    tar.close();
  }
}

function limited(size: number, read: () => Uint8Array): Uint8Array {
  if (size > MAX_TEXT_BYTES) skip("bad-json", `a text of ${size} bytes; at most ${MAX_TEXT_BYTES} are read`);
  return read();
}

function folderShards(
  source: string,
  { pictures, leftOut }: ReturnType<typeof findPictures>,
  names: readonly string[],
  { shardSize }: SourceOptions,
): SourceShard[] {
  pictures.sort(byCodePoint);
  if (pictures.length === 0) {
    const kinds = IMAGE_EXTENSIONS.map((name) => `*.${name}`).join(", ");
    const others = leftOut.length > 0 ? `; left out: ${leftOut[0]!.message}` : "";
    throw new InvalidInputError(`${source}: holds no *.tar, no pictures (${kinds}) and no *.parquet${others}`);
  }
  const hasText = (path: string) =>
    [".txt", ".json"].some((end) => statsOf(besideOf(join(source, path), end))?.isFile());
  if (!pictures.some(hasText)) throw withoutCaptions(source, pictures, names);
  return chunks(pictures, shardSize).map((part, i) => {
    const beside = (path: string, extension: string) => besideOf(join(source, path), extension);
    return {
      stem: shardStem(i),
      label: `${source}, pictures ${i * shardSize} to ${i * shardSize + part.length - 1}`,
      fingerprint: () =>
        stamp(
          part.flatMap((path) => [join(source, path), beside(path, ".txt"), beside(path, ".json")]),
          source,
        ),
      read: () => {
        const content: ShardContent = { samples: [], skipped: i === 0 ? leftOut.map(skippedOf) : [] };
        const keys = new Set<string>();
        for (const path of part) {
          const key = keyOf(path);
          take(content, key, () => {
            claimKey(keys, key, path);
            const text = readBeside(beside(path, ".txt"));
            const json = readBeside(beside(path, ".json"));
            const metadata = json === null ? new Map<string, PythonJson>() : decodeJson(json);
            return {
              key,
              extension: imageExtension(path),
              image: { path: join(source, path), offset: 0, size: null },
              caption: text === null ? captionField(metadata) : decodeText(text, "bad-caption"),
              metadata,
            };
          });
        }
        return content;
      },
    };
  });
}

/** The error about a folder of pictures none of which has a file of text beside it. */
function withoutCaptions(source: string, pictures: readonly string[], names: readonly string[]): InvalidInputError {
  const [first] = pictures;
  const stem = first!.slice(0, -extname(first!).length);
  const table = names.find((name) => isTable(name));
  const other =
    table === undefined
      ? "a table (.csv with the columns image and caption) in place of the folder does as well"
      : `if ${table} is a table of captions, name that file in place of the folder`;
  const holds =
    pictures.length === 1 ? "its picture has no caption" : `none of its ${pictures.length} pictures has a caption`;
  return new InvalidInputError(
    `${source}: ${holds}; expected a text file beside each (${stem}.txt for ${first}), or ${stem}.json with a field caption or text; ${other}`,
  );
}

/** Belongs to no sample: what is left out before there are samples is counted with the first shard. */
function skippedOf({ reason, message }: LeftOut): Skipped {
  return { key: "", reason, message };
}

/** Shards of tables that name picture files; several tables are the parts of one, in one folder. */
async function tableShards(
  paths: readonly string[],
  { shardSize, imageColumn, captionColumn }: SourceOptions,
): Promise<SourceShard[]> {
  const rows: CaptionRow[] = [];
  for (const path of paths)
    for (const row of await readCaptionTable(path, { imageColumn, captionColumn })) rows.push(row);
  const folder = dirname(paths[0]!);
  const path = paths.length === 1 ? paths[0]! : folder;
  return chunks(rows, shardSize).map((part, i) => ({
    stem: shardStem(i),
    label: `${path}, rows ${i * shardSize + 1} to ${i * shardSize + part.length}`,
    fingerprint: () => stamp([...paths, ...part.map(({ image }) => resolve(folder, image))], folder),
    read: () => {
      const content: ShardContent = { samples: [], skipped: [] };
      const keys = new Set<string>();
      for (const { image, caption, metadata } of part) {
        const key = keyOf(image);
        take(content, key, () => {
          claimKey(keys, key, image);
          if (!isImageName(image)) skip("missing-image", `${image} is not called ${IMAGE_EXTENSIONS.join(", ")}`);
          if (caption === null) skip("missing-caption", "the cell is empty");
          const file = resolve(folder, image);
          if (statsOf(file)?.isFile() !== true) skip("missing-image", `no file ${file}`);
          return {
            key,
            extension: imageExtension(image),
            image: { path: file, offset: 0, size: null },
            caption: caption!,
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
async function parquetShards(paths: readonly string[], options: SourceOptions): Promise<SourceShard[]> {
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
      stem: shardStem(i),
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
      if (caption === null || caption === "") skip("missing-caption", "the cell is empty");
      return { key, ...image, caption: caption!, metadata: parquetRow(others, table) };
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

/** Ends a sample's reading with a reason. */
class SkipError extends Error {
  constructor(
    readonly reason: SkipReason,
    message: string,
  ) {
    super(message);
  }
}

function skip(reason: SkipReason, message: string): never {
  throw new SkipError(reason, message);
}

/** Adds the sample that `make` makes, or the reason why there is none. */
function take(content: ShardContent, key: string, make: () => RawSample): void {
  try {
    const sample = make();
    if (hasLoneSurrogate(sample.caption))
      skip("bad-caption", "half of a character of UTF-16, which no text file can hold");
    content.samples.push(sample);
  } catch (error) {
    const reason = error instanceof SkipError ? error.reason : "unreadable";
    if (!(error instanceof SkipError || error instanceof MiroError)) throw error;
    content.skipped.push({ key, reason, message: (error as Error).message });
  }
}

function decodeText(bytes: Uint8Array, reason: SkipReason): string {
  try {
    return decode(bytes, "the text");
  } catch (error) {
    return skip(reason, (error as Error).message);
  }
}

function decodeJson(bytes: Uint8Array): Map<string, PythonJson> {
  let value: PythonJson;
  try {
    value = parsePythonJson(decodeText(bytes, "bad-json"));
  } catch (error) {
    if (error instanceof SkipError) throw error;
    return skip("bad-json", (error as Error).message);
  }
  return value instanceof Map ? value : skip("bad-json", "not an object");
}

function captionField(metadata: ReadonlyMap<string, PythonJson>): string {
  for (const name of ["caption", "text"]) {
    const value = metadata.get(name);
    if (typeof value === "string") return value;
  }
  return skip("missing-caption", "no .txt beside it, and no field caption or text in a .json");
}

/**
 * The file beside a picture with another ending: in small letters, else in capitals, as systems that do not tell them
 * apart write it.
 */
function besideOf(picture: string, extension: string): string {
  const stem = picture.slice(0, -extname(picture).length);
  const usual = stem + extension;
  const capitals = stem + extension.toUpperCase();
  return statsOf(usual) === undefined && statsOf(capitals)?.isFile() === true ? capitals : usual;
}

function readBeside(path: string): Uint8Array | null {
  const stats = statsOf(path);
  if (stats?.isFile() !== true) return null;
  return limited(stats.size, () => readBytes(path));
}

/** The key of a picture's path: without its extension; what cannot be in a key becomes `_`. */
function keyOf(path: string): string {
  const parts = path.slice(0, path.length - extname(path).length).split(/[\\/]/);
  return (
    parts
      .filter((part) => part !== "" && part !== "." && part !== "..")
      .join("/")
      .replaceAll(".", "_") || "_"
  );
}

function claimKey(keys: Set<string>, key: string, path: string): void {
  if (keys.has(key)) skip("duplicate-key", `${path} has the key of an earlier picture`);
  keys.add(key);
}

function imageExtension(path: string): string {
  return extname(path).slice(1).toLowerCase();
}

function isImageName(path: string): boolean {
  return (IMAGE_EXTENSIONS as readonly string[]).includes(imageExtension(path));
}

function shardStem(index: number): string {
  return String(index).padStart(5, "0");
}

function chunks<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size));
}

/** A digest of names, sizes and times of files; those that are not there count too. */
function stamp(paths: readonly string[], base: string): string {
  const hash = createHash("sha256");
  for (const path of paths) {
    const stats = statsOf(path);
    hash.update(JSON.stringify([relative(base, path), stats === undefined ? null : fingerprintOf(stats)]));
  }
  return hash.digest("hex");
}
