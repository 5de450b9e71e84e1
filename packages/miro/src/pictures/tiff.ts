/**
 * What a TIFF's first directory says of its pixels, as far as the decoder does not tell it (TIFF 6.0, and BigTIFF with
 * 64-bit offsets).
 */
import { badImage, ImageError } from "./image-error.js";

/** From a directory's tags. */
export interface TiffTags {
  /** 0: zero is white. */
  photometric: number;
}

const COMPRESSION = 259;
const PHOTOMETRIC = 262;
const YCBCR = 6;
/** Whose decoder makes RGB of YCbCr, old and new. */
const JPEG = [6, 7];
const TILE_OFFSETS = 324;
const TILE_SIZES = 325;
/** Bytes of a value, by its type. */
const VALUE_SIZES: Record<number, number> = { 3: 2, 4: 4, 16: 8 };

/**
 * Reads the first directory.
 * @throws ImageError when it, or a tile, lies beyond the end: the decoder leaves such tiles black without a word; and
 *   for YCbCr outside of JPEG, which it takes for RGB
 */
export function readTiffTags(bytes: Uint8Array): TiffTags {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const little = bytes[0] === 0x49;
  const integer = (at: number, size: number): number => {
    if (at + size > bytes.length) throw badImage(`the TIFF ends at byte ${bytes.length}, ${at + size} expected`);
    if (size === 2) return view.getUint16(at, little);
    return size === 4 ? view.getUint32(at, little) : Number(view.getBigUint64(at, little));
  };
  const big = integer(2, 2) === 43;
  const word = big ? 8 : 4;
  const start = integer(big ? 8 : 4, word);
  const count = integer(start, big ? 8 : 2);
  const first = start + (big ? 8 : 2);
  const entrySize = 4 + 2 * word;
  const values = (tag: number): number[] => {
    for (let at = first, i = 0; i < count; i++, at += entrySize) {
      if (integer(at, 2) !== tag) continue;
      const size = VALUE_SIZES[integer(at + 2, 2)];
      if (size === undefined) return [];
      const length = integer(at + 4, word);
      const from = length * size <= word ? at + 4 + word : integer(at + 4 + word, word);
      if (from + length * size > bytes.length) throw badImage(`the TIFF ends within the values of tag ${tag}`);
      return Array.from({ length }, (_, n) => integer(from + n * size, size));
    }
    return [];
  };
  const sizes = values(TILE_SIZES);
  for (const [i, offset] of values(TILE_OFFSETS).entries()) {
    const end = offset + (sizes[i] ?? 0);
    if (end > bytes.length) throw badImage(`the TIFF ends at byte ${bytes.length}, its tile ${i + 1} at ${end}`);
  }
  const photometric = values(PHOTOMETRIC)[0] ?? 1;
  if (photometric === YCBCR && !JPEG.includes(values(COMPRESSION)[0] ?? 1))
    throw new ImageError("unsupported-image", "a TIFF of YCbCr that is not compressed as JPEG; save it as RGB");
  return { photometric };
}
