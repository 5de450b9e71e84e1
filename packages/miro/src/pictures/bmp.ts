/**
 * Windows and OS/2 bitmaps as Pillow reads them: 1, 4 and 8 bits with a palette, 16, 24 and 32 bits, the bit fields
 * that are in use, run lengths of 4 and 8 bits, rows from the bottom or from the top. Alpha is dropped.
 *
 * No decoder here follows Pillow in what it makes of a palette: one of black and white makes a picture of one bit a
 * pixel, one that counts up from 0 makes a grey picture, and both then leave the palette out.
 */
import { badImage, checkSize } from "./image-error.js";
import type { RgbImage } from "./rgb.js";

const HEADER_SIZES = [12, 40, 52, 56, 64, 108, 124];
const RAW = 0;
const RLE8 = 1;
const RLE4 = 2;
const BIT_FIELDS = 3;

type Order = readonly [number, number, number];

/** Where red, green and blue stand in a pixel of 32 bits, by its masks (red, green, blue, alpha). */
const ORDERS_32: Record<string, Order> = {
  "ff0000 ff00 ff 0": [2, 1, 0],
  "ff000000 ff0000 ff00 0": [3, 2, 1],
  "ff000000 ff00 ff 0": [3, 1, 0],
  "ff000000 ff0000 ff00 ff": [3, 2, 1],
  "ff ff00 ff0000 ff000000": [0, 1, 2],
  "ff0000 ff00 ff ff000000": [2, 1, 0],
  "ff000000 ff00 ff ff0000": [3, 1, 0],
  "0 0 0 0": [2, 1, 0],
};
/** The same of 24 bits (red, green, blue). */
const ORDERS_24: Record<string, Order> = { "ff0000 ff00 ff": [2, 1, 0] };
/** Bits of green by the masks of 16 bits. */
const GREEN_16: Record<string, number> = { "7c00 3e0 1f": 5, "f800 7e0 1f": 6 };

interface Header {
  width: number;
  height: number;
  bits: number;
  compression: number;
  topDown: boolean;
  /** Red, green, blue and alpha; null without bit fields. */
  masks: number[] | null;
  palette: Palette | null;
  /** Where the pixels begin. */
  data: number;
}

/** `bilevel`: one bit, black or white. `grey`: the index is the value. Else 256 colours. */
type Palette = "bilevel" | "grey" | Uint8Array;

/** Puts the colour of a picture's pixel, in the file's order of rows. */
type Put = (x: number, row: number, red: number, green: number, blue: number) => void;

/** Decodes a bitmap. @throws ImageError */
export function decodeBmp(bytes: Uint8Array, maxPixels: number): RgbImage {
  const header = readHeader(bytes, maxPixels);
  const { width, height, topDown, compression, bits, palette } = header;
  const data = new Uint8Array(width * height * 3);
  const put: Put = (x, row, red, green, blue) => {
    const at = ((topDown ? row : height - 1 - row) * width + x) * 3;
    data[at] = red;
    data[at + 1] = green;
    data[at + 2] = blue;
  };
  if (compression === RLE8 || compression === RLE4) {
    if (palette === null) throw badImage(`a bitmap of ${bits} bits has no run lengths`);
    const indices = expandRuns(bytes, header);
    for (let i = 0; i < width * height; i++) putIndex(put, palette, i % width, Math.floor(i / width), indices[i]!);
  } else if (palette !== null) readIndices(bytes, header, palette, put);
  else if (bits === 16) readWords(bytes, header, put);
  else readBytes(bytes, header, put);
  return { width, height, data };
}

