/**
 * The first frame of a GIF as Pillow reads it (GIF89a specification; LZW by its appendix F).
 *
 * General decoders make transparent pixels black and leave out what lies outside of the frame. Pillow keeps the colour
 * that the palette has for the transparent index, fills the rest of the screen with that index (or 0), grows the screen
 * to the frame, and stops at the last pixel, whatever follows.
 */
import { badImage, checkSize } from "./image-error.js";
import type { RgbImage } from "./rgb.js";

const CODE_BITS = 12;
const TABLE_SIZE = 2 ** CODE_BITS;

interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
  interlaced: boolean;
  /** Colours of the frame, three bytes each; null where every index is its own grey value. */
  palette: Uint8Array | null;
  /** Index of the transparent colour; 0 where there is none. */
  fill: number;
  /** Where the code size stands. */
  data: number;
}

/** Decodes the first frame. @throws ImageError */
export function decodeGif(bytes: Uint8Array, maxPixels: number): RgbImage {
  const { screen, frame } = readHeader(bytes);
  const width = Math.max(screen.width, frame.left + frame.width);
  const height = Math.max(screen.height, frame.top + frame.height);
  checkSize(frame.width, frame.height, maxPixels);
  checkSize(width, height, maxPixels);
  const indices = expand(bytes, frame.data, frame.width * frame.height);
  const colours = allColours(frame.palette);
  const data = new Uint8Array(width * height * 3);
  const paint = (pixel: number, index: number) => {
    for (let c = 0; c < 3; c++) data[pixel * 3 + c] = colours[index * 3 + c]!;
  };
  if (frame.width < width || frame.height < height) {
    for (let pixel = 0; pixel < width * height; pixel++) paint(pixel, frame.fill);
  }
  let from = 0;
  for (const y of rowOrder(frame)) {
    const row = (frame.top + y) * width + frame.left;
    for (let x = 0; x < frame.width; x++) paint(row + x, indices[from++]!);
  }
  return { width, height, data };
}

/** All 256 colours: black where the palette has none, grey without a palette. */
function allColours(palette: Uint8Array | null): Uint8Array {
  if (palette === null) return Uint8Array.from({ length: 768 }, (_, i) => Math.floor(i / 3));
  const colours = new Uint8Array(768);
  colours.set(palette);
  return colours;
}

function* rowOrder({ height, interlaced }: Frame): Generator<number> {
  for (const [first, step] of interlaced ? INTERLACED : PROGRESSIVE) {
    for (let y = first; y < height; y += step) yield y;
  }
}

/** First row and step of each pass. */
const INTERLACED = [[0, 8] as const, [4, 8] as const, [2, 4] as const, [1, 2] as const];
const PROGRESSIVE = [[0, 1] as const];

/** Reads up to the first frame. */
function readHeader(bytes: Uint8Array): { screen: { width: number; height: number }; frame: Frame } {
  let at = 6;
  const byte = (): number => {
    if (at >= bytes.length) throw badImage("the GIF ends before its first frame");
    return bytes[at++]!;
  };
  const word = (): number => byte() | (byte() << 8);
  /** A palette; null for one that counts up from black, which Pillow takes as none. */
  const colours = (flags: number): Uint8Array | null => {
    const size = 3 << ((flags & 7) + 1);
    at += size;
    const palette = bytes.subarray(at - size, at);
    return palette.every((value, i) => value === Math.floor(i / 3)) ? null : palette;
  };
  /** The next sub-block, null at the end of a chain. */
  const block = (): Uint8Array | null => {
    const size = byte();
    at += size;
    return size === 0 ? null : bytes.subarray(at - size, at);
  };

  const screen = { width: word(), height: word() };
  const flags = byte();
  at += 2;
  let palette = flags & 128 ? colours(flags) : null;
  let fill = 0;
  for (;;) {
    const kind = byte();
    if (kind === 0x3b) throw badImage("the GIF has no frame");
    if (kind === 0x21) {
      const isControl = byte() === 0xf9;
      let part = block();
      if (isControl && part !== null && part.length > 3 && part[0]! & 1) fill = part[3]!;
      while (part !== null) part = block();
    } else if (kind === 0x2c) {
      const [left, top, width, height, frameFlags] = [word(), word(), word(), word(), byte()];
      if (frameFlags & 128) palette = colours(frameFlags) ?? palette;
      const interlaced = (frameFlags & 64) !== 0;
      return { screen, frame: { left, top, width, height, interlaced, palette, fill, data: at } };
    }
  }
}

/** Expands `count` indices. @throws ImageError where a code is wrong or the data end before them */
function expand(bytes: Uint8Array, start: number, count: number): Uint8Array {
  const bits = bytes[start] ?? 0;
  if (bits > CODE_BITS) throw badImage(`a GIF's code size is at most ${CODE_BITS}, found ${bits}`);
  const clear = 1 << bits;
  const prefix = new Uint16Array(TABLE_SIZE);
  const suffix = new Uint8Array(TABLE_SIZE);
  /** Symbols of a string from its last to its first. */
  const stack = new Uint8Array(TABLE_SIZE + 1);
  const out = new Uint8Array(count);
  let [at, left, buffer, available] = [start + 1, 0, 0, 0];
  let [codeSize, next, last, first, written] = [bits + 1, clear + 2, -1, 0, 0];
  while (written < count) {
    while (available < codeSize) {
      if (left === 0) {
        left = bytes[at++] ?? bytes.length;
        if (at + left > bytes.length) throw badImage(`the GIF ends after ${written} of ${count} pixels`);
        continue;
      }
      buffer |= bytes[at++]! << available;
      available += 8;
      left--;
    }
    const code = buffer & ((1 << codeSize) - 1);
    buffer >>>= codeSize;
    available -= codeSize;
    if (code === clear) {
      [codeSize, next, last] = [bits + 1, clear + 2, -1];
      continue;
    }
    if (code === clear + 1) throw badImage(`the GIF's frame ends after ${written} of ${count} pixels`);
    if (last < 0) {
      if (code > clear) throw badImage("a GIF's first code is none of its symbols");
      first = code;
      out[written++] = code;
    } else {
      if (code > next || code >= TABLE_SIZE) throw badImage("a GIF's code is not in its table");
      let depth = 0;
      let string = code;
      if (code === next) {
        stack[depth++] = first;
        string = last;
      }
      for (; string >= clear; string = prefix[string]!) stack[depth++] = suffix[string]!;
      first = string;
      stack[depth++] = string;
      while (depth > 0 && written < count) out[written++] = stack[--depth]!;
      if (next < TABLE_SIZE) {
        prefix[next] = last;
        suffix[next] = first;
        if (next === (1 << codeSize) - 1 && codeSize < CODE_BITS) codeSize++;
        next++;
      }
    }
    last = code;
  }
  return out;
}
