import { manualSeed, noGrad, randn, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { expect, test } from "vitest";
import { SwiGlu } from "./feed-forward.js";
import type { Epilogue } from "./fused.js";
import { kernels } from "./int8.js";
import { Linear } from "./linear.js";

/** What rounding may do: 2 % with 127 levels on each side of zero. */
const ROUNDING = 2.54 / kernels().levels;

const relative = (a: Tensor, b: Tensor) => a.float().sub(b.float()).norm().div(b.float().norm()).item();
const evaluated = <M extends Linear | SwiGlu>(module: M): M => {
  module.requiresGrad_(false).eval();
  return module;
};

for (const dtype of ["float32", "bfloat16"] as const) {
  test(`an int8 layer agrees with a ${dtype} one within the rounding of 8 bits, whatever follows it`, () => {
    noGrad(() =>
      scope(() => {
        manualSeed(1);
        const x = randn([2, 9, 64]).to(dtype);
        const other = randn([2, 9, 96]).to(dtype);
        const epilogues: Epilogue[] = ["none", "silu", "gelu", { add: other }, { mul: other }];
        for (const bias of [true, false]) {
          const layer = evaluated(new Linear(64, 96, { bias }));
          layer.to({ dtype });
          const expected = epilogues.map((epilogue) => layer.forward(x, epilogue));
          layer.quantize();
          for (const [i, epilogue] of epilogues.entries()) {
            const y = layer.forward(x, epilogue);
            expect(y.dtype).toBe(dtype);
            expect(y.shape).toEqual([2, 9, 96]);
            expect(relative(y, expected[i]!), JSON.stringify(epilogue)).toBeLessThan(ROUNDING);
            expect(relative(y, expected[i]!)).toBeGreaterThan(0);
          }
          layer.dispose();
        }
      }),
    );
  });
}

test("inputs of any size keep their relative precision, and zeros stay zeros", () => {
  noGrad(() =>
    scope(() => {
      const layer = evaluated(new Linear(32, 16, { bias: false }));
      const x = randn([4, 32]);
      const expected = layer.forward(x);
      layer.quantize();
      for (const size of [1e-6, 1, 1e6]) {
        expect(relative(layer.forward(x.mul(size)), expected.mul(size))).toBeLessThan(ROUNDING);
      }
      expect(layer.forward(x.mul(0)).abs().amax().item()).toBe(0);
      layer.dispose();
    }),
  );
});

test("each row has its own levels, whatever the size of the others", () => {
  noGrad(() =>
    scope(() => {
      manualSeed(3);
      const layer = evaluated(new Linear(64, 48));
      const x = randn([3, 5, 64]);
      const sizes = tensor([1, 1e-3, 1e3, 10, 0.1]).unsqueeze(-1);
      const bias = layer.bias!.clone();
      const expected = layer.forward(x.mul(sizes)).sub(bias);
      layer.quantize();
      const off = layer.forward(x.mul(sizes)).sub(bias).sub(expected).div(sizes).square().mean().sqrt().item();
      expect(off).toBeLessThan(ROUNDING * expected.div(sizes).square().mean().sqrt().item());
      layer.dispose();
    }),
  );
});

test("a layer computed in parts is quantised in parts, and its weights are gone", () => {
  noGrad(() =>
    scope(() => {
      const mlp = evaluated(new SwiGlu(64, 4));
      const x = randn([2, 7, 64]);
      const expected = mlp.forward(x);
      mlp.packed.quantize();
      mlp.out.quantize();
      // Two roundings, one for each layer.
      expect(relative(mlp.forward(x), expected)).toBeLessThan(2 * ROUNDING);
      expect(() => mlp.packed.forward(x)).toThrow(/part by part/);
      expect(mlp.packed.weight.isDisposed).toBe(true);
      mlp.dispose();
    }),
  );
});
