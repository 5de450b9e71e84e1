/**
 * Where the pictures of a command go: names, formats, what is in the way, and what need not be drawn again. Everything
 * is decided before the first picture is drawn; each file appears whole or not at all.
 */
import { existsSync } from "node:fs";
import { dirname, extname, relative, sep } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { describe, InvalidInputError, invalid, MiroError } from "../../errors.js";
import { isFolder } from "../../files/make-folder.js";
import { existing, removeKilledWrites, writeFileAside } from "../../files/whole-files.js";
import { behindLinks, refuseFileAsFolder, withoutParents } from "../../files/writable.js";
import { about, message, option } from "../../message.js";
import { declarationOf, field, flag, type OptionsOf, parseOptions } from "../../options.js";
import {
  encodeImage,
  extension,
  formatOf,
  IMAGE_FORMATS,
  type ImageFormat,
  imageFormatSchema,
  readImageFile,
} from "../../pictures/image-files.js";
import type { PngText } from "../../pictures/png.js";
import type { RgbImage } from "../../pictures/rgb.js";
import { sharp } from "../../pictures/sharp.js";
import { GeneratedImage } from "../generated-image.js";
import { type ImageSettings, isSheet, readSettings, settingsDifference, settingsToText } from "../settings.js";
import { NameAllocator, NameTemplate, type NameValues } from "./file-names.js";
import { type ChooseOptions, NameClaims } from "./name-claims.js";
import type { PlannedPicture } from "./plan-pictures.js";

/** Where pictures go when nothing is said. */
export const DEFAULT_OUTPUT = "pictures";

/** Endings of files that are no pictures, or pictures of formats that are not written: nobody calls a folder so. */
const OTHER_FILES = new Set(
  (
    ".apng .avif .bmp .cr2 .csv .dng .eps .exr .gif .hdr .heic .heif .html .ico .j2k .jfif .jp2 .jpe .json .jsonl .jxl " +
    ".mkv .mov .mp4 .npy .npz .pdf .pgm .pnm .ppm .psd .pt .qoi .raw .safetensors .svg .tar .tga .tif .tiff .txt .webm " +
    ".xcf .yaml .zip"
  ).split(" "),
);

/** How often the work of others is looked at. */
const OTHERS_POLL_MS = 250;

export const pictureFilesSchema = z.strictObject({
  /** Folder of the pictures, or the file of one. Default: `./pictures`. */
  output: field(z.string().min(1).optional(), {
    expected: "a folder, or the file of one picture",
    help: "folder of the pictures, or the file of one",
    flag: "--output <dir>",
    otherwise: `./${DEFAULT_OUTPUT}`,
  }),
  /** Template of the file names, such as `{prompt}-{seed}`; / makes folders. */
  name: field(z.string().optional(), {
    expected: "a template such as {prompt}-{seed}",
    help: "file names: text with fields in braces, / makes folders (below)",
    flag: "--name <template>",
  }),
  /** File format. Default: png, or as `output` ends. */
  format: field(imageFormatSchema.shape.format.unwrap().optional(), {
    ...declarationOf(imageFormatSchema.shape.format),
    flag: "--format <name>",
    otherwise: "png, or as --output ends",
  }),
  /** Of webp and jpeg, 1 to 100. Default: 90. */
  quality: field(imageFormatSchema.shape.quality, {
    ...declarationOf(imageFormatSchema.shape.quality),
    flag: "--quality <n>",
  }),
  /** Replace files that exist. */
  overwrite: flag("replace files that exist", "--overwrite"),
  /** Skip pictures that exist with the same settings; one that differs is an error. */
  resume: flag("skip pictures that exist with the same settings; one that differs is an error", "--resume"),
});

/** Options of {@link PictureFiles}. */
export type PictureFilesOptions = OptionsOf<typeof pictureFilesSchema>;

/** What the pictures are, as far as names and files depend on it. */
export interface ClaimOptions extends ChooseOptions {
  /** Of each picture, when the checkpoint is known. */
  settings: readonly ImageSettings[] | null;
  /** Rewards of the checkpoint, when it is known. */
  rewards: readonly string[] | null;
  /** The part of a name that tells the best of several from a single picture, `-best-of-4`. */
  suffix?: string;
  /** Files for each picture beside the first, told apart by `-rank2`, `-rank3`, … */
  ranks?: number;
}

/** A picture that is there already. */
export interface ExistingPicture {
  path: string;
  settings: ImageSettings;
}

