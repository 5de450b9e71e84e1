/**
 * Which pixels belong to which object of a picture with a plain background or a vertical gradient, without knowing how
 * many there are.
 *
 * What is a part and what is an object is a question of scale: sparkles are three pieces of one thing, and two things
 * may touch. So there is not one answer but a family: the components of {signed distance to the foreground < t}, from a
 * t below zero, which parts what touches, to one that joins what lies within a few percent of the side. Whoever knows
 * what the objects should be picks the division that fits best (`detector.ts`).
 */
import type { RgbImage } from "../../pictures/rgb.js";

/** Bounds of an object in pixels, the right and lower ones exclusive. */
export interface Region {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

/** One way to divide a picture among objects. */
export interface Division {
  /** For each pixel, the region that it is nearest to. */
  owner: Uint8Array;
  regions: Region[];
}

/** A picture with what is known of its background. */
export interface Segmented {
  image: RgbImage;
  /** Background colour of each row, RGB. */
  background: Float32Array;
  /** Euclidean distance of each pixel from its background in 8-bit sRGB. */
  contrast: Float32Array;
  /** 1 where something stands before the background. */
  mask: Uint8Array;
}

/**
 * Share of the side, at the left and the right edge, where the background of a row is looked up: no layout reaches
 * there.
 */
const EDGE = 0.03;
/**
 * A row's background is the median of rows within this share of the side, so that an object that touches the edge does
 * not count.
 */
const ROWS = 0.1;
/** Contrast from which a pixel is foreground. */
const FAINT = 16;
/** Contrast that a narrow gap does not reach that an autoencoder has blurred. */
const STRONG = 64;
/** Levels of the signed distance, shares of the side. */
const LEVELS = [-0.03, -0.02, -0.012, -0.006, 0, 0.006, 0.012, 0.018, 0.024, 0.03, 0.04, 0.05];
/** A piece whose longer edge is less than this share of the largest one's is a part of the object nearest to it. */
const PART = 0.45;
/** Divisions into more pieces than this are texture. */
const MOST = 8;
/** The shares of the side between which a picture is cut in two. */
const CUT = [0.35, 0.65] as const;

/** Separates what stands in a picture from its background. */
export function segment(image: RgbImage): Segmented {
  const { width, height, data } = image;
  const background = rowColours(image);
  const contrast = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      let squares = 0;
      for (let c = 0; c < 3; c++) squares += (data[3 * at + c]! - background[3 * y + c]!) ** 2;
      contrast[at] = Math.sqrt(squares);
    }
  }
  return { image, background, contrast, mask: above(contrast, FAINT) };
}

function above(contrast: Float32Array, threshold: number): Uint8Array {
  const mask = new Uint8Array(contrast.length);
  for (let at = 0; at < mask.length; at++) mask[at] = contrast[at]! > threshold ? 1 : 0;
  return mask;
}

/** Background of each row: medians over the edges' pixels, then over the rows around it. */
function rowColours({ width, height, data }: RgbImage): Float32Array {
  const edge = Math.max(1, Math.round(EDGE * width));
  const reach = Math.max(1, Math.round(ROWS * height));
  const rows = new Float32Array(3 * height);
  for (let y = 0; y < height; y++) {
    for (let c = 0; c < 3; c++) {
      const values: number[] = [];
      for (let x = 0; x < edge; x++) {
        values.push(data[3 * (y * width + x) + c]!, data[3 * (y * width + width - 1 - x) + c]!);
      }
      rows[3 * y + c] = median(values);
    }
  }
  const smooth = new Float32Array(3 * height);
  for (let y = 0; y < height; y++) {
    // As many rows above as below, so that the median of a gradient is its middle.
    const by = Math.min(reach, y, height - 1 - y);
    for (let c = 0; c < 3; c++) {
      smooth[3 * y + c] = median(Array.from({ length: 2 * by + 1 }, (_, i) => rows[3 * (y - by + i) + c]!));
    }
  }
  return smooth;
}

