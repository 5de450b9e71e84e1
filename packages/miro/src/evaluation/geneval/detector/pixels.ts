/**
 * What the detector sees of a picture, as mmdet's test pipeline makes it: resized so that it fits into a scale of long
 * and short edge, bilinearly without a low-pass filter, normalised, padded with zeros to multiples of 32.
 *
 * mmdet 3.x, which MIRO's published numbers come from, resizes floats; mmdet 2.x, which GenEval was written with,
 * bytes.
 */
import { F, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { checkImage, checkList } from "../../../arguments.js";
import type { RgbImage } from "../../../pictures/rgb.js";
import type { MapSize } from "./deformable-attention.js";

/** Longest long edge and longest short edge of a resized picture. */
export type Scale = readonly [long: number, short: number];

/** GenEval's. */
export const SCALE: Scale = [1333, 800];
/** Sides are padded to multiples of it: the stride of the coarsest map. */
const DIVISOR = 32;
const MEAN = [123.675, 116.28, 103.53];
const STD = [58.395, 57.12, 57.375];

/** The network's input, and the sizes that its masks are brought back through. */
export interface DetectorInput {
  /** (1, 3, padded height, padded width) */
  pixels: Tensor;
  padded: MapSize;
  resized: MapSize;
  original: MapSize;
}

/** The size that a picture is resized to. No side becomes 0, however narrow the picture is. */
export function resizedSize({ width, height }: MapSize, [long, short]: Scale): MapSize {
  const factor = Math.min(long / Math.max(width, height), short / Math.min(width, height));
  const side = (length: number) => Math.max(1, Math.trunc(length * factor + 0.5));
  return { height: side(height), width: side(width) };
}

/**
 * Pixels of a picture in float32 on the CPU; the caller owns them.
 *
 * @param bytes rounds the resized picture to whole grey levels, as mmdet 2.x does
 */
export function detectorInput(image: RgbImage, scale: Scale, bytes: boolean): DetectorInput {
  checkImage("image", image);
  checkList("scale", scale, "a long and a short edge");
  const { width, height } = image;
  const resized = resizedSize(image, scale);
  const padded = { height: multiple(resized.height), width: multiple(resized.width) };
  const pixels = scope(() => {
    const planes = tensor(image.data, { shape: [1, height, width, 3], dtype: "uint8" })
      .permute(0, 3, 1, 2)
      .float();
    const size = [resized.height, resized.width] as const;
    const floats = F.interpolate(planes, { size, mode: "bilinear" });
    const levels = bytes ? floats.round().clamp(0, 255) : floats;
    const channel = (values: number[]) => tensor(Float32Array.from(values)).view(3, 1, 1);
    const normal = levels.sub(channel(MEAN)).div(channel(STD));
    return F.pad(normal, [0, padded.width - resized.width, 0, padded.height - resized.height]);
  });
  return { pixels, padded, resized, original: { width, height } };
}

const multiple = (side: number) => Math.ceil(side / DIVISOR) * DIVISOR;
