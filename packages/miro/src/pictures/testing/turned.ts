/** A picture as phones store it: turned or mirrored, with an EXIF orientation that says so. For tests. */
import sharp, { type Sharp } from "sharp";
import type { RgbImage } from "../rgb.js";

const [width, height] = [24, 16];

/** What a viewer shows: no two of its corners, and no two of its sides, are alike. */
export const UPRIGHT: RgbImage = {
  width,
  height,
  data: Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const [x, y] = [Math.floor(i / 3) % width, Math.floor(i / 3 / width)];
    return [x * 10, y * 15, 128][i % 3]!;
  }),
};

/** Where the shown pixel (x, y) is stored under an orientation (Exif 2.32, 4.6.4 A). */
const STORED: Record<number, (x: number, y: number) => [number, number]> = {
  1: (x, y) => [x, y],
  2: (x, y) => [width - 1 - x, y],
  3: (x, y) => [width - 1 - x, height - 1 - y],
  4: (x, y) => [x, height - 1 - y],
  5: (x, y) => [y, x],
  6: (x, y) => [y, width - 1 - x],
  7: (x, y) => [height - 1 - y, width - 1 - x],
  8: (x, y) => [height - 1 - y, x],
};

/** {@link UPRIGHT}, stored under an orientation from 1 to 8. */
export function storedTurned(orientation: number): Sharp {
  const [w, h] = orientation > 4 ? [height, width] : [width, height];
  const data = new Uint8Array(w * h * 3);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const [column, row] = STORED[orientation]!(x, y);
      data.set(UPRIGHT.data.subarray((y * width + x) * 3, (y * width + x) * 3 + 3), (row * w + column) * 3);
    }
  return sharp(data, { raw: { width: w, height: h, channels: 3 } }).withMetadata({ orientation });
}
