/** Looks for objects in the pictures of an evaluation, and keeps what was found, so that judging can be repeated. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { InvalidInputError, systemReason } from "../../../errors.js";
import { sha256 } from "../../../files/sha256.js";
import { message, option } from "../../../message.js";
import { decodeImage, ImageError } from "../../../pictures/decode.js";
import type { RgbImage } from "../../../pictures/rgb.js";
import type { SharedWork } from "../../shared-work.js";
import type { Rules } from "../rules.js";
import type { PromptFolder } from "./image-folder.js";
import { type PictureDetections, readPromptFile, stored, writePromptFile } from "./prompt-files.js";
import type { Resources } from "./resources.js";

/** What is looked at. */
export interface DetectRun {
  /** Folder of the pictures. */
  images: string;
  /** Folder of what is found. */
  output: string;
  prompts: readonly PromptFolder[];
  /** Which detector detections are of. */
  detectorKey: string;
  /** What will be judged by them: objects that count by none of these rules are left out. */
  rules: Rules;
  signal?: AbortSignal | undefined;
  onPicture?: ((done: number, total: number) => void) | undefined;
}

/** Detections below it are kept by no rule that is not lower itself. */
const USUAL_MIN_SCORE = 0.3;
/** In the key of detections, before the score that those have which were kept. */
const SCORES_ABOVE = ", scores above ";

/** The work for one folder. */
export class Detection {
  readonly #run: DetectRun;
  /** What decides the detections beside the pictures. */
  readonly #key: string;
  readonly #complete = new Set<number>();
  readonly #hashes = new Map<string, string>();

  constructor(run: DetectRun) {
    this.#run = run;
    this.#key = `${run.detectorKey}${SCORES_ABOVE}${minScoreOf(run.rules)}`;
  }

  /** Whether a prompt's pictures as they are now have been looked at. */
  isComplete(index: number): boolean {
    if (this.#complete.has(index)) return true;
    const { output, prompts } = this.#run;
    const folder = prompts.find((prompt) => prompt.index === index);
    if (folder === undefined) return false;
    const file = readPromptFile(output, "detections", index);
    if (file?.key !== this.#key) return false;
    if (file.masked && !namedIn(folder).every((name) => file.masked!.includes(name))) return false;
    if (Object.keys(file.pictures).length !== folder.samples.length) return false;
    if (folder.samples.some(({ path }) => file.pictures[nameOf(path)]?.sha256 !== this.#hash(path))) return false;
    this.#complete.add(index);
    return true;
  }

  /** Prompts that have still to be looked at. */
  missing(): number[] {
    return this.#run.prompts.filter(({ index }) => !this.isComplete(index)).map(({ index }) => index);
  }

  /** Looks at what nobody else looks at, until nothing is left to take. @returns the number of pictures */
  async detectMissing(resources: Resources, work: SharedWork): Promise<number> {
    const { prompts, signal, onPicture } = this.#run;
    const total = prompts.reduce((sum, { samples }) => sum + samples.length, 0);
    let open = this.missing();
    let done = total - sizeOf(prompts, open);
    let looked = 0;
    for (;;) {
      signal?.throwIfAborted();
      const [index] = await work.take("detect", open, (index) => this.isComplete(index), 1);
      if (index === undefined) return looked;
      open = open.filter((other) => other !== index);
      const folder = prompts.find((prompt) => prompt.index === index)!;
      await this.#detect(folder, resources);
      looked += folder.samples.length;
      done += folder.samples.length;
      onPicture?.(Math.min(done, total), total);
    }
  }

  async #detect(folder: PromptFolder, resources: Resources): Promise<void> {
    const { index, samples } = folder;
    const { images, output, rules, signal } = this.#run;
    const minScore = minScoreOf(rules);
    const pictures: Record<string, PictureDetections> = {};
    const masked = namedIn(folder);
    let name: string | undefined;
    // One after another: photographs of a prompt would fill the memory together.
    for (const { path } of samples) {
      const read = await readPicture(join(images, path));
      const { sha256 } = read;
      this.#hashes.set(path, sha256);
      if ("error" in read) {
        pictures[nameOf(path)] = { sha256, error: read.error, detections: [] };
        continue;
      }
      const detector = await resources.get("detector");
      name = `${detector.name}; ${detector.trainingRun}`;
      const [found] = await detector.detect([read.image], { minScore, signal });
      const { width, height } = read.image;
      const detections = found!.map((one) => {
        const className = detector.classes[one.classIndex]!;
        return stored(one, className, masked.includes(className));
      });
      pictures[nameOf(path)] = { sha256, width, height, detections };
    }
    const content = { key: this.#key, ...(name && { detector: name }), masked, pictures };
    writePromptFile(output, "detections", index, content);
    this.#complete.add(index);
  }

  #hash(path: string): string {
    const known = this.#hashes.get(path);
    if (known !== undefined) return known;
    const hash = pictureHash(join(this.#run.images, path));
    this.#hashes.set(path, hash);
    return hash;
  }
}

/** @throws InvalidInputError where objects were left out that would count now, which `only` leaves so */
export function checkKept(key: string, rules: Rules, path: string): void {
  const kept = Number(key.slice(key.lastIndexOf(SCORES_ABOVE) + SCORES_ABOVE.length));
  if (kept <= minScoreOf(rules)) return;
  const found = message`${path}: holds objects with scores above ${kept} alone, and lower thresholds ask for more`;
  const remedy = message`run without ${option("only", "judge")}, which looks at the pictures again`;
  throw new InvalidInputError(message`${found}; ${remedy}`);
}

/** What detections have to be kept for some rules. */
function minScoreOf({ threshold, counting_threshold }: Rules): number {
  return Math.min(USUAL_MIN_SCORE, threshold, counting_threshold);
}

/** Classes that a prompt names. */
function namedIn({ metadata: { include, exclude = [] } }: PromptFolder): string[] {
  return [...new Set([...include, ...exclude].map((one) => one.class))];
}

/** A picture as the evaluator sees it: turned as EXIF says, without alpha; or why it cannot be seen. */
async function readPicture(
  path: string,
): Promise<{ sha256: string; image: RgbImage } | { sha256: string; error: string }> {
  const file = readFile(path);
  if ("error" in file) return file;
  try {
    return { sha256: file.sha256, image: await decodeImage(file.bytes, { orient: true }) };
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    return { sha256: file.sha256, error: error.message };
  }
}

/** What detections record of a picture's file. */
export function pictureHash(path: string): string {
  return readFile(path).sha256;
}

/** Content and hash of a file; of one that cannot be read, why, and the hash of that: it stands for the content. */
function readFile(path: string): { sha256: string; bytes: Buffer } | { sha256: string; error: string } {
  try {
    const bytes = readFileSync(path);
    return { sha256: sha256(bytes), bytes };
  } catch (error) {
    const reason = `cannot be read: ${systemReason(error)}`;
    return { sha256: sha256(reason), error: reason };
  }
}

function sizeOf(prompts: readonly PromptFolder[], indices: readonly number[]): number {
  const wanted = new Set(indices);
  return prompts.reduce((sum, { index, samples }) => sum + (wanted.has(index) ? samples.length : 0), 0);
}

/** `0003.png` */
export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