function median(values: number[]): number {
  values.sort((a, b) => a - b);
  const middle = values.length >> 1;
  return values.length % 2 === 1 ? values[middle]! : (values[middle - 1]! + values[middle]!) / 2;
}

/** The different divisions of the family; none for an empty picture. */
export function divisions({ image, contrast, mask }: Segmented): Division[] {
  const { width, height } = image;
  const inside = new Uint8Array(width * height);
  const found: Division[] = [];
  const seen = new Set<string>();
  for (const foreground of [mask, above(contrast, STRONG)]) {
    const signed = signedDistance(foreground, width, height);
    for (const level of LEVELS) {
      for (let at = 0; at < signed.length; at++) inside[at] = signed[at]! <= level * width ? 1 : 0;
      const { owner, pieces } = components(inside, width, height);
      const largest = Math.max(...pieces.map(longerEdge));
      const kept = pieces.flatMap((piece, i) => (longerEdge(piece) >= PART * largest ? [i] : []));
      if (kept.length === 0 || kept.length > MOST) continue;
      const key = kept.map((i) => centre(pieces[i]!).map((value) => Math.round((value / width) * 16))).join(" ");
      if (seen.has(key)) continue;
      seen.add(key);
      found.push(divide(mask, spread(owner, kept, width, height), kept.length, width));
    }
  }
  return found.filter(({ regions }) => regions.every((region) => region.right > region.left));
}

/**
 * The picture cut in two, across (`x`) or down (`y`), where the least foreground is in the way; null when a half is
 * empty.
 */
export function halves({ image, mask }: Segmented, axis: "x" | "y"): Division | null {
  const { width, height } = image;
  const length = axis === "x" ? width : height;
  const weight = new Float64Array(length);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) weight[axis === "x" ? x : y]! += mask[y * width + x]!;
  let at = length >> 1;
  for (let i = Math.ceil(CUT[0] * length); i < CUT[1] * length; i++) {
    const off = Math.abs(i - length / 2);
    if (weight[i]! < weight[at]! || (weight[i] === weight[at] && off < Math.abs(at - length / 2))) at = i;
  }
  const owner = new Uint8Array(width * height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) owner[y * width + x] = (axis === "x" ? x : y) < at ? 0 : 1;
  const division = divide(mask, owner, 2, width);
  return division.regions.every((region) => region.right > region.left) ? division : null;
}

/** Middle of a region, in pixels. */
export function centre({ left, top, right, bottom }: Region): [x: number, y: number] {
  return [(left + right) / 2, (top + bottom) / 2];
}

/** Longer edge of a region, in pixels. */
export function longerEdge({ left, top, right, bottom }: Region): number {
  return Math.max(right - left, bottom - top);
}

/**
 * The square around one region, with nothing but background where other objects or the edge of the picture are.
 *
 * @param fill share of the square's side that the region's longer edge takes
 */
export function cropOf(
  { image, background }: Segmented,
  { owner, regions }: Division,
  at: number,
  fill: number,
): RgbImage {
  const { width, height, data } = image;
  const region = regions[at]!;
  const side = Math.max(8, Math.round(longerEdge(region) / fill));
  const [x0, y0] = centre(region).map((value) => Math.round(value - side / 2)) as [number, number];
  const out = new Uint8Array(3 * side * side);
  for (let y = 0; y < side; y++) {
    const row = Math.min(Math.max(y + y0, 0), height - 1);
    for (let x = 0; x < side; x++) {
      const column = x + x0;
      const pixel = row * width + column;
      const within = y + y0 === row && column >= 0 && column < width && owner[pixel] === at;
      for (let c = 0; c < 3; c++) {
        out[3 * (y * side + x) + c] = within ? data[3 * pixel + c]! : Math.round(background[3 * row + c]!);
      }
    }
  }
  return { width: side, height: side, data: out };
}

/** Bounds of the foreground of each owner. */
function divide(mask: Uint8Array, owner: Uint8Array, count: number, width: number): Division {
  const regions = Array.from({ length: count }, (): Region => ({ left: width, top: width, right: 0, bottom: 0 }));
  for (let at = 0; at < mask.length; at++)
    if (mask[at]) extend(regions[owner[at]!]!, at % width, Math.floor(at / width));
  return { owner, regions };
}