function readHeader(bytes: Uint8Array, maxPixels: number): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const need = (end: number): void => {
    if (end > bytes.length) throw badImage(`the bitmap's header ends at byte ${bytes.length}, ${end} expected`);
  };
  need(18);
  const size = view.getUint32(14, true);
  if (!HEADER_SIZES.includes(size)) {
    throw badImage(`a bitmap's header has ${HEADER_SIZES.join(", ")} bytes, found ${size}`);
  }
  need(14 + size);
  const old = size === 12;
  const topDown = !old && bytes[25] === 255;
  const width = old ? view.getUint16(18, true) : view.getUint32(18, true);
  const stored = old ? view.getUint16(20, true) : view.getUint32(22, true);
  const height = topDown ? 2 ** 32 - stored : stored;
  const bits = view.getUint16(old ? 24 : 28, true);
  const compression = old ? RAW : view.getUint32(30, true);
  checkSize(width, height, maxPixels);
  if (![1, 4, 8, 16, 24, 32].includes(bits)) {
    throw badImage(`a bitmap has 1, 4, 8, 16, 24 or 32 bits a pixel, found ${bits}`);
  }
  if (compression > BIT_FIELDS) throw badImage(`a bitmap's compression is 0 to ${BIT_FIELDS}, found ${compression}`);
  let at = 14 + size;
  let masks: number[] | null = null;
  if (compression === BIT_FIELDS) {
    if (bits <= 8) throw badImage(`a bitmap of ${bits} bits has no bit fields`);
    // A header of 40 bytes is followed by three masks; a longer one holds them, with that of alpha from 56 bytes on.
    const count = size >= 56 ? 4 : 3;
    need(54 + 4 * count);
    masks = Array.from({ length: 4 }, (_, i) => (i < count ? view.getUint32(54 + 4 * i, true) : 0));
    if (size === 40) at += 12;
  }
  let data = view.getUint32(10, true);
  let palette: Palette | null = null;
  if (bits <= 8) {
    const count = (old ? 0 : view.getUint32(46, true)) || 2 ** bits;
    const entrySize = old ? 3 : 4;
    if (data === 14 + size) data += entrySize * count;
    const entries = bytes.subarray(at, at + entrySize * count);
    palette = readPalette(entries, entrySize, count);
    at += entries.length;
  }
  return { width, height, bits, compression, topDown, masks, palette, data: data || at };
}

function readPalette(entries: Uint8Array, entrySize: number, count: number): Palette {
  const whole = Math.floor(entries.length / entrySize);
  const isRamp = (step: number) =>
    whole >= count &&
    Array.from({ length: count }, (_, i) => i).every((i) =>
      [0, 1, 2].every((c) => entries[i * entrySize + c] === i * step),
    );
  if (count <= 256 && isRamp(count === 2 ? 255 : 1)) return count <= 2 ? "bilevel" : "grey";
  if (whole > 256) throw badImage(`a palette has at most 256 colours, found ${whole}`);
  // Colours that the palette does not have are black.
  const palette = new Uint8Array(768);
  for (let i = 0; i < whole; i++) for (let c = 0; c < 3; c++) palette[i * 3 + c] = entries[i * entrySize + 2 - c]!;
  return palette;
}

function putIndex(put: Put, palette: Palette, x: number, row: number, index: number): void {
  if (typeof palette === "string") {
    const value = palette === "grey" || index === 0 ? index : 255;
    put(x, row, value, value, value);
  } else put(x, row, palette[index * 3]!, palette[index * 3 + 1]!, palette[index * 3 + 2]!);
}

/** Bytes of a row, a multiple of 4. @throws ImageError when the rows go beyond the end */
function rowSize(bytes: Uint8Array, { width, height, bits, data }: Header, pixelBits = bits): number {
  const stride = Math.floor((width * bits + 31) / 32) * 4;
  const used = Math.ceil((width * pixelBits) / 8);
  if (used > stride) throw badImage(`rows of ${stride} bytes are too short for ${width} pixels of ${pixelBits} bits`);
  const end = data + stride * (height - 1) + used;
  if (end > bytes.length) throw badImage(`the bitmap ends at byte ${bytes.length}, ${end} expected`);
  return stride;
}

