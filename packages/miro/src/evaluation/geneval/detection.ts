/**
 * What finds the objects of a picture, and what it says of them: the interface between detectors and whatever judges
 * pictures by their objects.
 */
import type { RgbImage } from "../../pictures/rgb.js";

/** Left, top, right, bottom in pixels of the picture; right and bottom lie one behind the last pixel. */
export type Box = readonly [x0: number, y0: number, x1: number, y1: number];

/** One bit a pixel. */
export interface Mask {
  /** Of the picture. */
  width: number;
  /** Of the picture. */
  height: number;
  /** Row by row without gaps, the most significant bit of a byte first: `numpy.packbits` of the flattened mask. */
  bits: Uint8Array;
}

/** One object, or what a detector takes for one. */
export interface Detection {
  /** Index into {@link Detector.classes}. */
  classIndex: number;
  /** From 0 to 1. */
  score: number;
  /** Of the mask, where there is one; all 0 where the mask is empty. */
  box: Box;
  /** Which pixels belong to it. Detections may share one object. */
  mask?: Mask | undefined;
}

/** How to look. */
export interface DetectOptions {
  /** Leaves out detections whose score is not above it; the others are the same. Default: nothing is left out. */
  minScore?: number | undefined;
  /** Indices of the only classes that matter; the others' detections are left out. Default: all. */
  classes?: readonly number[] | undefined;
  signal?: AbortSignal | undefined;
}

/** A loaded detector. */
export interface Detector {
  /** The model in a few words, for provenance. */
  readonly name: string;
  /** Who trained the weights: scores of different training runs are not comparable. */
  readonly trainingRun: string;
  /** Names of the classes. */
  readonly classes: readonly string[];
  /**
   * Finds objects.
   *
   * @param images 8-bit RGB of any sizes
   * @returns for each picture its detections, best score first; a picture's do not depend on what else is in the call
   * @throws InvalidInputError for pictures that are none; the signal's reason when it is aborted
   */
  detect(images: readonly RgbImage[], options?: DetectOptions): Promise<Detection[][]>;
  /** Frees the weights; the detector must not be used afterwards. */
  dispose(): void;
}

/** Whether a pixel belongs to a mask. */
export function maskHas({ width, bits }: Mask, x: number, y: number): boolean {
  const at = y * width + x;
  return ((bits[at >> 3]! >> (7 - (at & 7))) & 1) === 1;
}
