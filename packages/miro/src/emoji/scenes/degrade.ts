/**
 * Known damage to a finished picture, from which honest quality rewards follow: a blurred or block-coded picture is
 * less sharp, a washed-out one less colourful, by exactly the amount that was applied (`spec`: reward = 1 − amount).
 *
 * Pictures are planar float32 RGB, three planes of `size × size` values in [0, 255], changed in place.
 */

/** Standard deviation of the strongest blur, as a share of the picture's side. */
const STRONGEST_BLUR = 0.03;

/** Box filters in a row that stand for a Gaussian. */
const BOXES = 3;

/**
 * Gaussian blur with σ = amount · 3 % of the side, amount in [0, 1]; the border repeats the edge pixels.
 *
 * Three extended box filters (Gwosdek et al., "Theoretical Foundations of Gaussian Convolution by Extended Box
 * Filtering", 2011): the two outermost taps have a weight between 0 and 1, so that the variance is exactly σ². Running
 * sums make the cost independent of σ.
 */
export function blur(picture: Float32Array, size: number, amount: number): void {
  const sigma = amount * STRONGEST_BLUR * size;
  if (sigma < 0.05) return;
  const variance = (sigma * sigma) / BOXES;
  const radius = Math.floor((Math.sqrt(1 + 12 * variance) - 1) / 2);
  const edge = ((2 * radius + 1) * (radius * (radius + 1) - 3 * variance)) / (6 * variance - 6 * (radius + 1) ** 2);
  const scale = 1 / (2 * radius + 1 + 2 * edge);
  const border = BOXES * (radius + 1);
  let line = new Float64Array(size + 2 * border);
  let next = new Float64Array(size + 2 * border);

  const filter = (start: number, step: number) => {
    for (let i = 0, at = start; i < size; i++, at += step) line[i + border] = picture[at]!;
    line.fill(line[border]!, 0, border);
    line.fill(line[border + size - 1]!, border + size);
    for (let box = 1; box <= BOXES; box++) {
      const first = box * (radius + 1);
      const last = line.length - first;
      let sum = 0;
      for (let i = first - radius; i <= first + radius; i++) sum += line[i]!;
      for (let i = first; i < last; i++) {
        next[i] = scale * (sum + edge * (line[i - radius - 1]! + line[i + radius + 1]!));
        sum += line[i + radius + 1]! - line[i - radius]!;
      }
      [line, next] = [next, line];
    }
    for (let i = 0, at = start; i < size; i++, at += step) picture[at] = line[i + border]!;
  };
  for (let plane = 0; plane < 3; plane++) {
    const base = plane * size * size;
    for (let y = 0; y < size; y++) filter(base + y * size, 1);
    for (let x = 0; x < size; x++) filter(base + x, size);
  }
}

/** Moves every pixel towards its luma (BT.601) by `amount`: 0 leaves it, 1 makes the picture grey. */
export function desaturate(picture: Float32Array, size: number, amount: number): void {
  const plane = size * size;
  for (let i = 0; i < plane; i++) {
    const red = picture[i]!;
    const green = picture[plane + i]!;
    const blue = picture[2 * plane + i]!;
    const luma = 0.299 * red + 0.587 * green + 0.114 * blue;
    picture[i] = red + amount * (luma - red);
    picture[plane + i] = green + amount * (luma - green);
    picture[2 * plane + i] = blue + amount * (luma - blue);
  }
}

/** Luminance table of ITU-T T.81 Annex K.1, row by row. */
const QUANTISATION = [
  16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
  87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
  72, 92, 95, 98, 112, 100, 103, 99,
];

/** DCT-II of length 8, orthonormal: `COSINES[frequency · 8 + position]`. */
const COSINES = Float32Array.from(
  { length: 64 },
  (_, i) => Math.sqrt((i < 8 ? 1 : 2) / 8) * Math.cos(((2 * (i % 8) + 1) * (i >> 3) * Math.PI) / 16),
);

const COSINES_TRANSPOSED = COSINES.map((_, i) => COSINES[(i % 8) * 8 + (i >> 3)]!);

/**
 * What JPEG coding loses: 8 × 8 DCT blocks of each colour plane, quantised with the standard table scaled from nothing
 * (amount 0) to three times its values (amount 1, about quality 17). Entropy coding is lossless and left out; `size`
 * must be a multiple of 8.
 */
export function blockCode(picture: Float32Array, size: number, amount: number): void {
  if (amount <= 0) return;
  const steps = QUANTISATION.map((step) => Math.max(step * amount * 3, 1e-3));
  const block = new Float32Array(64);
  const half = new Float32Array(64);
  for (let plane = 0; plane < 3; plane++) {
    for (let top = 0; top < size; top += 8) {
      for (let left = 0; left < size; left += 8) {
        const origin = plane * size * size + top * size + left;
        for (let y = 0; y < 8; y++) for (let x = 0; x < 8; x++) block[y * 8 + x] = picture[origin + y * size + x]!;
        transform(block, half, false);
        for (let i = 0; i < 64; i++) block[i] = Math.round(block[i]! / steps[i]!) * steps[i]!;
        transform(block, half, true);
        for (let y = 0; y < 8; y++) for (let x = 0; x < 8; x++) picture[origin + y * size + x] = block[y * 8 + x]!;
      }
    }
  }
}

/** Two-dimensional DCT of an 8 × 8 block in place, or its inverse; `half` is scratch. */
function transform(block: Float32Array, half: Float32Array, inverse: boolean): void {
  const basis = inverse ? COSINES_TRANSPOSED : COSINES;
  for (let pass = 0; pass < 2; pass++) {
    const [from, to] = pass === 0 ? [block, half] : [half, block];
    // Each pass transforms the rows and transposes; after two passes the block is upright again.
    for (let row = 0; row < 8; row++) {
      for (let k = 0; k < 8; k++) {
        let sum = 0;
        for (let i = 0; i < 8; i++) sum += from[row * 8 + i]! * basis[k * 8 + i]!;
        to[k * 8 + row] = sum;
      }
    }
  }
}
