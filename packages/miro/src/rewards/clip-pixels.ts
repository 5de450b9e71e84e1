/**
 * What the CLIP towers see of a picture: the shorter side resized to the tower's, the middle cropped to a square,
 * OpenAI's mean and deviation. Published scorers do it in five ways, whose pixels differ:
 *
 *   pillow        aesthetic score, jina-clip: Pillow's bicubic filter on 8 bits; the crop's half pixels rounded to even
 *   transformers  PickScore, SciScore, OpenAI CLIP: the same, half pixels rounded down
 *   tensor        HPSv2: bicubic filter on floats, neither rounded nor clipped
 *   letterbox     HPSv2's own benchmark: as tensor, but the longer side resized and the rest black
 *   square        VQAScore: as transformers, of the picture padded to a square with the mean colour
 */
import { F, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { checkImage } from "../arguments.js";
import { invalid } from "../errors.js";
import { pythonRound } from "../files/python-number.js";
import { cropOffset, resizeThenCrop } from "../pictures/crop.js";
import { filterAt, resizePart } from "../pictures/resize.js";
import type { RgbImage } from "../pictures/rgb.js";
import { pictureKey } from "./kept-features.js";

/** How pixels are made, as above. */
export type ClipPixels = "pillow" | "transformers" | "tensor" | "letterbox" | "square";

/** OpenAI's mean of red, green and blue. */
export const CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073];
/** OpenAI's standard deviation of red, green and blue. */
export const CLIP_STD = [0.26862954, 0.26130258, 0.27577711];
/** The mean in levels, without what is behind the point. */
const MEAN_COLOUR = [122, 116, 104] as const;

/** Normalised pixels (3, side, side) in float32; the caller owns them. */
export function clipPixels(image: RgbImage, side: number, kind: ClipPixels): Tensor {
  checkImage("image", image);
  return normalisedPixels({ image }, side, kind);
}

/** {@link clipPixels} of a picture whose key is known, which takes as long as half of the resizing. */
export function keyedPixels(picture: KeyedPicture, side: number, kind: ClipPixels): Tensor {
  checkImage("image", picture.image);
  return normalisedPixels(picture, side, kind);
}

function normalisedPixels({ image, key }: { image: RgbImage; key?: string }, side: number, kind: ClipPixels): Tensor {
  return scope(() => {
    const planes =
      kind === "tensor" || kind === "letterbox" ? resizeTensor(image, side, kind) : resizeBytes(image, side, kind, key);
    const channel = (values: number[]) => tensor(Float32Array.from(values)).view(3, 1, 1);
    return planes.sub(channel(CLIP_MEAN)).div(channel(CLIP_STD));
  });
}

/** (3, height, width) in [0, 1] */
function planesOf({ width, height, data }: RgbImage): Tensor {
  return tensor(data, { shape: [height, width, 3], dtype: "uint8" })
    .permute(2, 0, 1)
    .contiguous()
    .float()
    .div(255);
}

/**
 * What {@link clipPixels} makes its pixels from, in a few letters: equal keys have equal pixels. The two kinds on bytes
 * are one where half a pixel need not be rounded.
 */
export function clipPixelsKey(image: RgbImage, side: number, kind: ClipPixels): string {
  const how = kind === "pillow" || kind === "transformers" ? longOffset(image, side, kind) : kind;
  return `${pictureKey(image)} ${side} ${how}`;
}

/** A picture with its {@link clipPixelsKey}. */
export interface KeyedPicture {
  image: RgbImage;
  key: string;
}

/** Pictures with their keys, each of which is made once. */
export function keyedPictures(images: readonly RgbImage[], side: number, kind: ClipPixels): KeyedPicture[] {
  return images.map((image) => ({ image, key: clipPixelsKey(image, side, kind) }));
}

/** Where the crop of the longer side begins. */
function longOffset({ width, height }: RgbImage, side: number, kind: "pillow" | "transformers"): number {
  const long = Math.trunc((side * Math.max(width, height)) / Math.min(width, height));
  return cropOffset(long, side, ROUNDING[kind]);
}

const ROUNDING = { pillow: "even", transformers: "down" } as const;

/** Highest picture that is seen in a square: its rows take 1 GB. */
const MAX_SIDE = 2 ** 20;
/** Pixels of a resized picture, of which only the middle is seen, that are made at most: 200 MB in float32. */
const MAX_RESIZED = 2 ** 24;
/** Bytes of resized pictures that are kept for the scorers that come next. */
const KEPT_BYTES = 16 * 2 ** 20;
/** By {@link clipPixelsKey}; the one that was used last is the last. */
const crops = new Map<string, RgbImage>();
let cropBytes = 0;

