/**
 * Pictures as files: PNG, WebP or JPEG, with the settings inside, and back. PNG is lossless and keeps the settings in
 * text chunks (png.ts); the other two keep them in EXIF and XMP (exif.ts), pixels through sharp.
 */
import { extname } from "node:path";
import { z } from "zod";
import { checkImage } from "../arguments.js";
import { InvalidInputError, invalid, MiroError } from "../errors.js";
import { readBytesAside } from "../files/whole-files.js";
import { field, type OptionsOf, parseOptions } from "../options.js";
import {
  insertIntoJpeg,
  insertIntoWebp,
  makeExif,
  makeXmp,
  readExtendedXmp,
  readUserComment,
  readXmp,
} from "./exif.js";
import { decoderReason } from "./image-format.js";
import { checkTexts, encodePngAside, type PngText, readPng } from "./png.js";
import type { RgbImage } from "./rgb.js";
import { sharp } from "./sharp.js";

/** File formats of pictures. */
export const IMAGE_FORMATS = ["png", "webp", "jpeg"] as const;

/** One of `png`, `webp`, `jpeg`. */
export type ImageFormat = (typeof IMAGE_FORMATS)[number];

/** Of webp and jpeg. */
const DEFAULT_QUALITY = 90;

/** Options of {@link encodeImage}, declared once for the API and the command line. */
export const imageFormatSchema = z.strictObject({
  /** File format; only png keeps every pixel. Default: png. */
  format: field(z.enum(IMAGE_FORMATS).default("png"), {
    expected: `one of ${IMAGE_FORMATS.join(", ")}`,
    help: "file format; only png keeps every pixel",
  }),
  /** Of webp and jpeg, 1 to 100. Default: 90. */
  quality: field(z.int().min(1).max(100).optional(), {
    expected: "an integer from 1 to 100",
    help: "quality of webp and jpeg",
    otherwise: String(DEFAULT_QUALITY),
  }),
});

/** Format and quality of a picture's file. */
export type ImageFileOptions = OptionsOf<typeof imageFormatSchema>;

/** The end of the file name of a format, with its dot. */
export function extension(format: ImageFormat): string {
  return format === "jpeg" ? ".jpg" : `.${format}`;
}

/** The format that a file's name asks for, or null. */
export function formatOf(path: string): ImageFormat | null {
  const end = extname(path).slice(1).toLowerCase();
  if (end === "jpg") return "jpeg";
  return IMAGE_FORMATS.find((format) => format === end) ?? null;
}

/**
 * A picture as the bytes of a file. The same pixels and texts give the same bytes (PNG on every machine, the others
 * with the same version of sharp).
 *
 * @param text as `settingsToText` gives it, by default none. WebP and JPEG keep the texts `Software`, `parameters` and
 * `miro`.
 * @throws InvalidInputError for another format, a quality of PNG, which has none, and what is no picture
 *
 * @example
 * ```ts
 * import { writeFileSync } from "node:fs";
 * import { encodeImage } from "miro-t2i";
 *
 * const grey = { width: 2, height: 2, data: new Uint8Array(12).fill(128) };
 * writeFileSync("grey.png", await encodeImage(grey));
 * writeFileSync("grey.webp", await encodeImage(grey, [], { format: "webp", quality: 80 }));
 * ```
 */
export async function encodeImage(
  image: RgbImage,
  text: readonly PngText[] = [],
  options: ImageFileOptions = {},
): Promise<Uint8Array> {
  checkImage("image", image);
  checkTexts(text);
  const { format, quality } = parseOptions(imageFormatSchema, options);
  if (format === "png") {
    if (quality !== undefined) throw invalid("quality", "nothing with png, which keeps every pixel", quality);
    return encodePngAside(image.data, image.width, image.height, text);
  }
  const find = (wanted: string) => text.find(({ keyword }) => keyword === wanted)?.text ?? "";
  const raw = { width: image.width, height: image.height, channels: 3 as const };
  const pixels = sharp(image.data, { raw });
  const [software, parameters, json] = [find("Software"), find("parameters"), find("miro")];
  const encoding = { quality: quality ?? DEFAULT_QUALITY };
  if (format === "webp") {
    const webp = await pixels
      .withXmp(makeXmp(json, software))
      .webp({ ...encoding, smartSubsample: true })
      .toBuffer();
    return insertIntoWebp(webp, makeExif(software, parameters));
  }
  const jpeg = await pixels.jpeg({ ...encoding, chromaSubsampling: "4:4:4" }).toBuffer();
  return insertIntoJpeg(jpeg, { software, parameters, json });
}

