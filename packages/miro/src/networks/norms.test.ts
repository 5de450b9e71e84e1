import { manualSeed, noGrad, randn, scope, tensor } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { EPS, LayerNorm, RmsNorm } from "./norms.js";

const rows = (t: { toList(): unknown }) => t.toList() as number[][];

describe("RmsNorm", () => {
  it("is x / sqrt(mean(x²) + eps) · weight, in evaluation as in training", () => {
    noGrad(() =>
      scope(() => {
        manualSeed(1);
        const norm = new RmsNorm(6);
        norm.weight.copy_(randn([6]));
        const weight = norm.weight.toList() as number[];
        for (const scale of [1e-4, 1, 1e4]) {
          const x = randn([3, 6]).mul(scale);
          const expected = rows(x).map((row) => {
            const rms = Math.sqrt(row.reduce((sum, v) => sum + v * v, 0) / 6 + EPS);
            return row.map((v, i) => (v / rms) * weight[i]!);
          });
          for (const training of [true, false]) {
            norm.train(training);
            const y = rows(norm.forward(x));
            for (const [r, row] of expected.entries())
              for (const [i, value] of row.entries()) expect(y[r]![i]).toBeCloseTo(value, 5);
          }
        }
      }),
    );
  });

  it("takes its statistics in float32 and rounds before the weight", () => {
    noGrad(() =>
      scope(() => {
        manualSeed(2);
        const norm = new RmsNorm(64).eval() as RmsNorm;
        norm.to({ dtype: "bfloat16" });
        norm.weight.copy_(randn([64]));
        const x = randn([4, 64]).mul(100).to("bfloat16");
        const wide = x.float();
        const quotient = wide.div(wide.square().mean(-1, true).add(EPS).sqrt());
        const y = norm.forward(x);
        expect(y.dtype).toBe("bfloat16");
        expect(y.sub(quotient.to("bfloat16").mul(norm.weight)).abs().max().item()).toBeLessThan(0.05);
        const share = y.eq(quotient.to("bfloat16").mul(norm.weight)).float().mean().item();
        expect(share).toBeGreaterThan(0.98);
      }),
    );
  });
});

describe("LayerNorm", () => {
  it("has the network's epsilon: a constant row becomes its bias", () => {
    noGrad(() =>
      scope(() => {
        const norm = new LayerNorm(4);
        norm.bias!.copy_(randn([4]));
        const y = norm.forward(randn([1, 1]).expand(2, 4));
        expect(y.sub(norm.bias!).abs().max().item()).toBeLessThan(1e-3);
        // Of ±1e-3 the variance is 1e-6, as much as epsilon: the result is ±1/√2.
        const small = tensor([[1e-3, -1e-3, 1e-3, -1e-3]]);
        const signs = rows(norm.forward(small).sub(norm.bias!))[0]!;
        for (const [i, value] of signs.entries()) expect(value).toBeCloseTo((i % 2 ? -1 : 1) * Math.SQRT1_2, 4);
      }),
    );
  });
});
