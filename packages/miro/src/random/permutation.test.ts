import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Permutation } from "./permutation.js";

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

describe("Permutation", () => {
  test("visits every number once", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5000 }), fc.array(fc.maxSafeNat(), { maxLength: 3 }), (n, key) => {
        const permutation = new Permutation(n, "epochSamples", key);
        expect(new Set(range(n).map((i) => permutation.at(i))).size).toBe(n);
        expect(range(n).every((i) => permutation.at(i) < n)).toBe(true);
      }),
    );
  });

  test("holds for sets that no list could hold", () => {
    const n = 2 ** 50 - 27;
    const permutation = new Permutation(n, "epochSamples", [1]);
    const seen = range(2000).map((i) => permutation.at(n - 1 - i));
    expect(new Set(seen).size).toBe(2000);
    expect(seen.every((value) => Number.isSafeInteger(value) && value >= 0 && value < n)).toBe(true);
  });

  test("looks random: places and steps are spread evenly", () => {
    // Chi-squared over 100 cells; 99 degrees of freedom exceed 160 with a probability below 1e-4.
    const n = 100_000;
    for (const key of range(5)) {
      const permutation = new Permutation(n, "epochSamples", [key]);
      const places = new Array<number>(100).fill(0);
      const steps = new Array<number>(100).fill(0);
      for (let i = 0; i + 1 < 20_000; i++) {
        const here = permutation.at(i);
        places[Math.floor((here * 100) / n)]!++;
        steps[Math.floor((((permutation.at(i + 1) - here + n) % n) * 100) / n)]!++;
      }
      for (const counts of [places, steps]) {
        const expected = counts.reduce((a, b) => a + b) / 100;
        expect(counts.reduce((sum, c) => sum + (c - expected) ** 2 / expected, 0)).toBeLessThan(160);
      }
    }
  });
});