function extend(region: Region, x: number, y: number): void {
  region.left = Math.min(region.left, x);
  region.top = Math.min(region.top, y);
  region.right = Math.max(region.right, x + 1);
  region.bottom = Math.max(region.bottom, y + 1);
}

/** Components of what is inside, joined at edges and corners: their number at each pixel (-1 outside) and bounds. */
function components(inside: Uint8Array, width: number, height: number): { owner: Int32Array; pieces: Region[] } {
  const owner = new Int32Array(inside.length).fill(-1);
  const pieces: Region[] = [];
  const stack: number[] = [];
  for (let start = 0; start < inside.length; start++) {
    if (!inside[start] || owner[start] !== -1) continue;
    const piece: Region = { left: width, top: height, right: 0, bottom: 0 };
    owner[start] = pieces.length;
    stack.push(start);
    for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
      const [x, y] = [at % width, Math.floor(at / width)];
      extend(piece, x, y);
      for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v++) {
        for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u++) {
          const next = v * width + u;
          if (!inside[next] || owner[next] !== -1) continue;
          owner[next] = pieces.length;
          stack.push(next);
        }
      }
    }
    pieces.push(piece);
  }
  return { owner, pieces };
}

/** Gives every pixel to the nearest of the pieces that are kept, by breadth-first growth; pieces are renumbered. */
function spread(pieceOf: Int32Array, kept: readonly number[], width: number, height: number): Uint8Array {
  const UNKNOWN = 255;
  const numbers = new Map(kept.map((piece, i) => [piece, i]));
  const owner = new Uint8Array(pieceOf.length).fill(UNKNOWN);
  const queue = new Int32Array(owner.length);
  let end = 0;
  for (let at = 0; at < owner.length; at++) {
    const number = pieceOf[at] === -1 ? undefined : numbers.get(pieceOf[at]!);
    if (number === undefined) continue;
    owner[at] = number;
    queue[end++] = at;
  }
  const give = (to: number, value: number) => {
    if (owner[to] !== UNKNOWN) return;
    owner[to] = value;
    queue[end++] = to;
  };
  for (let begin = 0; begin < end; begin++) {
    const at = queue[begin]!;
    const [x, value] = [at % width, owner[at]!];
    if (x > 0) give(at - 1, value);
    if (x < width - 1) give(at + 1, value);
    if (at >= width) give(at - width, value);
    if (at < width * (height - 1)) give(at + width, value);
  }
  return owner;
}

/**
 * Distance to the foreground outside of it, minus the distance to the background inside, in pixels (chamfer 3-4,
 * Borgefors 1986).
 */
function signedDistance(mask: Uint8Array, width: number, height: number): Float32Array {
  const outside = chamfer(mask, 1, width, height);
  const inside = chamfer(mask, 0, width, height);
  return outside.map((distance, i) => (mask[i] ? 1 - inside[i]! : distance));
}

function chamfer(mask: Uint8Array, target: 0 | 1, width: number, height: number): Float32Array {
  const far = 3 * (width + height);
  // A border of one pixel spares the checks.
  const stride = width + 2;
  const d = new Float32Array(stride * (height + 2)).fill(far);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) if (mask[y * width + x] === target) d[(y + 1) * stride + x + 1] = 0;
  const relax = (at: number, step: number) => {
    d[at] = Math.min(
      d[at]!,
      d[at - step]! + 3,
      d[at - step * stride]! + 3,
      d[at - step * (stride + 1)]! + 4,
      d[at - step * (stride - 1)]! + 4,
    );
  };
  for (let y = 1; y <= height; y++) for (let x = 1; x <= width; x++) relax(y * stride + x, 1);
  for (let y = height; y >= 1; y--) for (let x = width; x >= 1; x--) relax(y * stride + x, -1);
  const distances = new Float32Array(width * height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) distances[y * width + x] = d[(y + 1) * stride + x + 1]! / 3;
  return distances;
}
