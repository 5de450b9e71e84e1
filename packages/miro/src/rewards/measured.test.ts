import { describe, expect, it } from "vitest";
import { blur, desaturate } from "../emoji/scenes/degrade.js";
import { toRgb8 } from "../emoji/scenes/render.js";
import { EmojiScenes } from "../emoji/scenes/scenes.js";
import type { RgbImage } from "../pictures/rgb.js";
import { colorfulnessScore, haslerColorfulness, laplacianEnergy, sharpnessScore } from "./measured.js";

/** A picture from a colour for each place. */
function draw(width: number, height: number, colour: (x: number, y: number) => [number, number, number]): RgbImage {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) data.set(colour(x, y), (y * width + x) * 3);
  return { width, height, data };
}
const grey = (value: number): [number, number, number] => [value, value, value];

describe("laplacianEnergy", () => {
  it("is (8a)² on a checkerboard of ±a, and a² times the step on a single edge", () => {
    const a = 30;
    expect(laplacianEnergy(draw(9, 7, (x, y) => grey(100 + ((x + y) % 2 === 0 ? a : -a))))).toBeCloseTo(
      (8 * a) ** 2,
      6,
    );
    // One vertical step of 50 between columns 4 and 5 of 10: two of the eight inner columns see ±50.
    expect(laplacianEnergy(draw(10, 6, (x) => grey(x < 5 ? 0 : 50)))).toBeCloseTo((2 / 8) * 50 ** 2, 6);
  });

  it("is zero for flat pictures, linear ramps and pictures without inner pixels", () => {
    expect(laplacianEnergy(draw(8, 8, () => grey(90)))).toBe(0);
    expect(laplacianEnergy(draw(8, 8, (x, y) => grey(3 * x + 5 * y)))).toBeCloseTo(0, 12);
    expect(laplacianEnergy(draw(2, 9, (x) => grey(200 * x)))).toBe(0);
  });
});

describe("colourfulness", () => {
  it("is 0.3 of the mean opponent vector's length for one colour, and σ for two opposite ones", () => {
    // rg = 200 − 50, yb = (200 + 50) / 2 − 25
    expect(haslerColorfulness(draw(4, 4, () => [200, 50, 25]))).toBeCloseTo(0.3 * Math.hypot(150, 100), 9);
    // rg = ±100, yb = 0: means cancel, σ = 100
    expect(haslerColorfulness(draw(4, 4, (x) => (x % 2 ? [150, 50, 100] : [50, 150, 100])))).toBeCloseTo(100, 9);
    expect(haslerColorfulness(draw(4, 4, (x, y) => grey(16 * x + y)))).toBe(0);
  });
});

describe("scores", async () => {
  const size = 64;
  const scenes = await EmojiScenes.load({ size, kinds: { one: 1 }, tint: 0, degraded: 0, backgrounds: { named: 1 } });
  const { pixels } = scenes.batch(0, 12);
  /** A picture after damage that works on values in [0, 255]. */
  const damaged = (i: number, damage: (picture: Float32Array) => void): RgbImage => {
    const levels = pixels.slice(i * 3 * size * size, (i + 1) * 3 * size * size).map((value) => (value + 1) * 127.5);
    damage(levels);
    return {
      width: size,
      height: size,
      data: toRgb8(
        levels.map((value) => value / 127.5 - 1),
        size,
      ),
    };
  };

  it("fall as the damage that they are to notice grows", () => {
    for (let i = 0; i < 12; i++) {
      const blurred = [0, 0.3, 0.6, 1].map((a) => sharpnessScore(damaged(i, (p) => blur(p, size, a))));
      const washed = [0, 0.3, 0.6, 1].map((a) => colorfulnessScore(damaged(i, (p) => desaturate(p, size, a))));
      for (let k = 1; k < 4; k++) {
        expect(blurred[k]).toBeLessThan(blurred[k - 1]!);
        expect(washed[k]).toBeLessThan(washed[k - 1]!);
      }
      expect(washed[3]).toBeLessThan(0.02);
    }
  });

  it("lie in [0, 1), with ½ at the documented place", () => {
    expect(sharpnessScore(draw(8, 8, () => grey(9)))).toBe(0);
    expect(colorfulnessScore(draw(8, 8, () => grey(9)))).toBe(0);
    const harsh = draw(256, 256, (x, y) => ((x + y) % 2 ? [255, 0, 0] : [0, 255, 255]));
    for (const score of [sharpnessScore(harsh), colorfulnessScore(harsh)]) {
      expect(score).toBeGreaterThan(0.9);
      expect(score).toBeLessThanOrEqual(1);
    }
    // A single colour with opponent vector (rg, yb) = (150, 0) has colourfulness 0.3 · 150 = 45.
    expect(colorfulnessScore(draw(4, 4, () => [200, 50, 125]))).toBeCloseTo(0.5, 9);
  });

  it("weighs the Laplacian by the shorter side", () => {
    const checker = (width: number, height: number) => draw(width, height, (x, y) => grey((x + y) % 2 ? 101 : 100));
    // ±½ everywhere: a root mean square of 4 levels.
    expect(sharpnessScore(checker(64, 96))).toBeCloseTo(1 - 2 ** (-(4 * 64) / 256 / 3), 9);
    expect(sharpnessScore(checker(128, 128))).toBeCloseTo(1 - 2 ** (-(4 * 128) / 256 / 3), 9);
  });
});
