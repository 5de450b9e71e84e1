/** Why a picture cannot be decoded, and the limit of its size. */
import { MiroError } from "../errors.js";

/** Pixels above which Pillow refuses a picture as a decompression bomb. */
export const MAX_PIXELS = 178_956_970;

/** Why a picture was refused. */
export type ImageProblem = "unsupported-image" | "image-too-large" | "bad-image";

/** A picture that cannot be decoded. */
export class ImageError extends MiroError {
  constructor(
    readonly reason: ImageProblem,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** A damaged or cut picture. */
export function badImage(message: string): ImageError {
  return new ImageError("bad-image", `cannot be decoded: ${message}`);
}

/** Compares a size from a picture's header with the limit, before anything is allocated for it. */
export function checkSize(width: number, height: number, maxPixels: number): void {
  if (!(width > 0 && height > 0)) throw badImage(`its size is ${width} x ${height}`);
  if (width * height > maxPixels) {
    throw new ImageError("image-too-large", `${width} x ${height} pixels, at most ${maxPixels} are decoded`);
  }
}
