/** Pictures of requests and answers in other forms; decoding and encoding run beside the server's own thread. */
import { InvalidInputError, invalid } from "../../errors.js";
import { about, message } from "../../message.js";
import { checkSize } from "../../pictures/image-error.js";
import { type ImageFormat, textsOf } from "../../pictures/image-files.js";
import { knownFormat } from "../../pictures/image-format.js";
import type { PngText } from "../../pictures/png.js";
import { sharp } from "../../pictures/sharp.js";
import { MAX_UPLOAD_PIXELS } from "./limits.js";

/** A picture in another format and size. @param quality of jpeg and webp */
export async function recoded(
  bytes: Buffer,
  format: ImageFormat,
  { size: [width, height], quality }: { size: [number, number]; quality?: number | undefined },
): Promise<Buffer> {
  const image = sharp(bytes).resize(width, height, { kernel: "cubic" });
  return format === "png" ? image.png().toBuffer() : image[format](qualityOf(quality)).toBuffer();
}

/** Quality of 0 to 100 as encoders take it. */
export function qualityOf(quality: number | undefined): { quality?: number } {
  return quality === undefined ? {} : { quality: Math.max(1, quality) };
}

/**
 * The size that a picture's header tells; null where only decoding does.
 * @throws InvalidInputError for what is no picture, or is larger than what is decoded
 */
export async function sizeOfUpload(parameter: string, bytes: Uint8Array): Promise<[number, number] | null> {
  try {
    const format = knownFormat(bytes);
    if (format === "bmp" || format === "avif") return null;
    const { autoOrient, width, height } = await sharp(bytes, { limitInputPixels: false }).metadata();
    checkSize(width, height, MAX_UPLOAD_PIXELS);
    return [autoOrient.width, autoOrient.height];
  } catch (error) {
    throw noPicture(parameter, error);
  }
}

/** What is wrong with a picture that was sent. */
export function noPicture(parameter: string, error: unknown): InvalidInputError {
  return new InvalidInputError(message`${about(parameter)}: ${firstLine(error)}`, {
    parameter,
    expected: "a picture: PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF",
    received: firstLine(error),
    cause: error,
  });
}

/** A mask whose transparent places are white and opaque ones black. @throws InvalidInputError for one without alpha */
export async function maskOfAlpha(parameter: string, bytes: Uint8Array): Promise<Uint8Array> {
  await sizeOfUpload(parameter, bytes);
  try {
    const image = reader(bytes);
    const { hasAlpha } = await image.metadata();
    if (!hasAlpha)
      throw invalid(parameter, "a picture with transparency; its transparent places are drawn anew", message`none`);
    return new Uint8Array(await image.autoOrient().extractChannel("alpha").negate().png().toBuffer());
  } catch (error) {
    if (error instanceof InvalidInputError) throw error;
    throw invalid(parameter, "a picture with transparency", message`${firstLine(error)}`);
  }
}

/** A picture stretched to the proportions of what is drawn; as it is where it has them, or only decoding tells. */
export async function stretched(parameter: string, bytes: Uint8Array, aspect: number): Promise<Uint8Array> {
  const size = await sizeOfUpload(parameter, bytes);
  if (size === null) return bytes;
  const [width, height] = size;
  if (width / height === aspect) return bytes;
  const side = { width, height: Math.max(1, Math.round(width / aspect)), fit: "fill" as const };
  return decoded(parameter, () => reader(bytes).autoOrient().resize(side).png().toBuffer());
}

/** A mask of the size of its picture, turned over and blurred where that is asked for. */
export async function maskFor(
  parameter: string,
  bytes: Uint8Array,
  image: Uint8Array,
  { invert, blur }: { invert: boolean; blur: number },
): Promise<Uint8Array> {
  await sizeOfUpload(parameter, bytes);
  const size = await sizeOfUpload("init_images.0", image);
  return decoded(parameter, () => {
    let mask = reader(bytes).autoOrient().flatten({ background: "white" }).toColourspace("b-w");
    if (size !== null) mask = mask.resize(...size, { fit: "fill" });
    if (invert) mask = mask.negate();
    return (blur >= 0.3 ? mask.blur(blur) : mask).png().toBuffer();
  });
}

/** The texts in a picture; none in one that has none. @throws InvalidInputError for one that is damaged */
export async function textsOfUpload(parameter: string, bytes: Buffer): Promise<PngText[]> {
  try {
    knownFormat(bytes);
    return await textsOf(bytes, "the picture");
  } catch (error) {
    throw invalid(parameter, "a picture that is whole", message`${firstLine(error)}`);
  }
}

function reader(bytes: Uint8Array) {
  return sharp(bytes, { limitInputPixels: MAX_UPLOAD_PIXELS });
}

async function decoded(parameter: string, decode: () => Promise<Buffer>): Promise<Uint8Array> {
  try {
    return new Uint8Array(await decode());
  } catch (error) {
    throw invalid(parameter, "a picture that can be decoded", message`${firstLine(error)}`);
  }
}

function firstLine(error: unknown): string {
  return (error as Error).message.split("\n", 1)[0]!;
}
