/**
 * Resizing of 8-bit RGB pictures, bit for bit as Pillow's `Image.resize` does it: what upstream's latents and scores
 * were made from.
 *
 * Two passes, over rows and over columns; which goes first depends on Pillow's version (see {@link PassOrder}; the
 * published latents were made with 11 and older). Each output value is the sum of the input values under a filter that
 * widens with the factor of reduction (antialiasing), in fixed point with 22 fractional bits, rounded and clipped to 8
 * bits after each pass. A pass that would not change its side is left out.
 */
import { checkImage, checkObject } from "../arguments.js";
import type { RgbImage } from "./rgb.js";

/** Bits behind the point: 8 bits of value and 2 of head room are left of the 32. */
const PRECISION_BITS = 22;
const ONE = 2 ** PRECISION_BITS;
const HALF = 2 ** (PRECISION_BITS - 1);

interface Filter {
  /** Half the width at which the filter is zero. */
  support: number;
  weight(x: number): number;
}

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  /** Cubic convolution with a = -1/2 (Keys 1981). */
  bicubic: {
    support: 2,
    weight: (value) => {
      const a = -0.5;
      const x = Math.abs(value);
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    },
  },
} satisfies Record<string, Filter>;

/** The filters of {@link resize}: bilinear for latents, bicubic for the published scorers. */
export type ResizeFilter = keyof typeof FILTERS;

/** For each output position its first input position, how many there are, and their weights from `i * taps` on. */
interface Weights {
  first: Int32Array;
  counts: Int32Array;
  values: Int32Array;
  taps: number;
}

/**
 * Which pass goes first: always that over rows, as in Pillow up to 11; or as in Pillow 13, where it is that over
 * columns for pictures that lose more than twice as many rows as columns. One value in many differs by one level.
 */
export type PassOrder = "rows-first" | "pillow-13";

/** A picture of another size. @param size width and height in pixels, integers of at least 1 */
export function resize(
  image: RgbImage,
  size: { width: number; height: number },
  filter: ResizeFilter,
  order: PassOrder = "rows-first",
): RgbImage {
  checkImage("image", image);
  checkObject("size", size, "{ width, height }", ["width", "height"]);
  const { width, height } = size;
  const rows = (picture: RgbImage) =>
    width === picture.width ? picture : resizeRows(picture, width, weights(picture.width, width, filter));
  const columns = (picture: RgbImage) =>
    height === picture.height ? picture : resizeColumns(picture, height, weights(picture.height, height, filter));
  const lost = image.height - height;
  const columnsFirst = order === "pillow-13" && lost > 0 && lost > 2 * (image.width - width);
  const result = columnsFirst ? rows(columns(image)) : columns(rows(image));
  return result === image ? { ...image, data: image.data.slice() } : result;
}

function weights(sizeIn: number, sizeOut: number, name: ResizeFilter): Weights {
  const filter = FILTERS[name];
  const scale = sizeIn / sizeOut;
  const stretch = Math.max(scale, 1);
  const support = filter.support * stretch;
  const taps = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(sizeOut);
  const counts = new Int32Array(sizeOut);
  const values = new Int32Array(sizeOut * taps);
  const row = new Float64Array(taps);
  for (let i = 0; i < sizeOut; i++) {
    const center = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const count = Math.min(sizeIn, Math.trunc(center + support + 0.5)) - start;
    let sum = 0;
    for (let tap = 0; tap < count; tap++) {
      row[tap] = filter.weight((tap + start - center + 0.5) / stretch);
      sum += row[tap]!;
    }
    // Zeros at both ends are left out: they change no sum.
    let kept = 0;
    for (let tap = 0; tap < count; tap++) {
      const weight = (row[tap]! / sum) * ONE;
      const fixed = Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5);
      if (kept === 0) {
        if (fixed === 0) continue;
        first[i] = start + tap;
      }
      values[i * taps + kept++] = fixed;
    }
    while (kept > 0 && values[i * taps + kept - 1] === 0) kept--;
    counts[i] = kept;
  }
  return { first, counts, values, taps };
}

function resizeRows({ width, height, data }: RgbImage, out: number, weights: Weights): RgbImage {
  const { first, counts, values, taps } = weights;
  // Clips to 8 bits by itself; the half that rounds is added at the start of each sum.
  const result = new Uint8ClampedArray(out * height * 3);
  let to = 0;
  for (let y = 0; y < height; y++) {
    const row = y * width * 3;
    for (let x = 0; x < out; x++) {
      let from = row + first[x]! * 3;
      let r = HALF;
      let g = HALF;
      let b = HALF;
      const start = x * taps;
      const end = start + counts[x]!;
      for (let tap = start; tap < end; tap++, from += 3) {
        const weight = values[tap]!;
        r = (r + Math.imul(data[from]!, weight)) | 0;
        g = (g + Math.imul(data[from + 1]!, weight)) | 0;
        b = (b + Math.imul(data[from + 2]!, weight)) | 0;
      }
      result[to] = r >> PRECISION_BITS;
      result[to + 1] = g >> PRECISION_BITS;
      result[to + 2] = b >> PRECISION_BITS;
      to += 3;
    }
  }
  return { width: out, height, data: new Uint8Array(result.buffer) };
}

function resizeColumns({ width, data }: RgbImage, out: number, weights: Weights): RgbImage {
  const { first, counts, values, taps } = weights;
  const stride = width * 3;
  const result = new Uint8ClampedArray(stride * out);
  const sums = new Int32Array(stride);
  for (let y = 0; y < out; y++) {
    const count = counts[y]!;
    const to = y * stride;
    sums.fill(HALF);
    // Two input rows at a time: the sums are loaded and stored half as often.
    for (let tap = 0; tap < count; tap += 2) {
      const a = values[y * taps + tap]!;
      const b = tap + 1 < count ? values[y * taps + tap + 1]! : 0;
      const above = (first[y]! + tap) * stride;
      const below = tap + 1 < count ? above + stride : above;
      if (tap + 2 < count) {
        for (let i = 0; i < stride; i++)
          sums[i] = (sums[i]! + Math.imul(data[above + i]!, a) + Math.imul(data[below + i]!, b)) | 0;
      } else {
        for (let i = 0; i < stride; i++)
          result[to + i] =
            ((sums[i]! + Math.imul(data[above + i]!, a) + Math.imul(data[below + i]!, b)) | 0) >> PRECISION_BITS;
      }
    }
  }
  return { width, height: out, data: new Uint8Array(result.buffer) };
}