function readIndices(bytes: Uint8Array, header: Header, palette: Palette, put: Put): void {
  const pixelBits = palette === "bilevel" ? 1 : palette === "grey" ? 8 : header.bits;
  const stride = rowSize(bytes, header, pixelBits);
  const mask = (1 << pixelBits) - 1;
  for (let row = 0; row < header.height; row++) {
    const start = header.data + row * stride;
    for (let x = 0; x < header.width; x++) {
      const bit = x * pixelBits;
      putIndex(put, palette, x, row, (bytes[start + (bit >> 3)]! >> (8 - pixelBits - (bit & 7))) & mask);
    }
  }
}

/** What a table has for a bitmap's masks, its own layout without any. @throws ImageError */
function byMasks<T>(table: Record<string, T>, { masks, bits }: Header, used: number, without: T): T {
  if (masks === null) return without;
  const layout = masks.slice(0, used).map((mask) => mask.toString(16));
  const found = table[layout.join(" ")];
  if (found === undefined) throw badImage(`no layout of ${bits} bits has the masks ${layout.join(", ")}`);
  return found;
}

/** 16 bits: five a colour, or six for green. */
function readWords(bytes: Uint8Array, header: Header, put: Put): void {
  const stride = rowSize(bytes, header);
  const green = byMasks(GREEN_16, header, 3, 5);
  const scaled = (value: number, bits: number) => Math.floor(((value & ((1 << bits) - 1)) * 255) / ((1 << bits) - 1));
  for (let row = 0; row < header.height; row++) {
    for (let x = 0; x < header.width; x++) {
      const at = header.data + row * stride + x * 2;
      const word = bytes[at]! | (bytes[at + 1]! << 8);
      put(x, row, scaled(word >> (5 + green), 5), scaled(word >> 5, green), scaled(word, 5));
    }
  }
}

/** 24 and 32 bits. */
function readBytes(bytes: Uint8Array, header: Header, put: Put): void {
  const stride = rowSize(bytes, header);
  const size = header.bits / 8;
  const [red, green, blue] = byMasks(size === 4 ? ORDERS_32 : ORDERS_24, header, size, [2, 1, 0]);
  for (let row = 0; row < header.height; row++) {
    for (let x = 0; x < header.width; x++) {
      const at = header.data + row * stride + x * size;
      put(x, row, bytes[at + red]!, bytes[at + green]!, bytes[at + blue]!);
    }
  }
}

/**
 * Run lengths: pairs of a count and a value; a count of 0 begins an end of line, an end, a jump, or values as they
 * are.
 */
function expandRuns(bytes: Uint8Array, { width, height, compression, data }: Header): Uint8Array {
  const four = compression === RLE4;
  const total = width * height;
  const out = new Uint8Array(total);
  let [at, length, x] = [data, 0, 0];
  const push = (value: number): void => {
    if (length < total) out[length] = value;
    length++;
  };
  while (length < total && at + 2 <= bytes.length) {
    const [count, value] = [bytes[at]!, bytes[at + 1]!];
    at += 2;
    if (count > 0) {
      const room = Math.max(0, Math.min(count, width - x));
      for (let i = 0; i < room; i++) push(four ? (i % 2 === 0 ? value >> 4 : value & 15) : value);
      x += room;
    } else if (value === 0) {
      length = Math.ceil(length / width) * width;
      x = 0;
    } else if (value === 1) break;
    else if (value === 2) {
      if (at + 2 > bytes.length) break;
      length = Math.min(total, length + bytes[at]! + bytes[at + 1]! * width);
      at += 2;
      x = length % width;
    } else {
      const pixels = Math.min(total - length, value);
      const size = four ? Math.ceil(pixels / 2) : pixels;
      const available = Math.min(size, bytes.length - at);
      for (let i = 0; i < available; i++) {
        const byte = bytes[at + i]!;
        push(four ? byte >> 4 : byte);
        if (four && i * 2 + 1 < pixels) push(byte & 15);
      }
      at += available;
      if (available < size) break;
      x += value;
      at += at % 2;
    }
  }
  if (length < total) throw badImage(`the bitmap's run lengths end after ${length} of ${total} pixels`);
  return out;
}
