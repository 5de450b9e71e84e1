import { manualSeed, memory, noGrad, ones, randn, scope, type Tensor } from "@miro-t2i/torch";
import { beforeEach, expect, it } from "vitest";
import { SwiGlu } from "./feed-forward.js";
import { inTurn, residual, stochasticDepth } from "./fused.js";
import { RmsNorm } from "./norms.js";

beforeEach(() => {
  manualSeed(1);
});

it("a residual branch is x + layer(norm(x)) with gradients and without, and leaves nothing else in memory", () => {
  scope(() => {
    const [norm, layer] = [new RmsNorm(8), new SwiGlu(8, 4)];
    const block = { dropRate: 0, training: false };
    for (const module of [norm, layer]) module.eval();
    const x = randn([2, 3, 8]);
    const plain = x.add(layer.forward(norm.forward(x)));
    const before = memory.stats().liveTensors;
    const fused = noGrad(() => residual(block, x, norm, layer));
    expect(memory.stats().liveTensors).toBe(before + 1);
    const followed = residual(block, x, norm, layer);
    expect(followed.requiresGrad).toBe(true);
    for (const y of [fused, followed]) expect(y.sub(plain).abs().max().item()).toBeLessThan(1e-5);
  });
});

it("a residual branch is dropped for whole samples, in training only", () => {
  noGrad(() =>
    scope(() => {
      const [norm, layer] = [new RmsNorm(8), new SwiGlu(8, 4)];
      const x = randn([400, 2, 8]);
      const changed = (training: boolean) =>
        residual({ dropRate: 0.25, training }, x, norm, layer).sub(x).flatten(1).abs().amax(1).gt(0);
      expect(changed(false).all().item()).toBeTruthy();
      const share = changed(true).float().mean().item() as number;
      expect(share).toBeGreaterThan(0.65);
      expect(share).toBeLessThan(0.85);
    }),
  );
});

it("stochastic depth drops whole samples and keeps the mean of a branch", () => {
  scope(() => {
    const dropped = stochasticDepth(ones([20_000, 3, 2]), 0.25, true);
    const perSample = dropped.flatten(1);
    expect(perSample.amin(1).sub(perSample.amax(1)).abs().max().item()).toBe(0);
    expect(dropped.eq(0).float().mean().item()).toBeCloseTo(0.25, 1.5);
    expect(dropped.mean().item()).toBeCloseTo(1, 1.5);
    expect(dropped.max().item()).toBeCloseTo(4 / 3);
  });
});

it("steps in turn free what came before, and keep what goes on unchanged", () => {
  scope(() => {
    const initial: { z: Tensor; x: Tensor } = { z: ones([2]), x: ones([2]) };
    const before = memory.stats().liveTensors;
    const { z, x } = inTurn([1, 2, 3], initial, (add, state) => ({ z: state.z.mul(2).add(add), x: state.x }));
    expect(z.toList()).toEqual([19, 19]);
    expect(x).toBe(initial.x);
    expect(initial.z.isDisposed).toBe(true);
    expect(memory.stats().liveTensors).toBe(before);
  });
});
