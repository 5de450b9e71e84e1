/**
 * AVIF as Pillow reads it: the first frame at 8 bits, through libavif, which Pillow uses too. libheif, which sharp has,
 * repeats the nearest chroma sample where libavif interpolates (100 levels apart at an edge), leaves grey of limited
 * range as it is, turns the picture, and reads no animations.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { badImage, checkSize } from "./image-error.js";
import type { RgbImage } from "./rgb.js";

type Decode = (bytes: Uint8Array) => Promise<{ width: number; height: number; data: Uint8ClampedArray } | null>;

/** A decoder that held a picture of more pixels is given up: its memory does not shrink. */
const KEPT_PIXELS = 2 ** 24;

let decoder: Promise<Decode> | null = null;

async function loadDecoder(): Promise<Decode> {
  const { default: decode, init } = await import("@jsquash/avif/decode.js");
  const binary = createRequire(import.meta.url).resolve("@jsquash/avif/codec/dec/avif_dec.wasm");
  await init({ wasmBinary: readFileSync(binary) });
  return decode as unknown as Decode;
}

/** Whether a picture has a colour profile, which is not followed here. */
export function hasAvifProfile(bytes: Uint8Array): boolean {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return file.includes("colrprof") || file.includes("colrrICC");
}

/**
 * Decodes the first frame.
 * @param overWhite whether transparency shows white; otherwise it is dropped
 * @throws ImageError
 */
export async function decodeAvif(
  bytes: Uint8Array,
  maxPixels: number,
  orient: boolean,
  overWhite = false,
): Promise<RgbImage> {
  const { width, height, orientation } = readBoxes(bytes);
  checkSize(width, height, maxPixels);
  decoder ??= loadDecoder();
  const decode = await decoder;
  let image: Awaited<ReturnType<Decode>>;
  try {
    image = await decode(bytes);
  } catch (error) {
    // A decoder that ran out of memory does not work any more.
    decoder = null;
    throw badImage(`AVIF: ${(error as Error).message}`);
  }
  if (image === null) throw badImage("AVIF without a picture");
  if (image.width * image.height > KEPT_PIXELS) decoder = null;
  const rgb = new Uint8Array(image.width * image.height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
    const alpha = overWhite ? image.data[from + 3]! : 255;
    for (let c = 0; c < 3; c++) rgb[to + c] = Math.round(255 + ((image.data[from + c]! - 255) * alpha) / 255);
  }
  const stored = { width: image.width, height: image.height, data: rgb };
  return orient ? turned(stored, orientation) : stored;
}

/** How the boxes say that a picture is to be turned, as EXIF counts: 1 to 8. */
export function avifOrientation(bytes: Uint8Array): number {
  return readBoxes(bytes).orientation;
}

/** Boxes that hold boxes, and the bytes before the first of these. */
const CONTAINERS: Record<string, number> = {
  meta: 4,
  iprp: 0,
  ipco: 0,
  moov: 0,
  trak: 0,
  mdia: 0,
  minf: 0,
  stbl: 0,
  stsd: 8,
};
const DEEPEST = 8;

/** The largest size that the boxes declare, and how the picture is to be turned, as EXIF counts. */
function readBoxes(bytes: Uint8Array): { width: number; height: number; orientation: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let size = { width: 0, height: 0 };
  let [angle, axis] = [0, -1];
  const declare = (width: number, height: number): void => {
    if (width * height > size.width * size.height) size = { width, height };
  };
  const walk = (start: number, end: number, depth: number): void => {
    for (let at = start; at + 8 <= end; ) {
      const short = view.getUint32(at);
      const type = Buffer.from(bytes.subarray(at + 4, at + 8)).toString("latin1");
      const body = at + (short === 1 ? 16 : 8);
      if (body > end) return;
      const next = short === 0 ? end : at + (short === 1 ? Number(view.getBigUint64(at + 8)) : short);
      if (next < body || next > end) return;
      if (type === "ispe" && body + 12 <= next) declare(view.getUint32(body + 4), view.getUint32(body + 8));
      if (type === "av01" && body + 28 <= next) declare(view.getUint16(body + 24), view.getUint16(body + 26));
      if (type === "irot" && body < next) angle = bytes[body]! & 3;
      if (type === "imir" && body < next) axis = bytes[body]! & 1;
      const inner = CONTAINERS[type];
      if (inner !== undefined && depth < DEEPEST) walk(body + inner, next, depth + 1);
      at = next;
    }
  };
  walk(0, bytes.length, 0);
  // Turned counter-clockwise by quarters, then mirrored: axis 0 swaps top and bottom, axis 1 left and right.
  const orientation = [
    [1, 4, 2],
    [8, 5, 7],
    [3, 2, 4],
    [6, 7, 5],
  ][angle]![axis + 1]!;
  return { ...size, orientation };
}

/** A picture turned as an EXIF orientation says. */
function turned({ width, height, data }: RgbImage, orientation: number): RgbImage {
  if (orientation === 1) return { width, height, data };
  const swapped = orientation > 4;
  const image: RgbImage = {
    width: swapped ? height : width,
    height: swapped ? width : height,
    data: new Uint8Array(data.length),
  };
  const fromRight = [2, 3, 7, 8].includes(orientation);
  const fromBottom = [3, 4, 6, 7].includes(orientation);
  for (let y = 0, to = 0; y < image.height; y++) {
    for (let x = 0; x < image.width; x++, to += 3) {
      const [column, row] = swapped ? [y, x] : [x, y];
      const from = ((fromBottom ? height - 1 - row : row) * width + (fromRight ? width - 1 - column : column)) * 3;
      for (let c = 0; c < 3; c++) image.data[to + c] = data[from + c]!;
    }
  }
  return image;
}
