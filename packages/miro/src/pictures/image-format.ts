/** Formats of pictures, told by their first bytes whatever the file is called. */
import { checkBytes } from "../arguments.js";
import { MiroError } from "../errors.js";
import { ImageError } from "./image-error.js";

/** Formats that are decoded here. */
export type DecodedFormat = "jpeg" | "png" | "webp" | "gif" | "bmp" | "tiff" | "avif";

/** Endings of picture files in data sets, the preferred one first. */
export const IMAGE_EXTENSIONS = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"] as const;

const TIFF_MARKS = ["II*\0", "MM\0*", "II+\0", "MM\0+"];

/** The format by the first bytes, null for anything that is not decoded here. */
export function imageFormat(bytes: Uint8Array): DecodedFormat | null {
  checkBytes("bytes", bytes);
  const start = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(256, bytes.length)).toString("latin1");
  if (start.startsWith("\xff\xd8\xff")) return "jpeg";
  if (start.startsWith("\x89PNG\r\n\x1a\n")) return "png";
  if (start.startsWith("RIFF") && start.slice(8, 12) === "WEBP") return "webp";
  if (/^GIF8[79]a/.test(start)) return "gif";
  if (start.startsWith("BM")) return "bmp";
  if (TIFF_MARKS.includes(start.slice(0, 4))) return "tiff";
  return isAvif(start) ? "avif" : null;
}

/**
 * Whether a file's first box names the brand of AVIF pictures or animations, as its own or among those that it keeps
 * to.
 */
function isAvif(start: string): boolean {
  if (start.slice(4, 8) !== "ftyp") return false;
  const size = Buffer.from(start.slice(0, 4), "latin1").readUInt32BE();
  const brands = start.slice(8, size).match(/.{4}/gs) ?? [];
  return brands.some((brand, i) => i !== 1 && (brand === "avif" || brand === "avis"));
}

/**
 * The format by the first bytes.
 * @throws ImageError for anything that is not decoded here
 */
export function knownFormat(bytes: Uint8Array): DecodedFormat {
  const format = imageFormat(bytes);
  if (format !== null) return format;
  throw new ImageError("unsupported-image", `no JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF (${bytes.length} bytes)`);
}

/** What a decoder's error says of the picture; an error that is no fault of it stays as it is. */
export function decodingError(error: unknown): MiroError {
  if (error instanceof MiroError) return error;
  return new ImageError("bad-image", `cannot be decoded: ${decoderReason(error)}`, { cause: error });
}

/** The first line of what a decoder says, which may say of a header only that it is damaged. */
export function decoderReason(error: unknown): string {
  const [line] = (error instanceof Error ? error.message : String(error)).split("\n");
  return line!.replace(/^Input buffer has corrupt header:\s*/, "") || "the header is damaged";
}
