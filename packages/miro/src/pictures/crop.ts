/** Centre crops with the offsets of torchvision and of transformers, which round an odd remainder differently. */
import { checkChoice, checkCount, checkImage } from "../arguments.js";
import { invalid } from "../errors.js";
import { pythonRound } from "../files/python-number.js";
import { message } from "../message.js";
import {
  checkPasses,
  checkPictureSize,
  type PassOrder,
  type PictureSize,
  type ResizeFilter,
  resizePart,
} from "./resize.js";
import type { RgbImage } from "./rgb.js";

/** How half a pixel of an offset is rounded: to the even neighbour (torchvision) or down (transformers). */
export type CropRounding = (typeof ROUNDINGS)[number];

const ROUNDINGS = ["even", "down"] as const;

/** Where a centred window of `size` begins in a side of `length` pixels. */
export function cropOffset(length: number, size: number, rounding: CropRounding = "even"): number {
  checkCount("length", length);
  checkCount("size", size);
  checkChoice("rounding", rounding, ROUNDINGS);
  const half = (length - size) / 2;
  return rounding === "down" ? Math.floor(half) : pythonRound(half);
}

/**
 * The middle of a picture.
 * @throws InvalidInputError when the window is larger than the picture, or a side is no whole number from 1
 */
export function cropCentre(image: RgbImage, size: PictureSize, rounding: CropRounding = "even"): RgbImage {
  checkImage("image", image);
  checkPictureSize("size", size);
  const { width, height, data } = image;
  if (size.width > width || size.height > height)
    throw invalid("size", `at most ${width} x ${height}`, message`${size.width} x ${size.height}`);
  const left = cropOffset(width, size.width, rounding);
  const top = cropOffset(height, size.height, rounding);
  const stride = size.width * 3;
  const result = new Uint8Array(stride * size.height);
  for (let y = 0; y < size.height; y++) {
    const from = ((top + y) * width + left) * 3;
    result.set(data.subarray(from, from + stride), y * stride);
  }
  return { width: size.width, height: size.height, data: result };
}

/** The largest centred square, resized bilinearly: what the autoencoder encodes. @param side in pixels */
export function centreSquare(image: RgbImage, side: number): RgbImage {
  checkImage("image", image);
  checkCount("side", side);
  checkPictureSize("side", { width: side, height: side });
  const { width, height } = image;
  const least = Math.min(width, height);
  const [left, top] = [-cropOffset(width, least), -cropOffset(height, least)];
  const canvas = { width: least, height: least, left, top, colour: [0, 0, 0] as const };
  return resizePart(image, { size: { width: side, height: side }, canvas, filter: "bilinear" });
}

/**
 * The shorter side resized to `side`, then the middle cropped to a square: what the published scorers look at. The
 * longer side is rounded down.
 */
export function resizeThenCrop(
  image: RgbImage,
  side: number,
  filter: ResizeFilter,
  rounding: CropRounding = "even",
  order: PassOrder = "rows-first",
): RgbImage {
  checkImage("image", image);
  checkCount("side", side);
  checkPasses(filter, order);
  const { width, height } = image;
  const size =
    width <= height
      ? { width: side, height: Math.trunc((side * height) / width) }
      : { width: Math.trunc((side * width) / height), height: side };
  const [left, top] = [cropOffset(size.width, side, rounding), cropOffset(size.height, side, rounding)];
  return resizePart(image, { size, window: { left, top, width: side, height: side }, filter, order });
}
