/** Draws the sprites of a scene: planes of values in [0, 255], then the network's range. */
import { TINTS, type TintName } from "./captions.js";
import type { Sprite, SpriteLevel } from "./sprites.js";
import type { EmojiEntry } from "./vocabulary.js";

/** One sprite of a scene. Coordinates and sizes are shares of the picture's side; `side` is that of the longer edge. */
export interface PlacedObject {
  readonly entry: EmojiEntry;
  /** Index of the entry in the vocabulary. */
  readonly entryIndex: number;
  readonly x: number;
  readonly y: number;
  readonly side: number;
  readonly tint: TintName | null;
}

/**
 * Draws one sprite over the picture (values in [0, 255]): bilinear sampling of premultiplied colours, then "over".
 */
export function compose(object: PlacedObject, { levels }: Sprite, size: number, picture: Float32Array): void {
  const plane = size * size;
  const target = object.side * size;
  const level = chooseLevel(levels, target);
  const { width, height, data } = level;
  const step = Math.max(width, height) / target;
  const stride = (width + 2) * 4;
  const left = object.x * size - width / step / 2;
  const top = object.y * size - height / step / 2;
  const x0 = Math.max(0, Math.floor(left - 0.5));
  const x1 = Math.min(size, Math.ceil(left + width / step + 0.5));
  const y0 = Math.max(0, Math.floor(top - 0.5));
  const y1 = Math.min(size, Math.ceil(top + height / step + 0.5));

  // Column offsets and weights are the same for every row. Coordinates count from the border pixel.
  const columns = new Int32Array(x1 - x0);
  const weights = new Float32Array(x1 - x0);
  for (let x = x0; x < x1; x++) {
    const u = Math.min(Math.max((x + 0.5 - left) * step + 0.5, 0), width + 0.999);
    columns[x - x0] = Math.floor(u) * 4;
    weights[x - x0] = u - Math.floor(u);
  }
  const tint = object.tint === null ? null : TINTS[object.tint];
  for (let y = y0; y < y1; y++) {
    const v = Math.min(Math.max((y + 0.5 - top) * step + 0.5, 0), height + 0.999);
    const row = Math.floor(v) * stride;
    const fy = v - Math.floor(v);
    for (let x = x0; x < x1; x++) {
      const at = row + columns[x - x0]!;
      const below = at + stride;
      const fx = weights[x - x0]!;
      const w11 = fx * fy;
      const w01 = fx - w11;
      const w10 = fy - w11;
      const w00 = 1 - fx - w10;
      const alpha = w00 * data[at + 3]! + w01 * data[at + 7]! + w10 * data[below + 3]! + w11 * data[below + 7]!;
      if (alpha === 0) continue;
      let red = w00 * data[at]! + w01 * data[at + 4]! + w10 * data[below]! + w11 * data[below + 4]!;
      let green = w00 * data[at + 1]! + w01 * data[at + 5]! + w10 * data[below + 1]! + w11 * data[below + 5]!;
      let blue = w00 * data[at + 2]! + w01 * data[at + 6]! + w10 * data[below + 2]! + w11 * data[below + 6]!;
      if (tint !== null) {
        // Same grey part and same chroma, spent on the tint's hue; homogeneous, so it holds for premultiplied values.
        const low = Math.min(red, green, blue);
        const chroma = Math.max(red, green, blue) - low;
        red = low + chroma * tint[0];
        green = low + chroma * tint[1];
        blue = low + chroma * tint[2];
      }
      const through = 1 - alpha / 255;
      const to = y * size + x;
      picture[to] = red + through * picture[to]!;
      picture[plane + to] = green + through * picture[plane + to]!;
      picture[2 * plane + to] = blue + through * picture[2 * plane + to]!;
    }
  }
}

/** The smallest level that is not smaller than the target, or the largest there is. */
function chooseLevel(levels: readonly SpriteLevel[], target: number): SpriteLevel {
  let chosen = levels[0]!;
  for (const level of levels) if (Math.max(level.width, level.height) >= target * 0.97) chosen = level;
  return chosen;
}

/** Values in [0, 255] to [-1, 1], in place; what lies outside is cut off. */
export function toUnitRange(picture: Float32Array): void {
  for (let i = 0; i < picture.length; i++) picture[i] = Math.min(Math.max(picture[i]! * (2 / 255) - 1, -1), 1);
}

/** Planar [-1, 1] values of one picture as interleaved 8-bit RGB. */
export function toRgb8(pixels: Float32Array, size: number, offset = 0): Uint8Array {
  const plane = size * size;
  const out = new Uint8ClampedArray(3 * plane);
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) out[i * 3 + c] = (pixels[offset + c * plane + i]! + 1) * 127.5;
  }
  return new Uint8Array(out.buffer);
}
