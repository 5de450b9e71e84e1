/** Plain measures of finished pictures: how sharp, how colourful, and which colour lies behind. */
import { COLOUR_NAMES, type ColourName, NAMED_COLOURS, type Rgb, WHITE } from "../data/emoji/captions.js";
import type { RgbImage } from "../pipeline/images.js";

/**
 * Laplacian energy: the mean square of the four-neighbour Laplacian of the luma (BT.601, 0 to 255). Blur lowers it.
 */
export function sharpness({ width, height, data }: RgbImage): number {
  const luma = new Float64Array(width * height);
  for (let i = 0; i < luma.length; i++)
    luma[i] = 0.299 * data[3 * i]! + 0.587 * data[3 * i + 1]! + 0.114 * data[3 * i + 2]!;
  let sum = 0;
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++) {
      const i = y * width + x;
      sum += (4 * luma[i]! - luma[i - 1]! - luma[i + 1]! - luma[i - width]! - luma[i + width]!) ** 2;
    }
  }
  return sum / ((width - 2) * (height - 2));
}

/** Hasler and Süsstrunk, "Measuring colourfulness in natural images" (2003): √(σ²rg + σ²yb) + 0.3 √(μ²rg + μ²yb). */
export function colourfulness({ width, height, data }: RgbImage): number {
  const n = width * height;
  let [rg, yb, rgSquares, ybSquares] = [0, 0, 0, 0];
  for (let i = 0; i < n; i++) {
    const [red, green, blue] = [data[3 * i]!, data[3 * i + 1]!, data[3 * i + 2]!];
    const a = red - green;
    const b = (red + green) / 2 - blue;
    rg += a;
    yb += b;
    rgSquares += a * a;
    ybSquares += b * b;
  }
  const variance = (rgSquares + ybSquares) / n - (rg / n) ** 2 - (yb / n) ** 2;
  return Math.sqrt(Math.max(variance, 0)) + 0.3 * Math.hypot(rg / n, yb / n);
}

/** Median colour of the four corners, each a square of 1/16 of the side: where no object of a single-object scene reaches. */
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
