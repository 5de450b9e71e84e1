/**
 * Decoding of pictures to 8-bit RGB with the values that Pillow's `convert("RGB")` gives, which is what upstream's data
 * were made with:
 *
 *   transparency    dropped, the colours below it are kept
 *   EXIF            the orientation is ignored unless asked for; TIFF's own orientation is always followed
 *   colour profiles ignored; CMYK is converted by its definition, R = (255 - C)(255 - K) / 255
 *   16 bits         the upper 8; of one grey channel the value itself, clipped to 255 (so does Pillow)
 *   32 bits         grey integers and floats, cut to whole numbers and clipped to 0 to 255
 *   animation       the first frame
 *   damage          a file that was cut is refused; a JPEG with its end mark has grey where coded data are missing
 *
 * JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are told by their content, whatever the file is called. Nothing is allocated
 * for a picture before its header was compared with the limit. Exact but for AVIF (within 3 levels) and TIFF with
 * premultiplied alpha (within 1). Pillow reads also TIFF in Lab, of 12 bits, in separate planes of tiles, and
 * compressed by zstd or LZMA; these are refused here.
 */
import type { Metadata, OutputInfo, Sharp } from "sharp";
import { z } from "zod";
import { checkBytes } from "../arguments.js";
import { field, flag, type OptionsOf, parseOptions } from "../options.js";
import { avifOrientation, decodeAvif } from "./avif.js";
import { decodeBmp } from "./bmp.js";
import { decodeGif } from "./gif.js";
import { checkSize, ImageError, MAX_PIXELS } from "./image-error.js";
import { decodingError, imageFormat, knownFormat } from "./image-format.js";
import { completePng } from "./png-rows.js";
import type { RgbImage } from "./rgb.js";
import { sharp } from "./sharp.js";
import { readTiffTags, type TiffTags } from "./tiff.js";

export { ImageError, type ImageProblem, MAX_PIXELS } from "./image-error.js";
export { type DecodedFormat, IMAGE_EXTENSIONS, imageFormat } from "./image-format.js";

const decodeSchema = z.strictObject({
  /** Pictures with more pixels are refused; default {@link MAX_PIXELS}. */
  maxPixels: field(z.int().min(1).default(MAX_PIXELS), {
    expected: "an integer of at least 1",
    help: "most pixels of a picture that is decoded",
  }),
  /** Whether to turn the picture as its EXIF orientation says; default false. */
  orient: flag("turn the picture as its EXIF orientation says"),
});

/** How {@link decodeImage} decodes. */
export type DecodeOptions = OptionsOf<typeof decodeSchema>;

/** A picture, and how it says that it is to be turned. */
export interface OrientedImage {
  image: RgbImage;
  /** As EXIF counts, 1 to 8. */
  orientation: number;
}

const START_OF_SCAN = Buffer.of(0xff, 0xda);
const MAX_SCANS = 100;
/**
 * Decodes a picture.
 * @throws ImageError for other formats, damaged or cut files and pictures above the limit
 */
export async function decodeImage(bytes: Uint8Array, options: DecodeOptions = {}): Promise<RgbImage> {
  checkBytes("bytes", bytes);
  return (await decodeWithOrientation(bytes, parseOptions(decodeSchema, options))).image;
}

/**
 * As {@link decodeImage}, with the orientation that the picture says and that `orient` decides about: 1, or 2 to 8
 * where it is stored mirrored or turned, as phones store photographs. That of a TIFF, which is always followed, counts
 * as 1.
 */
export async function decodeWithOrientation(
  bytes: Uint8Array,
  { maxPixels = MAX_PIXELS, orient = false }: DecodeOptions = {},
): Promise<OrientedImage> {
  const format = knownFormat(bytes);
  if (format === "gif") return { image: decodeGif(bytes, maxPixels), orientation: 1 };
  if (format === "bmp") return { image: decodeBmp(bytes, maxPixels), orientation: 1 };
  if (format === "avif")
    return { image: await decodeAvif(bytes, maxPixels, orient), orientation: avifOrientation(bytes) };
  try {
    return await decodeWithSharp(bytes, maxPixels, orient).catch((error: unknown) => {
      const complete = format === "png" && !(error instanceof ImageError) ? completePng(bytes, maxPixels) : null;
      if (complete === null) throw error;
      return decodeWithSharp(complete, maxPixels, orient);
    });
  } catch (error) {
    throw decodingError(error);
  }
}

