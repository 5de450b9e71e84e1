import { manualSeed, rand, randn, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { planSampling, sample } from "./deformable-attention.js";

const LEVELS = [
  { height: 3, width: 4 },
  { height: 2, width: 2 },
  { height: 1, width: 1 },
];
const [B, H, P, C] = [2, 2, 4, 3];
const CELLS = LEVELS.reduce((sum, { height, width }) => sum + height * width, 0);

/** The definition, number by number: bilinear interpolation between cells, zero outside of a map. */
function direct(values: Tensor, offsets: Tensor, weights: Tensor): number[] {
  const at = (x: Tensor) => {
    const data = x.contiguous().data() as Float32Array;
    return (...index: number[]) => data[index.reduce((place, i, dim) => place * x.size(dim) + i, 0)]!;
  };
  const [value, offset, weight] = [at(values), at(offsets), at(weights)];
  const centres = LEVELS.flatMap(({ height, width }) =>
    Array.from({ length: height * width }, (_, i) => [
      ((i % width) + 0.5) / width,
      (Math.floor(i / width) + 0.5) / height,
    ]),
  );
  const sums: number[] = [];
  for (let b = 0; b < B; b++)
    for (let q = 0; q < CELLS; q++)
      for (let h = 0; h < H; h++)
        for (let c = 0; c < C; c++) {
          let sum = 0;
          let start = 0;
          LEVELS.forEach(({ height, width }, l) => {
            for (let p = 0; p < P; p++) {
              const x = (centres[q]![0]! + offset(b, q, h, l, p, 0) / width) * width - 0.5;
              const y = (centres[q]![1]! + offset(b, q, h, l, p, 1) / height) * height - 0.5;
              for (const row of [Math.floor(y), Math.floor(y) + 1])
                for (const column of [Math.floor(x), Math.floor(x) + 1]) {
                  if (row < 0 || row >= height || column < 0 || column >= width) continue;
                  const share = (1 - Math.abs(x - column)) * (1 - Math.abs(y - row));
                  sum += weight(b, q, h, l, p) * share * value(b, start + row * width + column, h * C + c);
                }
            }
            start += height * width;
          });
          sums.push(sum);
        }
  return sums;
}

function inputs(spread: number) {
  manualSeed(3);
  const values = randn([B, CELLS, H * C]);
  const offsets = randn([B, CELLS, H, LEVELS.length, P, 2]).mul(spread);
  return { values, offsets, weights: rand([B, CELLS, H, LEVELS.length, P]) };
}

describe("sampling at points of several maps", () => {
  it.each([0, 0.4, 3, 1e6])("equals the definition, points up to %s cells away", (spread) => {
    scope(() => {
      const { values, offsets, weights } = inputs(spread);
      const plan = planSampling(LEVELS, H, "cpu");
      const sums = sample(plan, values, offsets, weights);
      expect(sums.shape).toEqual([B, CELLS, H * C]);
      const expected = tensor(Float32Array.from(direct(values, offsets, weights)));
      expect(sums.flatten().sub(expected).abs().max().item()).toBeLessThan(1e-5);
    });
  });

  it("of values in bfloat16 differs by their rounding alone", () => {
    scope(() => {
      const { values, offsets, weights } = inputs(2);
      const plan = planSampling(LEVELS, H, "cpu");
      const rounded = values.to("bfloat16");
      const sums = sample(plan, rounded, offsets, weights);
      expect(
        sums
          .sub(sample(plan, rounded.float(), offsets, weights))
          .abs()
          .max()
          .item(),
      ).toBe(0);
    });
  });

  it("reads no row outside of the table for an offset that is no number", () => {
    scope(() => {
      const { values, offsets, weights } = inputs(1);
      const plan = planSampling(LEVELS, H, "cpu");
      const odd = offsets.clone();
      odd.select(5, 0).fill_(Number.NaN);
      odd.select(5, 1).fill_(Number.POSITIVE_INFINITY);
      expect(sample(plan, values, odd, weights).shape).toEqual([B, CELLS, H * C]);
    });
  });
});
