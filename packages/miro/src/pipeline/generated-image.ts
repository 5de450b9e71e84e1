/** A finished picture, which can store itself. */
import { checkImage } from "../arguments.js";
import { invalid } from "../errors.js";
import { writeFileAside } from "../files/whole-files.js";
import { parseOptions } from "../options.js";
import {
  encodeImage,
  formatOf,
  type ImageFileOptions,
  type ImageFormat,
  imageFormatSchema,
} from "../pictures/image-files.js";
import type { RgbImage } from "../pictures/rgb.js";
import { checkSettings, type ImageSettings, settingsToText } from "./settings.js";

/** Options of {@link GeneratedImage.save}. */
export interface SaveOptions {
  /** Of WebP and JPEG, 1 to 100; default 90. */
  quality?: number | undefined;
  /** Replace a file that exists; default true. */
  overwrite?: boolean | undefined;
}

/**
 * A finished picture: pixels as 8-bit RGB, and the settings that draw it again.
 *
 * @example
 * ```ts
 * import { MiroPipeline } from "miro-t2i";
 *
 * await using pipe = await MiroPipeline.fromPretrained();
 * const { images } = await pipe.generate("a fox", { steps: 8, seed: 7 });
 * await images[0].save("fox.png");
 * console.log(images[0].width, images[0].settings.seed);
 * ```
 */
export class GeneratedImage implements RgbImage {
  /** Pixels in a row. */
  readonly width: number;
  /** Rows. */
  readonly height: number;
  /** `width · height · 3` bytes: red, green, blue of each pixel, row by row. */
  readonly data: Uint8Array;
  /** The text that was drawn. */
  readonly prompt: string;
  /** The seed of its noise; null where the noise was given. */
  readonly seed: number | null;
  /** Everything that decides the picture, as its file stores it. */
  readonly settings: ImageSettings;

  /** @throws InvalidInputError for what is no picture, or are no settings */
  constructor(image: RgbImage, settings: ImageSettings) {
    checkImage("image", image);
    checkSettings(settings);
    this.width = image.width;
    this.height = image.height;
    this.data = image.data;
    this.prompt = settings.prompt;
    this.seed = settings.seed;
    this.settings = settings;
  }

  /** The same pixels with other settings, such as the rank among several. */
  withSettings(settings: ImageSettings): GeneratedImage {
    return new GeneratedImage(this, settings);
  }

  /**
   * Writes the picture with its settings inside, which `miro info FILE` shows. The file appears whole or not at all.
   * The event loop goes on meanwhile.
   *
   * @param path a name that ends with `.png` (keeps every pixel), `.webp`, `.jpg` or `.jpeg`
   * @throws InvalidInputError for another ending, a quality with PNG, and an existing file with `overwrite: false`;
   *   MiroError when the file cannot be written
   *
   * @example
   * ```ts
   * import { MiroPipeline } from "miro-t2i";
   *
   * await using pipe = await MiroPipeline.fromPretrained();
   * const { images } = await pipe.generate("a tulip", { steps: 8 });
   * await images[0].save("tulip.webp", { quality: 80 });
   * ```
   */
  async save(path: string, options: SaveOptions = {}): Promise<void> {
    const format = typeof path === "string" ? formatOf(path) : null;
    if (format === null) throw invalid("path", "a file name that ends with .png, .webp, .jpg or .jpeg", path);
    if (typeof options !== "object" || options === null) throw invalid("options", "an object of options", options);
    const { overwrite = true, ...rest } = options;
    if (typeof overwrite !== "boolean") throw invalid("overwrite", "true or false", overwrite);
    await writeFileAside(path, await this.toBuffer(format, rest), { overwrite });
  }

  /**
   * The bytes of a file with the picture and its settings.
   *
   * @param format `png` (the default, which keeps every pixel), `webp` or `jpeg`
   * @throws InvalidInputError for another format, and for a quality with PNG
   *
   * @example
   * ```ts
   * import { MiroPipeline } from "miro-t2i";
   *
   * await using pipe = await MiroPipeline.fromPretrained();
   * const { images } = await pipe.generate("a cat", { steps: 8 });
   * const bytes = await images[0].toBuffer("webp");
   * console.log(bytes.length);
   * ```
   */
  async toBuffer(format: ImageFormat = "png", options: Pick<ImageFileOptions, "quality"> = {}): Promise<Buffer> {
    if (typeof options !== "object" || options === null) throw invalid("options", "an object of options", options);
    const checked = parseOptions(imageFormatSchema, { ...options, format });
    const bytes = await encodeImage(this, settingsToText(this.settings), checked);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
}