function resizeBytes(
  image: RgbImage,
  side: number,
  kind: "pillow" | "transformers" | "square",
  key = clipPixelsKey(image, side, kind),
): Tensor {
  const known = crops.get(key);
  const crop =
    known ??
    (kind === "square"
      ? resizeInSquare(image, side)
      : resizeThenCrop(image, side, "bicubic", ROUNDING[kind], "pillow-13"));
  crops.delete(key);
  crops.set(key, crop);
  if (known === undefined) cropBytes += crop.data.length;
  for (const [oldest, { data }] of crops) {
    if (cropBytes <= KEPT_BYTES) break;
    crops.delete(oldest);
    cropBytes -= data.length;
  }
  return planesOf(crop);
}

/** The picture in the middle of a square of its longer side; half a pixel of the rest goes to the right and below. */
function resizeInSquare(image: RgbImage, side: number): RgbImage {
  const { width, height } = image;
  const length = Math.max(width, height);
  if (height > MAX_SIDE)
    throw invalid("image", `a height of at most ${MAX_SIDE} pixels, to see it in a square`, height);
  const [left, top] = [Math.floor((length - width) / 2), Math.floor((length - height) / 2)];
  const canvas = { width: length, height: length, left, top, colour: MEAN_COLOUR };
  return resizePart(image, { size: { width: side, height: side }, canvas, filter: "bicubic", order: "pillow-13" });
}

function resizeTensor(image: RgbImage, side: number, kind: "tensor" | "letterbox"): Tensor {
  const { width, height } = image;
  if (kind === "tensor") {
    const [short, long] = [Math.min(width, height), Math.max(width, height)];
    const length = Math.trunc((side * long) / short);
    if (side * length > MAX_RESIZED) return resizeStrip(image, side, length);
    const size = [height, width].map((one) => (one === short ? side : length));
    const resized = bicubic(planesOf(image), size[0]!, size[1]!);
    return resized.narrow(1, cropOffset(size[0]!, side), side).narrow(2, cropOffset(size[1]!, side), side);
  }
  const planes = planesOf(image);
  const scale = side / Math.max(width, height);
  const [h, w] = [height, width].map((length) => Math.max(1, pythonRound(length * scale))) as [number, number];
  const resized = bicubic(planes, h, w);
  const [top, left] = [Math.floor((side - h) / 2), Math.floor((side - w) / 2)];
  return F.pad(resized, [left, side - w - left, top, side - h - top]);
}

/**
 * The middle of a picture that is much longer than wide or high: of the longer side only what is seen is resized.
 * @param length that the longer side would have
 */
function resizeStrip({ width, height, data }: RgbImage, side: number, length: number): Tensor {
  const isWide = width > height;
  const long = Math.max(width, height);
  const offset = cropOffset(length, side);
  // ATen's arithmetic, as long as float32 has halves of pixels.
  const round = length < 2 ** 20 ? Math.fround : undefined;
  const filters = Array.from({ length: side }, (_, i) => filterAt(offset + i, [long, length], "bicubic", round));
  const low = Math.min(...filters.map(({ begin }) => begin));
  const count = Math.max(...filters.map(({ begin, row }) => begin + row.length)) - low;
  const weights = new Float32Array(side * count);
  filters.forEach(({ begin, row }, i) => {
    weights.set(row, i * count + begin - low);
  });
  const [rowBytes, seen] = [3 * width, isWide ? { width: count, height } : { width, height: count }];
  const bytes = new Uint8Array(3 * seen.width * seen.height);
  for (let y = 0; y < seen.height; y++) {
    const from = isWide ? y * rowBytes + 3 * low : (y + low) * rowBytes;
    bytes.set(data.subarray(from, from + 3 * seen.width), y * 3 * seen.width);
  }
  const planes = planesOf({ ...seen, data: bytes });
  const along = tensor(weights, { shape: [side, count] });
  return bicubic(isWide ? planes.matmul(along.t()) : along.matmul(planes), side, side);
}

function bicubic(planes: Tensor, height: number, width: number): Tensor {
  if (planes.size(1) === height && planes.size(2) === width) return planes;
  return F.interpolate(planes.unsqueeze(0), { size: [height, width], mode: "bicubic", antialias: true }).select(0, 0);
}
