/** Padding of a picture to a square. */
import { invalid } from "../errors.js";
import { message } from "../message.js";
import type { RgbImage } from "./rgb.js";

/** Longest side of a square that is made: 800 MB. */
const MAX_SIDE = 2 ** 14;

/**
 * The picture in the middle of a square of its longer side; half a pixel of the rest goes to the right and below.
 *
 * @param colour of the rest
 * @throws InvalidInputError when the square would be too large for memory
 */
export function padToSquare(image: RgbImage, colour: readonly [red: number, green: number, blue: number]): RgbImage {
  const { width, height, data } = image;
  if (width === height) return image;
  const side = Math.max(width, height);
  if (side > MAX_SIDE)
    throw invalid("image", `sides of at most ${MAX_SIDE} pixels, to pad it to a square`, message`${width} x ${height}`);
  const [left, top] = [Math.floor((side - width) / 2), Math.floor((side - height) / 2)];
  const row = new Uint8Array(side * 3);
  for (let x = 0; x < side; x++) row.set(colour, x * 3);
  const square = new Uint8Array(side * side * 3);
  for (let y = 0; y < side; y++) {
    const at = y * side * 3;
    square.set(row, at);
    if (y >= top && y < top + height) {
      const from = (y - top) * width * 3;
      square.set(data.subarray(from, from + width * 3), at + left * 3);
    }
  }
  return { width: side, height: side, data: square };
}
