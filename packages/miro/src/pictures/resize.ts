/**
 * Resizing of 8-bit RGB pictures, bit for bit as Pillow's `Image.resize` does it: what upstream's latents and scores
 * were made from.
 *
 * Two passes, over rows and over columns; which goes first depends on Pillow's version (see {@link PassOrder}; the
 * published latents were made with 11 and older). Each output value is the sum of the input values under a filter that
 * widens with the factor of reduction (antialiasing), in fixed point with 22 fractional bits, rounded and clipped to 8
 * bits after each pass. A pass that would not change its side changes nothing.
 */
import { filterColumns, filterRows, type PixelWindows } from "@miro-t2i/torch/pixels";
import { checkChoice, checkCount, checkImage, checkObject } from "../arguments.js";
import { invalid } from "../errors.js";
import { message } from "../message.js";
import { MAX_PIXELS } from "./image-error.js";
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
  /** Of each output position, the sum of the weights that lie beside the picture. */
  beside: Int32Array;
  /** The first input position that any output position needs, and the one behind the last; at least one. */
  low: number;
  high: number;
}

/**
 * Which pass goes first: always that over rows, as in Pillow up to 11; or as in Pillow 13, where it is that over
 * columns for pictures that lose more than twice as many rows as columns. One value in many differs by one level.
 */
export type PassOrder = (typeof PASS_ORDERS)[number];

const PASS_ORDERS = ["rows-first", "pillow-13"] as const;

/** Width and height of a picture that is to be made, in pixels. */
export interface PictureSize {
  width: number;
  height: number;
}

/** @throws InvalidInputError unless both sides are whole numbers from 1, of no more pixels than are decoded */
export function checkPictureSize(parameter: string, size: PictureSize): void {
  checkObject(parameter, size, "{ width, height }", ["width", "height"]);
  const { width, height } = size;
  checkCount(`${parameter}.width`, width);
  checkCount(`${parameter}.height`, height);
  if (width * height > MAX_PIXELS)
    throw invalid(parameter, `at most ${MAX_PIXELS} pixels`, message`${width} x ${height}`);
}

/** @throws InvalidInputError for what is no filter or order of passes */
export function checkPasses(filter: ResizeFilter, order: PassOrder): void {
  checkChoice("filter", filter, Object.keys(FILTERS));
  checkChoice("order", order, PASS_ORDERS);
}

/**
 * A picture of another size.
 * @param size width and height in pixels
 * @throws InvalidInputError for sides that are no whole numbers from 1, and for another filter or order
 */
export function resize(
  image: RgbImage,
  size: PictureSize,
  filter: ResizeFilter,
  order: PassOrder = "rows-first",
): RgbImage {
  checkImage("image", image);
  checkPictureSize("size", size);
  checkPasses(filter, order);
  return resizePart(image, { size, filter, order });
}

/** What {@link resizePart} makes. */
interface PartOptions {
  /** Of the whole result. */
  size: PictureSize;
  /** The part of the result that is made; default: all. */
  window?: { left: number; top: number; width: number; height: number };
  /** A larger picture of one colour that this one lies on, or a part of this one; default: there is none. */
  canvas?: { width: number; height: number; left: number; top: number; colour: readonly [number, number, number] };
  filter: ResizeFilter;
  order?: PassOrder;
}

/**
 * A part of what {@link resize} gives, of the picture as it lies on a canvas. Nothing else of it is made: the whole of
 * a narrow strip, or of the square around it, would not fit in memory.
 */
export function resizePart(
  image: RgbImage,
  {
    size,
    window = { left: 0, top: 0, ...size },
    canvas = { width: image.width, height: image.height, left: 0, top: 0, colour: [0, 0, 0] },
    filter,
    order = "rows-first",
  }: PartOptions,
): RgbImage {
  const across = weights([canvas.width, canvas.left, image.width], [size.width, window.left, window.width], filter);
  const down = weights([canvas.height, canvas.top, image.height], [size.height, window.top, window.height], filter);
  const lost = canvas.height - size.height;
  const columnsFirst = order === "pillow-13" && lost > 0 && lost > 2 * (canvas.width - size.width);
  const { colour } = canvas;
  if (across === null && down === null) return { ...image, data: image.data.slice() };
  // The first pass makes those rows or columns alone that the second one needs.
  if (down === null) return resizeRows(image, across!, { begin: 0, end: image.height, colour });
  if (across === null) return resizeColumns(image, down, { begin: 0, end: image.width, colour });
  const [rows, columns] = [down, across].map(({ low, high }) => ({ begin: low, end: high, colour })) as [Lines, Lines];
  return columnsFirst
    ? resizeRows(resizeColumns(image, down, columns), shifted(across), { ...rows, begin: 0, end: window.height })
    : resizeColumns(resizeRows(image, across, rows), shifted(down), { ...columns, begin: 0, end: window.width });
}

