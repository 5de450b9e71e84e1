import { describe, expect, it } from "vitest";
import { bootstrapIntervals } from "./bootstrap.js";

/** Values spread evenly, so that mean and standard deviation are known. */
const even = (n: number) => Array.from({ length: n }, (_, i) => i / (n - 1));

describe("bootstrap intervals", () => {
  it("have the width that the central limit theorem gives", () => {
    for (const n of [50, 400]) {
      const [[low, high]] = bootstrapIntervals([even(n)]) as [[number, number]];
      const halfWidth = 1.96 * Math.sqrt((n + 1) / (12 * (n - 1)) / n);
      expect((high - low) / 2 / halfWidth).toBeGreaterThan(0.9);
      expect((high - low) / 2 / halfWidth).toBeLessThan(1.1);
      expect((high + low) / 2).toBeCloseTo(0.5, 1);
    }
  });

  it("move and scale with the values, and do not depend on what else is asked", () => {
    const values = even(40);
    const [alone] = bootstrapIntervals([values]);
    const [again, scaled] = bootstrapIntervals([values, values.map((x) => 3 * x - 10)]);
    expect(again).toEqual(alone);
    scaled!.forEach((bound, i) => {
      expect(bound).toBeCloseTo(3 * alone![i]! - 10, 10);
    });
  });

  it("leave out what is missing, and have nothing to say of nothing and of one alone", () => {
    const [gaps, none] = bootstrapIntervals([
      [0.5, null, 0.5, null],
      [null, null, null, null],
    ]);
    expect(gaps).toEqual([0.5, 0.5]);
    expect(none).toBeNull();
    expect(bootstrapIntervals([[]])).toEqual([null]);
    expect(bootstrapIntervals([[7]])).toEqual([null]);
    expect(bootstrapIntervals([[7, null, null]])).toEqual([null]);
  });
});
