import { randn, scope, type Tensor } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { frequencies, rotate, rotationOf } from "./rotary.js";

const angles = (positions: readonly number[], pairs: number) =>
  positions.map((position) => Float64Array.from(frequencies(100, pairs), (f) => position * f));

describe("rotary positions", () => {
  it("turn each pair of channels by its angle", () => {
    scope(() => {
      const x = randn([2, 3, 4]);
      const positions = [0, 2, 5];
      const turned = rotate(x, rotationOf(angles(positions, 2), "cpu"));
      const at = (t: Tensor, b: number, token: number, k: number) =>
        t.select(0, b).select(0, token).select(0, k).item() as number;
      for (const b of [0, 1])
        for (const [token, position] of positions.entries())
          for (const k of [0, 1]) {
            const angle = position * 100 ** (-k / 2);
            const [re, im] = [at(x, b, token, k), at(x, b, token, k + 2)];
            const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
            expect(at(turned, b, token, k)).toBeCloseTo(re * cos - im * sin, 5);
            expect(at(turned, b, token, k + 2)).toBeCloseTo(im * cos + re * sin, 5);
          }
    });
  });

  it("make products depend on the distance alone", () => {
    scope(() => {
      const [q, k] = [randn([1, 16]), randn([1, 16])];
      const product = (i: number, j: number) =>
        rotate(q, rotationOf(angles([i], 8), "cpu"))
          .mul(rotate(k, rotationOf(angles([j], 8), "cpu")))
          .sum()
          .item() as number;
      expect(product(3, 10)).toBeCloseTo(product(20, 27), 4);
      expect(product(3, 10)).toBeCloseTo(product(-7, 0), 4);
      expect(Math.abs(product(3, 10) - product(3, 11))).toBeGreaterThan(1e-4);
    });
  });
});
