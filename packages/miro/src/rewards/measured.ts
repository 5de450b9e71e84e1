/**
 * Rewards that are measured, not learned: how sharp a picture is and how colourful.
 *
 * The raw measures have no upper end. As scores they are mapped into [0, 1) by 1 − 2^(−m / m½), which keeps their
 * order: 0 for a flat (grey) picture, ½ at m½, towards 1 beyond. The bundled model's rewards of the same names have the
 * same ends, 0 for the strongest damage and 1 for none; clean emoji scenes score about 0.8.
 *
 * | score          | m                                                                                 | m½ |
 * |----------------|-----------------------------------------------------------------------------------|----|
 * | `sharpness`    | root of the Laplacian energy, times the shorter side over 256                     | 3  |
 * | `colorfulness` | Hasler and Süsstrunk's colourfulness, where 45 is "averagely colourful" for them  | 45 |
 *
 * The side is a factor because steps from pixel to pixel grow as a picture shrinks; it evens sizes out roughly, not
 * exactly.
 */
import { checkImage } from "../arguments.js";
import type { RgbImage } from "../pictures/rgb.js";
import type { ScorerSpec } from "./scorer.js";

const SHARPNESS_HALF = 3;
const COLORFULNESS_HALF = 45;
/** Side at which the sharpness measure is not rescaled. */
const REFERENCE_SIDE = 256;

/**
 * Mean square of the four-neighbour Laplacian of the luma (BT.601, 0 to 255) over all inner pixels; 0 where there are
 * none. Blur lowers it.
 */
export function laplacianEnergy(image: RgbImage): number {
  checkImage("image", image);
  const { width, height, data } = image;
  if (width < 3 || height < 3) return 0;
  // Three rows at a time: all of a photograph would take eight times its bytes.
  let [above, row, below] = [0, 1, 2].map(() => new Float64Array(width)) as [Float64Array, Float64Array, Float64Array];
  const read = (luma: Float64Array, y: number) => {
    for (let x = 0, at = 3 * y * width; x < width; x++, at += 3)
      luma[x] = 0.299 * data[at]! + 0.587 * data[at + 1]! + 0.114 * data[at + 2]!;
  };
  read(above, 0);
  read(row, 1);
  let sum = 0;
  for (let y = 1; y < height - 1; y++) {
    read(below, y + 1);
    for (let x = 1; x < width - 1; x++) sum += (4 * row[x]! - row[x - 1]! - row[x + 1]! - above[x]! - below[x]!) ** 2;
    [above, row, below] = [row, below, above];
  }
  return sum / ((width - 2) * (height - 2));
}

/** Hasler and Süsstrunk, "Measuring colourfulness in natural images" (2003): √(σ²rg + σ²yb) + 0.3 √(μ²rg + μ²yb). */
export function haslerColorfulness(image: RgbImage): number {
  checkImage("image", image);
  const { width, height, data } = image;
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

/** The score `sharpness`, in [0, 1). */
export function sharpnessScore(image: RgbImage): number {
  checkImage("image", image);
  const side = Math.min(image.width, image.height);
  return saturating((Math.sqrt(laplacianEnergy(image)) * side) / REFERENCE_SIDE, SHARPNESS_HALF);
}

/** The score `colorfulness`, in [0, 1). */
export function colorfulnessScore(image: RgbImage): number {
  checkImage("image", image);
  return saturating(haslerColorfulness(image), COLORFULNESS_HALF);
}

/** In [0, 1), and ½ at `half`. */
function saturating(measure: number, half: number): number {
  return 1 - 2 ** (-measure / half);
}

export const sharpnessSpec = measured(
  "sharpness",
  "Laplacian energy",
  "how sharp, 0 flat to 1 (Laplacian energy)",
  sharpnessScore,
);

export const colorfulnessSpec = measured(
  "colorfulness",
  "Hasler and Süsstrunk 2003",
  "how colourful, 0 grey to 1 (Hasler and Süsstrunk)",
  colorfulnessScore,
);

function measured(key: string, name: string, description: string, measure: (image: RgbImage) => number): ScorerSpec {
  return {
    key,
    name,
    description,
    stage: "rewards",
    usesText: false,
    // One by one: a large picture takes about a second.
    load: async () => ({ name, batchSize: 1, score: (images) => images.map(measure), dispose: () => {} }),
  };
}
