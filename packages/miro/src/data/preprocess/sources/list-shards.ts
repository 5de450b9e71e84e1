/**
 * Where raw samples come from: tar shards (picture + txt + json), a folder of pictures with captions beside them, or a
 * table of captions (CSV, TSV, JSONL, Parquet or a folder of Parquet parts) with a column of picture files, or in
 * Parquet of pictures. All of them become shards of located samples; of pictures nothing is read here but those that
 * Parquet holds.
 */
import { readdirSync, statSync } from "node:fs";
import { extname, join } from "node:path";
import { InvalidInputError, systemReason } from "../../../errors.js";
import { byCodePoint } from "../../../files/code-point-order.js";
import { folderShards } from "./folder-source.js";
import { findPictures } from "./picture-folder.js";
import { isImageName, type SourceOptions, type SourceShard } from "./raw-sample.js";
import { parquetShards, tableShards } from "./table-source.js";
import { tarShard } from "./tar-source.js";

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
