/** Raw samples of a folder of pictures: the caption is `name.txt`, or the field `caption` or `text` of `name.json`. */
import { extname, join } from "node:path";
import { InvalidInputError } from "../../../errors.js";
import { byCodePoint } from "../../../files/code-point-order.js";
import type { PythonJson } from "../../../files/python-json.js";
import { readBytes } from "../../../files/whole-files.js";
import { IMAGE_EXTENSIONS } from "../../../pictures/decode.js";
import { compressedTars } from "../../shards/compressed.js";
import { isTable } from "./caption-table.js";
import { type LeftOut, type PictureFolder, statsOf } from "./picture-folder.js";
import {
  chunks,
  claimKey,
  decodeJson,
  decodeText,
  imageExtension,
  keyOf,
  limited,
  numbered,
  type ShardContent,
  type Skipped,
  type SourceOptions,
  type SourceShard,
  skip,
  stamp,
  take,
} from "./raw-sample.js";

export function folderShards(
  source: string,
  { pictures, leftOut }: PictureFolder,
  names: readonly string[],
  { shardSize }: SourceOptions,
): SourceShard[] {
  pictures.sort(byCodePoint);
  if (pictures.length === 0) {
    const kinds = IMAGE_EXTENSIONS.map((name) => `*.${name}`).join(", ");
    const [compressed] = compressedTars(names);
    const packed = compressed === undefined ? "" : `; ${compressed} is compressed: unpack such files`;
    const others = leftOut.length > 0 ? `; left out: ${leftOut[0]!.message}` : packed;
    throw new InvalidInputError(`${source}: holds no *.tar, no pictures (${kinds}) and no *.parquet${others}`);
  }
  const hasText = (path: string) =>
    [".txt", ".json"].some((end) => statsOf(besideOf(join(source, path), end))?.isFile());
  if (!pictures.some(hasText)) throw withoutCaptions(source, pictures, names);
  return chunks(pictures, shardSize).map((part, i) => {
    const beside = (path: string, extension: string) => besideOf(join(source, path), extension);
    return {
      ...numbered(i),
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
