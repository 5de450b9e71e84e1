/**
 * Decoding of pictures to 8-bit RGB with the values that Pillow's `convert("RGB")` gives, which is what upstream's data were made
 * with:
 *
 *   transparency    dropped, the colours below it are kept
 *   EXIF            the orientation is ignored unless asked for
 *   colour profiles ignored; CMYK is converted by its definition, R = (255 - C)(255 - K) / 255
 *   16 bits         the upper 8; of grey PNG without transparency the value itself, clipped to 255 (so does Pillow)
 *   animation       the first frame
 *
 * JPEG, PNG, WebP and GIF are told by their content, whatever the file is called. Nothing is allocated for a picture before its header
 * was compared with the limit.
 */
import sharp, { type OutputInfo, type Sharp } from "sharp";
import { MiroError } from "../errors.js";
import type { RgbImage } from "./rgb.js";

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

/** How {@link decodeImage} decodes. */
export interface DecodeOptions {
  /** Pictures with more pixels are refused; default {@link MAX_PIXELS}. */
  maxPixels?: number;
  /** Whether to turn the picture as its EXIF orientation says; default false. */
  orient?: boolean;
}

/** The format by the first bytes, null for anything that is not decoded here. */
export function imageFormat(bytes: Uint8Array): "jpeg" | "png" | "webp" | "gif" | null {
  const start = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(12, bytes.length)).toString("latin1");
  if (start.startsWith("\xff\xd8\xff")) return "jpeg";
  if (start.startsWith("\x89PNG\r\n\x1a\n")) return "png";
  if (start.startsWith("RIFF") && start.slice(8) === "WEBP") return "webp";
  return /^GIF8[79]a/.test(start) ? "gif" : null;
}

/**
 * Decodes a picture.
 * @throws ImageError for other formats, damaged or cut files and pictures above the limit
 */
export async function decodeImage(
  bytes: Uint8Array,
  { maxPixels = MAX_PIXELS, orient = false }: DecodeOptions = {},
): Promise<RgbImage> {
  if (imageFormat(bytes) === null)
    throw new ImageError("unsupported-image", `no JPEG, PNG, WebP or GIF (${bytes.length} bytes)`);
  try {
    const source = sharp(bytes, { failOn: "truncated", ignoreIcc: true, limitInputPixels: false, pages: 1 });
    const { width, height, space, channels, depth, orientation = 1 } = await source.metadata();
    if (width * height > maxPixels) {
      throw new ImageError("image-too-large", `${width} x ${height} pixels, at most ${maxPixels} are decoded`);
    }
    const turned = orient && orientation > 1 ? source.autoOrient() : source;
    if (space === "cmyk") return fromCmyk(await raw(turned.pipelineColourspace("cmyk").toColourspace("cmyk")));
    if (space === "grey16" && channels === 1 && depth === "ushort") {
      return fromGrey16(await raw(turned.toColourspace("grey16"), "ushort"));
    }
    const { data, info } = await raw(turned.removeAlpha().toColourspace("srgb"));
    if (info.channels !== 3) throw new ImageError("unsupported-image", `decoded to ${info.channels} channels`);
    return { width: info.width, height: info.height, data };
  } catch (error) {
    if (error instanceof ImageError) throw error;
    throw new ImageError("bad-image", `cannot be decoded: ${firstLine(error)}`, { cause: error });
  }
}

type Raw = { data: Buffer; info: OutputInfo };

function raw(pipeline: Sharp, depth: "uchar" | "ushort" = "uchar"): Promise<Raw> {
  return pipeline.raw({ depth }).toBuffer({ resolveWithObject: true });
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

function fromGrey16({ data, info: { width, height, channels } }: Raw): RgbImage {
  const values = new Uint16Array(data.buffer, data.byteOffset, data.length / 2);
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) rgb.fill(Math.min(255, values[i * channels]!), 3 * i, 3 * i + 3);
  return { width, height, data: rgb };
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0]!;
}
