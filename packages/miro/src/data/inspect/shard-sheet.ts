/** A contact sheet of shards: pictures spread evenly over all samples, each with its caption and its scores. */
import { MiroError } from "../../errors.js";
import { decodeText } from "../../files/text-file.js";
import { decodeImage, IMAGE_EXTENSIONS } from "../../pictures/decode.js";
import { inRows, labelledSheet, type SheetCell } from "../../pictures/labelled-sheet.js";
import type { RgbImage } from "../../pictures/rgb.js";
import { sharp } from "../../pictures/sharp.js";
import { scoreFields } from "../dataset/numeric-fields.js";
import { readManifest } from "../preprocess/manifest.js";
import { PositionalFile } from "../shards/positional-file.js";
import { ShardSet } from "../shards/shard-set.js";
import { ShardTable } from "../shards/shard-table.js";

/** Options of {@link shardSheet}. */
export interface ShardSheetOptions {
  /** Pictures, default 24. */
  count?: number;
  /** Pictures in a row, default 6. */
  columns?: number;
  /** Side of a picture on the sheet, default 192 pixels. */
  cellSize?: number;
  signal?: AbortSignal;
}

/** Pictures with more pixels are not opened for a sheet. */
const MAX_PIXELS = 2 ** 27;
const CAPTION_LENGTH = 90;

/**
 * Draws a sheet.
 *
 * @param sources tar files, folders of tar files, index files
 * @throws MiroError when no sample has a picture
 */
export async function shardSheet(
  sources: string | readonly string[],
  { count = 24, columns = 6, cellSize = 192, signal }: ShardSheetOptions = {},
): Promise<RgbImage> {
  const set = await ShardSet.open({
    sources,
    onBadSample: "skip",
    maxBadRate: 1,
    brokenShards: "read",
    signal,
  });
  const cells: SheetCell[] = [];
  try {
    const total = set.shards.reduce((sum, shard) => sum + shard.count, 0);
    const shown = Math.min(count, total);
    let first = 0;
    let next = 0;
    for (const { path, count: samples } of set.shards) {
      const wanted: number[] = [];
      // The middle of each of `shown` equal parts.
      for (; next < shown; next++) {
        const at = Math.floor(((next + 0.5) * total) / shown) - first;
        if (at >= samples) break;
        wanted.push(at);
      }
      first += samples;
      if (wanted.length === 0) continue;
      signal?.throwIfAborted();
      const table = ShardTable.load(path);
      const file = PositionalFile.open(path);
      const orient = wereTurned(path);
      try {
        for (const sample of wanted) cells.push(await cellOf({ table, file, sample, side: cellSize, orient }));
      } finally {
        file.close();
      }
    }
  } finally {
    set.close();
  }
  if (!cells.some(({ image }) => image !== null)) {
    throw new MiroError(`${[sources].flat().join(", ")}: no sample has a picture that can be shown`);
  }
  return labelledSheet({ cells: inRows(cells, columns), cellSize });
}

/** Whether the latents of a shard were made of pictures turned as EXIF says: the sheet shows what is trained on. */
function wereTurned(shard: string): boolean {
  return readManifest(shard.replace(/\.tar$/, ".manifest.json"))?.settings.exifOrientation === true;
}

async function cellOf({
  table,
  file,
  sample,
  side,
  orient,
}: {
  table: ShardTable;
  file: PositionalFile;
  sample: number;
  side: number;
  orient: boolean;
}): Promise<SheetCell> {
  const read = (extension: string) => {
    const member = table.member(sample, extension);
    return member && file.read(member.offset, member.size);
  };
  const caption = captionOf(read("txt")).replace(/\s+/g, " ").trim();
  const scores = scoreFields(table.columns.keys())
    .map((name) => [name, table.value(sample, name)] as const)
    .filter(([, value]) => !Number.isNaN(value))
    .map(([name, value]) => `${name} ${value.toPrecision(3)}`);
  const text = caption.length > CAPTION_LENGTH ? `${caption.slice(0, CAPTION_LENGTH - 1)}…` : caption;
  const bytes = IMAGE_EXTENSIONS.map(read).find((found) => found !== null && found !== undefined);
  return {
    image: bytes ? await thumbnail(bytes, side, orient) : null,
    label: [text, ...scores].filter(Boolean).join("\n"),
  };
}

/** A caption, or why there is none to show: a sheet shows what is there. */
function captionOf(bytes: Uint8Array | null | undefined): string {
  try {
    return bytes ? decodeText(bytes, "the caption") : "";
  } catch (error) {
    return `(${(error as Error).message.split(";")[0]})`;
  }
}

/** A picture made to fit, or null when it cannot be read: a sheet shows what is there. */
async function thumbnail(bytes: Uint8Array, side: number, orient: boolean): Promise<RgbImage | null> {
  try {
    const { width, height, data: pixels } = await decodeImage(bytes, { maxPixels: MAX_PIXELS, orient });
    const { data, info } = await sharp(pixels, { raw: { width, height, channels: 3 } })
      .resize(side, side, { fit: "inside", withoutEnlargement: true })
      .raw()
      .toBuffer({ resolveWithObject: true });
    return { width: info.width, height: info.height, data };
  } catch {
    return null;
  }
}