async function decodeWithSharp(bytes: Uint8Array, maxPixels: number, orient: boolean): Promise<OrientedImage> {
  const unlimited = imageFormat(bytes) === "jpeg" && hasFewScans(bytes);
  const options = { ignoreIcc: true, limitInputPixels: false, pages: 1, unlimited } as const;
  const metadata = await sharp(bytes, options).metadata();
  const { format, width, height, orientation = 1 } = metadata;
  checkSize(width, height, maxPixels);
  const tiff = format === "tiff" ? readTiffTags(bytes) : null;
  // The TIFF reader takes strips that it could not decode for errors, not for truncation.
  const source = sharp(bytes, { ...options, failOn: tiff === null ? "truncated" : "error" });
  const turned = (orient || tiff !== null) && orientation > 1 ? source.autoOrient() : source;
  return { image: await toRgb(turned, bytes, metadata, tiff), orientation: tiff === null ? orientation : 1 };
}

async function toRgb(
  turned: Sharp,
  bytes: Uint8Array,
  { format, space, channels, depth }: Metadata,
  tiff: TiffTags | null,
): Promise<RgbImage> {
  if (space === "cmyk") {
    const wide = depth === "ushort";
    const inks = await raw(turned.pipelineColourspace("cmyk").toColourspace("cmyk"), wide ? "ushort" : "uchar");
    return fromCmyk(wide ? upperBytes(inks) : inks);
  }
  // Colour type 0 of PNG is one grey channel, with a transparent value or without.
  if (channels === 1 || (format === "png" && bytes[25] === 0)) {
    if (space === "grey16") {
      const grey = await raw(turned.toColourspace("grey16"), "ushort");
      const inverted = depth === "ushort" && tiff?.photometric === 0;
      return fromGrey(grey, words(grey.data), (value) => Math.min(255, inverted ? 65535 - value : value));
    }
    if (depth === "char") {
      const grey = await raw(turned.toColourspace("b-w"), "char");
      return fromGrey(grey, grey.data, (value) => value);
    }
  }
  if (space === "scrgb") throw new ImageError("unsupported-image", "colours as floats");
  const { data, info } = await raw(turned.removeAlpha().toColourspace("srgb"));
  if (info.channels !== 3) throw new ImageError("unsupported-image", `decoded to ${info.channels} channels`);
  return { width: info.width, height: info.height, data };
}

/**
 * Whether a JPEG has no more scans than encoders make. The JPEG reader gives up after some warnings, which a file that
 * ends early has at each restart mark; without that limit, scans are what could keep it busy for long.
 */
function hasFewScans(bytes: Uint8Array): boolean {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let scans = 0;
  for (let at = file.indexOf(START_OF_SCAN); at >= 0; at = file.indexOf(START_OF_SCAN, at + 2)) {
    if (++scans > MAX_SCANS) return false;
  }
  return true;
}

type Raw = { data: Buffer; info: OutputInfo };

function raw(pipeline: Sharp, depth: "uchar" | "ushort" | "char" = "uchar"): Promise<Raw> {
  return pipeline.raw({ depth }).toBuffer({ resolveWithObject: true });
}

/** The upper half of each 16-bit value. */
function upperBytes({ data, info }: Raw): Raw {
  return { data: Buffer.from(words(data).map((value) => value >> 8)), info };
}

function words(data: Buffer): Uint16Array {
  return new Uint16Array(data.buffer, data.byteOffset, data.length / 2);
}

function fromCmyk({ data, info: { width, height } }: Raw): RgbImage {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
    const light = 255 - data[from + 3]!;
    for (let c = 0; c < 3; c++) rgb[to + c] = light - divideBy255(data[from + c]! * light);
  }
  return { width, height, data: rgb };
}

/** product / 255, rounded, for products of two bytes. */
function divideBy255(product: number): number {
  const t = product + 128;
  return ((t >> 8) + t) >> 8;
}

/** Grey from the first channel's values. */
function fromGrey(
  { info: { width, height, channels } }: Raw,
  values: Uint8Array | Uint16Array,
  level: (value: number) => number,
): RgbImage {
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) rgb.fill(level(values[i * channels]!), 3 * i, 3 * i + 3);
  return { width, height, data: rgb };
}