/** The files of one command. */
export class PictureFiles {
  readonly format: ImageFormat;
  readonly #folder: string;
  /** Set when `output` names a file. */
  readonly #file: string | null;
  readonly #options: z.output<typeof pictureFilesSchema>;
  /** Names that are taken get a number instead of an error: the folder is the default one. */
  readonly #numbered: boolean;
  readonly #began = new Date();
  readonly #claims: NameClaims;
  #names: NameAllocator | null = null;
  #paths: string[][] = [];
  /** Places of pictures that other commands are about to draw. */
  readonly #elsewhere = new Set<number>();
  /** Files of a set of candidates that was left incomplete: it is drawn again as a whole. */
  readonly #incomplete = new Set<string>();

  /** @throws InvalidInputError when the options contradict each other or `output` cannot be what it has to be */
  constructor(options: PictureFilesOptions = {}) {
    const checked = parseOptions(pictureFilesSchema, options);
    const { overwrite, resume, name } = checked;
    const output = checked.output && withoutParents(checked.output);
    if (output !== undefined) refuseFileAsFolder(dirname(output), "output");
    const intoFolder = output === undefined || isFolder(output) || checked.output!.endsWith(sep);
    const named = intoFolder ? null : formatOf(output);
    // Whoever writes "-" means the standard output, which takes no pictures; a folder of this name is "./-".
    const isOther = output === "-" || OTHER_FILES.has(extname(output ?? "").toLowerCase());
    if (!intoFolder && named === null && isOther)
      throw invalid("output", "a folder, or a file that ends with .png, .webp, .jpg or .jpeg", output);
    if (named && checked.format && named !== checked.format) {
      throw new InvalidInputError(message`${about("format")}: ${checked.format} contradicts the output ${output}`);
    }
    if (named && name !== undefined)
      throw new InvalidInputError(message`${about("name")}: the output ${output} is a file and has one`);
    this.format = named ?? checked.format ?? "png";
    if (checked.quality !== undefined && this.format === "png") {
      throw new InvalidInputError(
        message`${about("quality")}: png keeps every pixel; choose ${IMAGE_FORMATS.slice(1).join(" or ")} for smaller files`,
      );
    }
    this.#options = checked;
    this.#file = named ? behindLinks(output!) : null;
    this.#folder = this.#file === null ? (output ?? DEFAULT_OUTPUT) : dirname(this.#file);
    this.#numbered = output === undefined && !overwrite && !resume;
    refuseFileAsFolder(this.#folder, "output");
    if (this.#file !== null) this.#refuseExisting(this.#file);
    removeKilledWrites(this.#folder);
    this.#claims = new NameClaims(this.#folder);
  }

  /**
   * Whether the names of these pictures depend on the checkpoint, so that they can only be claimed when it is known.
   */
  needsSettings(pictures: readonly PlannedPicture[]): boolean {
    return pictures.some((picture) => this.#template(picture, null).needsSettings);
  }

  /**
   * Decides the names of all pictures and claims them until {@link release}. With `resume`, pictures that another
   * command is about to draw under the same names are left to it; see {@link fromOthers}.
   * @throws InvalidInputError when a file is in the way or another command is about to write it, or one file cannot
   *   hold what is asked for; MiroError when the folder cannot be written
   */
  async claim(
    pictures: readonly PlannedPicture[],
    { settings, rewards, suffix = "", ranks = 1, ...waiting }: ClaimOptions,
  ): Promise<void> {
    if (this.#file !== null && pictures.length * ranks > 1) {
      throw new InvalidInputError(
        message`${about("output")}: one file cannot hold ${pictures.length * ranks} pictures; name a folder`,
      );
    }
    await this.#choose(waiting, (others) => {
      const isFree = (path: string) => !this.#numbered || !(existsSync(path) || others.has(NameClaims.key(path)));
      this.#names = new NameAllocator(this.#folder, isFree);
      this.#paths = pictures.map((picture, i) => {
        if (this.#file !== null) return [this.#file];
        const values = nameValues(picture, pictures.length, settings?.[i], this.#began);
        const stem = this.#template(picture, rewards, suffix).fill(values);
        return Array.from({ length: ranks }, (_, rank) =>
          this.#names!.take(rank === 0 ? stem : `${stem}-rank${rank + 1}`, extension(this.format)),
        );
      });
      for (const path of this.#paths.flat()) this.#refuseExisting(path);
      return this.#takeUnclaimed(pictures, others);
    });
  }

  /** Claims the pictures that no other command does. @returns their paths */
  #takeUnclaimed(pictures: readonly PlannedPicture[], others: ReadonlySet<string>): string[] {
    const { overwrite, resume } = this.#options;
    this.#elsewhere.clear();
    return pictures.flatMap(({ index }) => {
      const paths = this.#paths[index]!;
      const taken = paths.find((path) => others.has(NameClaims.key(path)));
      if (taken === undefined || (overwrite && !resume)) return paths;
      if (!resume)
        throw new InvalidInputError(
          message`${taken}: another command is about to write it; wait for its end, or choose another ${option("output")}`,
        );
      this.#elsewhere.add(index);
      return [];
    });
  }

  async #choose(waiting: ChooseOptions, choose: (others: ReadonlySet<string>) => string[]): Promise<void> {
    try {
      await this.#claims.choose(choose, waiting);
    } catch (error) {
      // Where nothing can be written there may still be nothing to draw.
      const { code } = ((error as Error).cause ?? error) as NodeJS.ErrnoException;
      if (!this.#options.resume || !/^(EROFS|EACCES|EPERM)$/.test(code ?? "")) throw error;
      choose(new Set());
    }
  }

  /** Whether the names of pictures were claimed. */
  get isClaimed(): boolean {
    return this.#paths.length > 0;
  }

  /** Whether files that exist are replaced. */
  get overwrites(): boolean {
    return this.#options.overwrite;
  }

  /** Whether another command is about to draw a picture. */
  isElsewhere({ index }: PlannedPicture): boolean {
    return this.#elsewhere.has(index);
  }

  /**
   * Waits until the other commands have drawn the pictures that were left to them, or have ended without.
   * @returns these pictures; those that are not {@link finished} then are claimed here
   */
  async fromOthers<T extends PlannedPicture>(pictures: readonly T[], waiting: ChooseOptions = {}): Promise<T[]> {
    const awaited = pictures.filter((picture) => this.isElsewhere(picture));
    for (let told = false; this.#elsewhere.size > 0; told = true) {
      if (!told)
        waiting.onWait?.(`${this.#folder}: waiting for another command, which draws ${awaited.length} of them`);
      const absent = awaited.filter(({ index }) => !this.#paths[index]!.every((path) => existsSync(path)));
      await this.#choose(waiting, (others) => this.#takeUnclaimed(absent, others));
      if (this.#elsewhere.size > 0)
        await sleep(OTHERS_POLL_MS, undefined, waiting.signal ? { signal: waiting.signal } : {});
    }
    return awaited;
  }

  /** Gives up the names that are claimed. */
  release(): void {
    this.#claims.release();
  }

  #refuseExisting(path: string): void {
    if (!this.#options.overwrite && !this.#options.resume && existsSync(path)) throw existing(path);
  }

  #template(picture: PlannedPicture, rewards: readonly string[] | null, suffix = ""): NameTemplate {
    const { seed, name, where, options } = picture;
    const given = name ?? this.#options.name;
    const variation = options.variationSeed === undefined ? "" : "-variation{variation_seed}";
    const text = given ?? `{prompt}-${seed === null ? "noise{index}" : "seed{seed}"}${variation}${suffix}`;
    try {
      return new NameTemplate(formatOf(text) === this.format ? text.replace(/\.[^.]*$/, "") : text, rewards);
    } catch (error) {
      if (where === undefined || name === undefined || !(error instanceof InvalidInputError)) throw error;
      throw new InvalidInputError(message`${where}: ${error}`, { cause: error });
    }
  }

  /** The path of a picture, or of the one of a rank (from 0) among its candidates. */
  path(picture: PlannedPicture, rank = 0): string {
    return this.#paths[picture.index]![rank]!;
  }

  /**
   * The pictures that are there with the settings that they would get, by their place; they need not be drawn. With
   * `overwrite`, those that differ are drawn again.
   * @throws InvalidInputError naming the file and the setting when one is there that differs
   */
  async finished(
    pictures: readonly PlannedPicture[],
    settings: readonly ImageSettings[],
  ): Promise<Map<number, ExistingPicture>> {
    const found = new Map<number, ExistingPicture>();
    if (!this.#options.resume) return found;
    for (const [i, picture] of pictures.entries()) {
      const paths = this.#paths[picture.index]!;
      const present = paths.filter((path) => existsSync(path));
      try {
        let same = present.length === paths.length;
        for (const path of present) same = (await this.#compare(path, settings[i]!)) && same;
        if (same) found.set(picture.index, { path: paths[0]!, settings: await readStored(paths[0]!) });
        else for (const path of present) this.#incomplete.add(path);
      } catch (error) {
        if (!this.#options.overwrite) throw error;
      }
    }
    return found;
  }

  /** Whether a file is the picture that is asked for. @throws InvalidInputError when it is another */
  async #compare(path: string, wanted: ImageSettings): Promise<boolean> {
    let stored: ImageSettings;
    try {
      stored = await readStored(path);
    } catch (error) {
      throw new InvalidInputError(message`${error}; move it away, or ${option("overwrite", true)} to replace it`, {
        cause: error,
      });
    }
    const difference = settingsDifference(stored, wanted);
    if (!difference) return true;
    const { name, stored: was, wanted: is } = difference;
    throw new InvalidInputError(
      message`${path}: is another picture: ${name} is ${describe(was)} there and ${describe(is)} here; choose another name or ${option("output")}, or ${option("overwrite", true)} to replace it`,
    );
  }

  /** A picture that is there already. @throws MiroError when its pixels cannot be read */
  async read(path: string, settings: ImageSettings): Promise<GeneratedImage> {
    try {
      const { data, info } = await sharp(path).removeAlpha().raw().toBuffer({ resolveWithObject: true });
      return new GeneratedImage({ width: info.width, height: info.height, data }, settings);
    } catch (error) {
      throw new MiroError(`${path}: cannot be read as a picture; remove it to have it drawn again`, { cause: error });
    }
  }

  /** Writes a picture and returns its path. */
  async write(picture: PlannedPicture, image: GeneratedImage, rank = 0): Promise<string> {
    const path = this.path(picture, rank);
    const isThere = async () => this.#options.resume && (await this.#compare(path, image.settings));
    return this.#store(path, image, settingsToText(image.settings), isThere);
  }

  /** Writes a picture that stands for several, such as a sheet, beside the others, and returns its path. */
  async writeExtra(name: string, image: RgbImage, text: readonly PngText[]): Promise<string> {
    let path = "";
    await this.#claims.choose((others) => {
      const taken = new Set(this.#paths.flat());
      const isFree = (candidate: string) =>
        !taken.has(candidate) && (!this.#numbered || !(existsSync(candidate) || others.has(NameClaims.key(candidate))));
      path = new NameAllocator(this.#folder, isFree).take(name, extension(this.format));
      return [path];
    });
    // What shows the pictures of an earlier call is brought up to date.
    if (this.#options.resume && existsSync(path) && isSheet((await readImageFile(path)).text))
      this.#incomplete.add(path);
    return this.#store(path, image, text);
  }

  /**
   * @param isThere whether a file that has appeared under the name meanwhile, by a program that knows nothing of
   *   claims, is the picture
   */
  async #store(
    path: string,
    image: RgbImage,
    text: readonly PngText[],
    isThere: () => Promise<boolean> = async () => false,
  ): Promise<string> {
    const { quality, overwrite } = this.#options;
    const bytes = await encodeImage(image, text, { format: this.format, quality });
    try {
      await writeFileAside(path, bytes, { overwrite: overwrite || this.#incomplete.has(path) });
      return path;
    } catch (error) {
      if (!existsSync(path)) throw error;
      if (await isThere()) return path;
      if (!this.#numbered || this.#names === null) throw error;
      const stem = relative(this.#folder, path).slice(0, -extname(path).length);
      return this.#store(this.#names.take(stem, extension(this.format)), image, text);
    }
  }
}

async function readStored(path: string): Promise<ImageSettings> {
  return readSettings((await readImageFile(path)).text, path);
}

function nameValues(
  { prompt, seed, index, options: { variationSeed } }: PlannedPicture,
  count: number,
  settings: ImageSettings | undefined,
  began: Date,
): NameValues {
  return {
    prompt,
    seed,
    variationSeed: variationSeed as number | undefined,
    index,
    count,
    began,
    steps: settings?.steps ?? Number.NaN,
    guidance: settings?.guidanceScale ?? Number.NaN,
    sampler: settings?.sampler ?? "",
    shift: settings?.shift ?? Number.NaN,
    model: settings?.model ?? "",
    variant: settings?.variant ?? "",
    reward: settings?.rewardTargets ?? {},
    negativeReward: settings?.negativeRewardTargets ?? {},
  };
}
