/** A sheet of pictures that do not show what was asked for, with boxes and masks of what was found. */
import { join } from "node:path";
import { readBytes } from "../../../files/whole-files.js";
import { groupBy } from "../../../group-by.js";
import { decodeImage } from "../../../pictures/decode.js";
import { fit, inRows, labelledSheet, type SheetCell } from "../../../pictures/labelled-sheet.js";
import type { RgbImage } from "../../../pictures/rgb.js";
import { shortened } from "../../../printable.js";
import { type Box, type Mask, maskHas } from "../detection.js";

/** A picture with what was found in it. */
export interface Failure {
  /** Relative to the folder of the pictures. */
  path: string;
  tag: string;
  prompt: string;
  reason: string;
  /** Objects that count, of the classes of the prompt first. */
  objects: readonly { className: string; score: number; box: Box; mask: Mask | undefined }[];
}

/** Colours of the classes in a picture. */
const INKS = [
  [230, 25, 75],
  [0, 130, 200],
  [60, 180, 75],
  [245, 130, 48],
  [145, 30, 180],
  [0, 170, 170],
] as const;
const TINT = 0.35;
const LEAST_COLUMNS = 6;
const SIDE = 220;
/** Longer prompts are cut: a paragraph under each picture would make a sheet that is too high for a picture. */
const MOST_LETTERS = 300;
/** Objects that are drawn and named. */
const MOST_OBJECTS = 8;

/**
 * Draws the first failures of each task.
 *
 * @param most pictures on the sheet
 * @returns null when nothing failed
 */
export async function failureSheet(
  folder: string,
  failures: readonly Failure[],
  most: number,
  title: string,
): Promise<RgbImage | null> {
  const chosen = chooseEvenly(failures, most);
  if (chosen.length === 0) return null;
  const cells: SheetCell[] = [];
  for (const failure of chosen) {
    const image = await decodeImage(readBytes(join(folder, failure.path)), { orient: true });
    const objects = failure.objects.slice(0, MOST_OBJECTS);
    const found = objects.map(({ className, score }) => `${className} ${score.toFixed(2)}`).join(", ");
    const [prompt, reason] = [failure.prompt, failure.reason].map((text) => shortened(text, MOST_LETTERS));
    cells.push({
      image: await fit(drawObjects(image, objects), SIDE), // now: all of them at full size may not fit in memory
      label: `${prompt}\n${reason}\nfound: ${found || "nothing"}`,
    });
  }
  const columns = Math.max(LEAST_COLUMNS, Math.ceil(Math.sqrt(cells.length)));
  return labelledSheet({ cells: inRows(cells, columns), title, cellSize: SIDE });
}

/** As many of each task as there is room for, in the order of the pictures. */
function chooseEvenly(failures: readonly Failure[], most: number): Failure[] {
  const byTag = groupBy(failures, ({ tag }) => tag);
  const chosen = new Set<Failure>();
  for (let turn = 0; chosen.size < Math.min(most, failures.length); turn++) {
    for (const list of byTag.values()) {
      const next = list[turn];
      if (next && chosen.size < most) chosen.add(next);
    }
  }
  return failures.filter((failure) => chosen.has(failure));
}

/** A picture with boxes, and masks in the colours of their boxes. */
function drawObjects(
  { width, height, data }: RgbImage,
  objects: readonly { className: string; box: Box; mask: Mask | undefined }[],
): RgbImage {
  const out = Uint8Array.from(data);
  const names = [...new Set(objects.map(({ className }) => className))];
  const paint = (x: number, y: number, ink: readonly number[], share: number) => {
    if (x < 0 || y < 0 || x >= width || y >= height) return;
    const at = 3 * (y * width + x);
    for (let c = 0; c < 3; c++) out[at + c] = Math.round((1 - share) * out[at + c]! + share * ink[c]!);
  };
  const line = Math.max(1, Math.round(Math.max(width, height) / 128));
  for (const { className, box, mask } of [...objects].reverse()) {
    const ink = INKS[names.indexOf(className) % INKS.length]!;
    const [x0, y0, x1, y1] = box.map(Math.round) as [number, number, number, number];
    for (let y = y0; y < y1; y++) {
      for (let x = x0; x < x1; x++) {
        const isEdge = x < x0 + line || x >= x1 - line || y < y0 + line || y >= y1 - line;
        if (isEdge) paint(x, y, ink, 1);
        else if (mask && x >= 0 && y >= 0 && x < width && y < height && maskHas(mask, x, y)) paint(x, y, ink, TINT);
      }
    }
  }
  return { width, height, data: out };
}
