/** Pixels: from the decoder's output to 8-bit RGB, and several pictures on one sheet. */
import { scope, type Tensor } from "@miro-t2i/torch";
import { z } from "zod";
import { checkImage } from "../arguments.js";
import { invalid } from "../errors.js";
import { field, type OptionsOf, parseOptions } from "../options.js";

/** 8-bit RGB, row-major, channels last. */
export interface RgbImage {
  /** Pixels in a row. */
  width: number;
  /** Rows. */
  height: number;
  /** `width · height · 3` bytes: red, green and blue of each pixel, row by row. */
  data: Uint8Array;
}

/**
 * Decoder output (B, 3, H, W), about [-1, 1], to bytes: x·0.5 + 0.5, clamped to [0, 1], times 255 and **truncated**, as
 * the published pipeline does (rounding would be half a level brighter on average). Not-a-number becomes black.
 */
export function toRgb(decoded: Tensor): RgbImage[] {
  const [batch, , height, width] = decoded.shape as [number, number, number, number];
  const bytes = scope(
    () =>
      decoded
        .float()
        .mul(0.5)
        .add(0.5)
        .nanToNum(0, 1, 0)
        .clamp(0, 1)
        .mul(255)
        .to("uint8")
        .permute(0, 2, 3, 1)
        .contiguous()
        .data() as Uint8Array,
  );
  const size = height * width * 3;
  return Array.from({ length: batch }, (_, i) => ({ width, height, data: bytes.slice(i * size, (i + 1) * size) }));
}

const sheetSchema = z.strictObject({
  /** Pictures in a row; default: as close to a square as can be. */
  columns: field(z.int().min(1).optional(), { expected: "an integer of at least 1", help: "pictures in a row" }),
  /** Pixels between pictures and around them, default 4. */
  gap: field(z.int().min(0).default(4), {
    expected: "an integer of at least 0",
    help: "pixels between pictures and around them",
  }),
  /** Grey level of what no picture covers, default 245. */
  background: field(z.int().min(0).max(255).default(245), {
    expected: "an integer from 0 to 255",
    help: "grey level of what no picture covers",
  }),
});

/** Options of {@link contactSheet}. */
export type SheetOptions = OptionsOf<typeof sheetSchema>;

/**
 * Pictures of any sizes on one sheet, row by row; each cell is as large as the largest picture.
 *
 * @throws InvalidInputError for no picture, what is no picture, and wrong options
 *
 * @example
 * ```ts
 * import { writeFileSync } from "node:fs";
 * import { contactSheet, encodeImage, MiroPipeline } from "miro-t2i";
 *
 * await using pipe = await MiroPipeline.fromPretrained();
 * const { images } = await pipe.generate("a tulip", { imagesPerPrompt: 4, steps: 4 });
 * writeFileSync("tulips.png", await encodeImage(contactSheet(images, { columns: 2 }), []));
 * ```
 */
export function contactSheet(images: readonly RgbImage[], options: SheetOptions = {}): RgbImage {
  if (!Array.isArray(images) || images.length === 0) throw invalid("images", "a list of at least one picture", images);
  for (const [i, image] of images.entries()) checkImage(`images.${i}`, image);
  const { columns = Math.ceil(Math.sqrt(images.length)), gap, background } = parseOptions(sheetSchema, options);
  const cellWidth = Math.max(...images.map((image) => image.width));
  const cellHeight = Math.max(...images.map((image) => image.height));
  const rows = Math.ceil(images.length / columns);
  const width = columns * (cellWidth + gap) + gap;
  const height = rows * (cellHeight + gap) + gap;
  const data = new Uint8Array(width * height * 3).fill(background);
  images.forEach((image, i) => {
    const left = gap + (i % columns) * (cellWidth + gap);
    const top = gap + Math.floor(i / columns) * (cellHeight + gap);
    for (let y = 0; y < image.height; y++) {
      const row = image.data.subarray(y * image.width * 3, (y + 1) * image.width * 3);
      data.set(row, ((top + y) * width + left) * 3);
    }
  });
  return { width, height, data };
}
