/** Which colour lies behind the object of a picture. */
import type { RgbImage } from "../../pictures/rgb.js";
import { COLOUR_NAMES, type ColourName, NAMED_COLOURS, type Rgb, WHITE } from "../scenes/captions.js";

/**
 * Median colour of the four corners, each a square of 1/16 of the side: where no object of a single-object scene
 * reaches.
 */
export function backgroundColour({ width, height, data }: RgbImage): Rgb {
  const side = Math.max(1, Math.floor(width / 16));
  const values: number[][] = [[], [], []];
  for (const top of [0, height - side]) {
    for (const left of [0, width - side]) {
      for (let y = top; y < top + side; y++) {
        for (let x = left; x < left + side; x++) {
          for (let c = 0; c < 3; c++) values[c]!.push(data[3 * (y * width + x) + c]!);
        }
      }
    }
  }
  const median = (list: number[]) => list.sort((a, b) => a - b)[list.length >> 1]!;
  return [median(values[0]!), median(values[1]!), median(values[2]!)];
}

/** The name of the nearest of the named colours and white, by Euclidean distance in sRGB. */
export function nearestColour(colour: Rgb): ColourName | "white" {
  let best: ColourName | "white" = "white";
  let least = distance(colour, WHITE);
  for (const name of COLOUR_NAMES) {
    const d = distance(colour, NAMED_COLOURS[name]);
    if (d < least) [best, least] = [name, d];
  }
  return best;
}

/** Euclidean distance in 8-bit sRGB. */
export function distance(a: Rgb, b: Rgb): number {
  return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}
