/**
 * Decoding of pictures as a viewer shows them: turned as EXIF says, transparency over white, colour profiles followed,
 * 8-bit sRGB, the first frame of an animation. `decode.ts` gives the values that data sets were made with instead.
 */
import { decodeAvif, hasAvifProfile } from "./avif.js";
import { decodeBmp } from "./bmp.js";
import { checkSize, ImageError, MAX_PIXELS } from "./image-error.js";
import { decodingError, knownFormat } from "./image-format.js";
import type { RgbImage } from "./rgb.js";
import { sharp } from "./sharp.js";

/**
 * Decodes a picture (JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF, told by its content) to what a viewer shows.
 *
 * @param maxPixels pictures with more pixels are refused before anything is allocated for them
 * @throws ImageError for other formats, damaged or cut files and pictures above the limit
 */
export async function decodeShown(bytes: Uint8Array, maxPixels = MAX_PIXELS): Promise<RgbImage> {
  const format = knownFormat(bytes);
  if (format === "bmp") return decodeBmp(bytes, maxPixels);
  if (format === "avif" && !hasAvifProfile(bytes)) return decodeAvif(bytes, maxPixels, true, true);
  try {
    const { width, height } = await sharp(bytes, { limitInputPixels: false }).metadata();
    checkSize(width, height, maxPixels);
    const { data, info } = await sharp(bytes, { limitInputPixels: false, failOn: "truncated" })
      .autoOrient()
      .flatten({ background: "white" })
      .toColourspace("srgb")
      .raw({ depth: "uchar" })
      .toBuffer({ resolveWithObject: true });
    if (info.channels !== 3) throw new ImageError("unsupported-image", `decoded to ${info.channels} channels`);
    return { width: info.width, height: info.height, data };
  } catch (error) {
    throw decodingError(error);
  }
}
