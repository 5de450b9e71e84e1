/**
 * Weighted sums of 8-bit RGB pixels in whole numbers: the two passes of which resizing consists. A module of its own,
 * so that threads that prepare pictures load no tensors.
 */
import { native } from "./native.js";

/** Where each position of a result finds its input. Weights have 22 bits behind the point. */
export interface PixelWindows {
  /** First input position of each. */
  first: Int32Array;
  /** Input positions of each. */
  counts: Int32Array;
  /** Weights of each, as many as of the largest window. */
  weights: Int32Array;
  /** What the sums of red, green and blue begin with, for each. */
  starts: Int32Array;
}

/**
 * Rows of `width` pixels become rows of a pixel for each window. Sums are cut to whole levels and clipped to 0 to 255.
 * @throws TorchError for windows that are not within a row
 */
export function filterRows(source: Uint8Array, width: number, windows: PixelWindows): Uint8Array {
  const { first, counts, weights, starts } = windows;
  const target = new Uint8Array((source.length / width) * first.length);
  native.filterRows(source, width, first, counts, weights, starts, target);
  return target;
}

/**
 * The `count` columns from `left` on, of rows of `width` pixels, become columns of a pixel for each window; else as
 * {@link filterRows}.
 */
export function filterColumns(
  source: Uint8Array,
  width: number,
  { first, counts, weights, starts }: PixelWindows,
  { left, count }: { left: number; count: number },
): Uint8Array {
  const target = new Uint8Array(3 * count * first.length);
  native.filterColumns(source, width, first, counts, weights, starts, target, left, count);
  return target;
}