/** What {@link readImageFile} finds. */
export interface ImageFile {
  /** As its first bytes say, whatever it is called. */
  format: ImageFormat;
  /** Pixels in a row. */
  width: number;
  /** Rows. */
  height: number;
  /** As {@link encodeImage} got them, and whatever else a PNG holds. */
  text: PngText[];
}

/**
 * Reads the size and the texts of a picture, and checks that the file is complete.
 *
 * @throws MiroError naming the file when it cannot be read or is damaged; InvalidInputError when it is no such picture
 *
 * @example
 * ```ts
 * import { MiroPipeline, readImageFile, readSettings } from "miro-t2i";
 *
 * await using pipe = await MiroPipeline.fromPretrained();
 * const { images } = await pipe.generate("a cat", { steps: 4 });
 * await images[0].save("cat.png");
 * const { width, height, text } = await readImageFile("cat.png");
 * console.log(width, height, readSettings(text, "cat.png").prompt);
 * ```
 */
export async function readImageFile(path: string): Promise<ImageFile> {
  if (typeof path !== "string" || path === "") throw invalid("path", "the name of a picture's file", path);
  const bytes = await readBytesAside(path);
  if (bytes[0] === 0x89) {
    const { width, height, text } = readPng(bytes, path);
    return { format: "png", width, height, text };
  }
  const format = bytes[0] === 0xff && bytes[1] === 0xd8 ? "jpeg" : isWebp(bytes) ? "webp" : null;
  if (format === null) {
    if (formatOf(path) === "png") readPng(bytes, path); // says at which byte it stops being one
    throw new InvalidInputError(`${path}: expected a PNG, WebP or JPEG picture`);
  }
  try {
    const { width, height, text } = await sharpTexts(bytes, format);
    await sharp(bytes, { failOn: "truncated" }).stats(); // decodes every pixel
    return { format, width, height, text };
  } catch (error) {
    throw notValid(path, format, error);
  }
}

/**
 * The texts of a PNG, WebP or JPEG picture, without decoding its pixels; none for other formats.
 * @throws MiroError naming the file when it is damaged
 */
export async function textsOf(bytes: Buffer, path: string): Promise<PngText[]> {
  if (bytes.subarray(0, 4).equals(PNG_SIGNATURE)) return readPng(bytes, path).text;
  const format = bytes[0] === 0xff && bytes[1] === 0xd8 ? "jpeg" : isWebp(bytes) ? "webp" : null;
  if (format === null) return [];
  try {
    return (await sharpTexts(bytes, format)).text;
  } catch (error) {
    throw notValid(path, format, error);
  }
}

const PNG_SIGNATURE = Buffer.of(0x89, 0x50, 0x4e, 0x47);

async function sharpTexts(bytes: Buffer, format: "jpeg" | "webp") {
  const { width, height, exif, xmp } = await sharp(bytes).metadata();
  const main = xmp?.toString("utf8") ?? "";
  const packet = (format === "jpeg" ? readExtendedXmp(bytes, main) : null) ?? main;
  const comment = (exif && readUserComment(exif)) || parametersOf(packet);
  const json = readXmp(packet);
  const text: PngText[] = [
    ...(comment ? [{ keyword: "parameters", text: comment }] : []),
    ...(json ? [{ keyword: "miro", text: json }] : []),
  ];
  return { width, height, text };
}

function notValid(path: string, format: "jpeg" | "webp", error: unknown): MiroError {
  const kind = format === "jpeg" ? "JPEG" : "WebP";
  return new MiroError(`${path}: not a valid ${kind}: ${decoderReason(error)}`, { cause: error });
}

/** The parameters that no EXIF block could hold; they stand in the packet as JSON, as XML has no control characters. */
function parametersOf(packet: string): string | null {
  try {
    const value: unknown = JSON.parse(readXmp(packet, "parameters") ?? "null");
    return typeof value === "string" ? value : null;
  } catch {
    return null;
  }
}

function isWebp(bytes: Buffer): boolean {
  return bytes.toString("latin1", 0, 4) === "RIFF" && bytes.toString("latin1", 8, 12) === "WEBP";
}
