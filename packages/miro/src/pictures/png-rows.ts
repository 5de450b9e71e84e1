/**
 * PNG files whose compressed data end early, as Pillow reads them: where all rows are there, what is missing behind
 * them does not matter; where the data have their end mark before the last row, the rest is black. A file that was cut
 * before its last row stays refused.
 */
import { constants, deflateSync, inflateSync } from "node:zlib";
import { pngChunk } from "./png.js";

/** Where the header ends: signature, length and type, 13 bytes, checksum. */
const HEADER_END = 33;
/** Samples of a pixel, by colour type. */
const CHANNELS: Record<number, number> = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
/** First column and row, and steps, of the passes of an interlaced picture (PNG 8.2). */
const PASSES = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;

/**
 * The same picture with all its rows, or null where it cannot be completed, or has more pixels than are allowed: of a
 * damaged header nobody has looked at the size before.
 */
export function completePng(bytes: Uint8Array, maxPixels: number): Uint8Array | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < HEADER_END || view.getUint32(16) * view.getUint32(20) > maxPixels) return null;
  const parts: Uint8Array[] = [];
  let head = 0;
  for (let at = 8; at + 8 <= bytes.length; ) {
    const type = Buffer.from(bytes.subarray(at + 4, at + 8)).toString("latin1");
    if (type === "IDAT") {
      head ||= at;
      parts.push(bytes.subarray(at + 8, at + 8 + view.getUint32(at)));
    } else if (parts.length > 0) break;
    at += 12 + view.getUint32(at);
  }
  if (parts.length === 0) return null;
  const expected = rowBytes(view);
  const rows = inflated(Buffer.concat(parts), expected);
  if (rows === null) return null;
  const whole = Buffer.alloc(expected);
  rows.copy(whole);
  return Buffer.concat([
    bytes.subarray(0, head),
    pngChunk("IDAT", deflateSync(whole, { level: 1 })),
    pngChunk("IEND", new Uint8Array(0)),
  ]);
}

/** Bytes of all rows with the number of their filter in front, by the header. */
function rowBytes(view: DataView): number {
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  const bits = view.getUint8(24) * (CHANNELS[view.getUint8(25)] ?? 0);
  const passes = view.getUint8(28) === 1 ? PASSES : [[0, 0, 1, 1] as const];
  let total = 0;
  for (const [left, top, across, down] of passes) {
    const columns = Math.max(0, Math.ceil((width - left) / across));
    const rows = Math.max(0, Math.ceil((height - top) / down));
    if (columns > 0) total += rows * (1 + Math.ceil((columns * bits) / 8));
  }
  return total;
}

/**
 * What data inflate to, at most `expected` bytes; null when they are damaged, or neither reach that nor have their
 * end.
 */
function inflated(data: Buffer, expected: number): Buffer | null {
  // Data that hold more than all rows are damaged.
  const options = { maxOutputLength: expected + 2 ** 16 };
  try {
    const rows = inflateSync(data, { ...options, finishFlush: constants.Z_SYNC_FLUSH });
    if (rows.length >= expected) return rows.subarray(0, expected);
    return inflateSync(data, options);
  } catch {
    return null;
  }
}