/** Which rows a pass over rows goes through, or columns one over columns; and the colour beside the picture. */
interface Lines {
  begin: number;
  end: number;
  colour: readonly [red: number, green: number, blue: number];
}

/** The same weights for a picture that begins with the first position that they need. */
function shifted(weights: Weights): Weights {
  // Where all weights lie beside the picture there is no first position, and it stays at 0.
  return { ...weights, first: weights.first.map((position) => Math.max(0, position - weights.low)) };
}

/**
 * The weights of a row or column; null where nothing changes.
 *
 * @param sizeIn of the canvas; then where the picture begins on it, and its size
 * @param sizeOut of the result; then where the window begins in it, and its size
 */
function weights(
  [sizeIn, from, length]: readonly [number, number, number],
  [sizeOut, start, count]: readonly [number, number, number],
  filter: ResizeFilter,
): Weights | null {
  if (sizeIn === sizeOut && sizeIn === length && sizeIn === count) return null;
  const taps = Math.ceil(FILTERS[filter].support * Math.max(sizeIn / sizeOut, 1)) * 2 + 1;
  const first = new Int32Array(count);
  const counts = new Int32Array(count);
  const values = new Int32Array(count * taps);
  const beside = new Int32Array(count);
  let [low, high] = [length, 0];
  for (let i = 0; i < count; i++) {
    const { begin, row } = filterAt(start + i, [sizeIn, sizeOut], filter);
    // Zeros at both ends are left out: they change no sum.
    let kept = 0;
    for (let tap = 0; tap < row.length; tap++) {
      const weight = row[tap]! * ONE;
      const fixed = Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5);
      const at = begin + tap - from;
      if (at < 0 || at >= length) beside[i] = beside[i]! + fixed;
      else if (kept > 0 || fixed !== 0) {
        if (kept === 0) first[i] = at;
        values[i * taps + kept++] = fixed;
      }
    }
    while (kept > 0 && values[i * taps + kept - 1] === 0) kept--;
    counts[i] = kept;
    if (kept === 0) continue;
    low = Math.min(low, first[i]!);
    high = Math.max(high, first[i]! + kept);
  }
  return { first, counts, values, taps, beside, low: Math.min(low, high), high: Math.max(high, 1) };
}

/**
 * The filter at an output position: its weights, in sum 1, and the first input position that they belong to.
 * @param round of each step of the arithmetic; default: float64
 */
export function filterAt(
  i: number,
  [sizeIn, sizeOut]: readonly [number, number],
  name: ResizeFilter,
  round: (value: number) => number = (value) => value,
): { begin: number; row: Float64Array } {
  const filter = FILTERS[name];
  const scale = round(sizeIn / sizeOut);
  const stretch = Math.max(scale, 1);
  const support = round(filter.support * stretch);
  const center = round(round(i + 0.5) * scale);
  const begin = Math.max(0, Math.trunc(round(round(center - support) + 0.5)));
  const end = Math.min(sizeIn, Math.trunc(round(round(center + support) + 0.5)));
  const row = new Float64Array(end - begin);
  let sum = 0;
  for (let tap = 0; tap < row.length; tap++) {
    row[tap] = filter.weight(round(round(round(tap + begin - center) + 0.5) / stretch));
    sum += row[tap]!;
  }
  for (let tap = 0; tap < row.length; tap++) row[tap] = row[tap]! / sum;
  return { begin, row };
}

function resizeRows({ width, data }: RgbImage, weights: Weights, { begin, end, colour }: Lines): RgbImage {
  const rows = data.subarray(3 * width * begin, 3 * width * end);
  return {
    width: weights.first.length,
    height: end - begin,
    data: filterRows(rows, width, windowsOf(weights, colour)),
  };
}

function resizeColumns({ width, data }: RgbImage, weights: Weights, { begin, end, colour }: Lines): RgbImage {
  const columns = { left: begin, count: end - begin };
  return {
    width: columns.count,
    height: weights.first.length,
    data: filterColumns(data, width, windowsOf(weights, colour), columns),
  };
}

/** Sums begin with the half that rounds, and with the colour beside the picture. */
function windowsOf({ first, counts, values, beside }: Weights, colour: Lines["colour"]): PixelWindows {
  const starts = new Int32Array(3 * first.length);
  for (const [i, weight] of beside.entries())
    for (const [c, level] of colour.entries()) starts[3 * i + c] = HALF + Math.imul(level, weight);
  return { first, counts, weights: values, starts };
}
