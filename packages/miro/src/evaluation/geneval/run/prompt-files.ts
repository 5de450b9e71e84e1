/** What is known of the pictures of a prompt, in a file for each prompt: detections and colours. */
import { join } from "node:path";
import { deflateRawSync, inflateRawSync } from "node:zlib";
import { z } from "zod";
import { InvalidInputError, MiroError } from "../../../errors.js";
import { readJson } from "../../../files/json-file.js";
import { writeFileAtomic } from "../../../files/whole-files.js";
import { sha256Schema } from "../../../pipeline/loading/identity.js";
import type { Detection, Mask } from "../detection.js";
import { COLOURS } from "../metadata.js";
import { folderName } from "./image-folder.js";

const box = z.tuple([z.number(), z.number(), z.number(), z.number()]);

const detectionsSchema = z.strictObject({
  /** What decides the detections beside the picture. */
  key: z.string(),
  /** Who found them: the model, and who trained it. Absent where no picture could be seen. */
  detector: z.string().optional(),
  /** Classes whose objects have their masks; absent in files of earlier versions. */
  masked: z.array(z.string()).optional(),
  pictures: z.record(
    z.string(),
    z.strictObject({
      sha256: sha256Schema,
      width: z.int().min(0).optional(),
      height: z.int().min(0).optional(),
      /** Why there are none. */
      error: z.string().optional(),
      detections: z
        .array(
          z.strictObject({
            class: z.string(),
            score: z.number(),
            box,
            /** Bits of the mask, packed by deflate, in base 64: of objects that the prompt names. */
            mask: z.string().optional(),
          }),
        )
        .default([]),
    }),
  ),
});

/** `detections/00012.json` */
type DetectionsFile = z.output<typeof detectionsSchema>;
/** What was found in one picture. */
export type PictureDetections = DetectionsFile["pictures"][string];
/** One object in a file. */
export type StoredDetection = PictureDetections["detections"][number];

/** `colours/00012.json` */
const coloursSchema = z.strictObject({
  key: z.string(),
  /** By picture, then by class: colours of the best objects, best first. */
  pictures: z.record(z.string(), z.record(z.string(), z.array(z.enum(COLOURS)))),
});

const SCHEMAS = { detections: detectionsSchema, colours: coloursSchema };
type Kind = keyof typeof SCHEMAS;
type FileOf<K extends Kind> = z.output<(typeof SCHEMAS)[K]>;

/** The file of a prompt. */
export function promptFilePath(folder: string, kind: Kind, prompt: number): string {
  return join(folder, kind, `${folderName(prompt)}.json`);
}

/** What a file holds, or null when it is not there or is no such file: it can be made again. */
export function readPromptFile<K extends Kind>(folder: string, kind: K, prompt: number): FileOf<K> | null {
  try {
    const result = SCHEMAS[kind].safeParse(readJson(promptFilePath(folder, kind, prompt), MAX_BYTES));
    return result.success ? (result.data as FileOf<K>) : null;
  } catch (error) {
    if (error instanceof MiroError || error instanceof InvalidInputError) return null;
    throw error;
  }
}

/** Some hundred detections with masks for each picture are far below this. */
const MAX_BYTES = 256 * 2 ** 20;

/** Writes the file of a prompt. */
export function writePromptFile<K extends Kind>(folder: string, kind: K, prompt: number, content: FileOf<K>): void {
  writeFileAtomic(promptFilePath(folder, kind, prompt), `${JSON.stringify(content)}\n`, { overwrite: true });
}

/** A detection as it is stored. @param withMask whether the mask is kept */
export function stored({ score, box, mask }: Detection, className: string, withMask: boolean): StoredDetection {
  return {
    class: className,
    score,
    box: [...box],
    ...(withMask && mask && { mask: deflateRawSync(mask.bits).toString("base64") }),
  };
}

/** The mask of a stored detection. @throws MiroError when it does not fit the picture */
export function maskOf(
  { mask }: StoredDetection,
  { width = 0, height = 0 }: PictureDetections,
  path: string,
): Mask | undefined {
  if (mask === undefined) return undefined;
  const length = Math.ceil((width * height) / 8);
  try {
    const bits = inflateRawSync(Buffer.from(mask, "base64"), { maxOutputLength: length + 1 });
    if (bits.length !== length) throw new Error(`${bits.length} bytes instead of ${length}`);
    return { width, height, bits: new Uint8Array(bits) };
  } catch (error) {
    throw new MiroError(`${path}: a mask is damaged (${(error as Error).message}); remove the file to detect again`, {
      cause: error,
    });
  }
}
