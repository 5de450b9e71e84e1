import { nn, noGrad, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { Ema } from "./ema.js";

class Toy extends nn.Module {
  readonly weight: Tensor;
  readonly constant: Tensor;
  constructor(value: number) {
    super();
    this.weight = this.parameter("weight", tensor([value, 2 * value]));
    this.constant = this.buffer("constant", tensor([value]));
  }
}

describe("Ema", () => {
  it("copies at the start, then follows e ← d·e + (1 − d)·p, buffers excepted", () => {
    scope(() => {
      const source = new Toy(1);
      const ema = new Ema(source, new Toy(9), { decay: 0.75 });
      expect(ema.module.weight.toList()).toEqual([1, 2]);
      noGrad(() => {
        source.weight.fill_(5);
        source.constant.fill_(5);
      });
      ema.update();
      ema.update();
      const twice = (e: number) => 0.75 * (0.75 * e + 0.25 * 5) + 0.25 * 5;
      expect(ema.module.weight.toList()).toEqual([1, 2].map((e) => expect.closeTo(twice(e), 6)));
      expect(ema.module.constant.toList()).toEqual([1]);
      expect(ema.module.weight.requiresGrad).toBe(false);
      expect(ema.module.training).toBe(false);
      expect(ema.updates).toBe(2);
    });
  });

  it("lengthens its horizon with warm-up", () => {
    scope(() => {
      const ema = new Ema(new Toy(1), new Toy(1), { decay: 0.5, warmup: true });
      const decays = Array.from({ length: 12 }, () => {
        const decay = ema.decayOf();
        ema.update();
        return decay;
      });
      expect(decays[0]).toBeCloseTo(1 / 10);
      expect(decays[3]).toBeCloseTo(4 / 13);
      expect(decays[11]).toBe(0.5);
    });
  });

  it("can make several updates at once", () => {
    scope(() => {
      const source = new Toy(1);
      const ema = new Ema(source, new Toy(1), { decay: 0.9, everyNSteps: 3 });
      noGrad(() => source.weight.fill_(5));
      ema.update();
      ema.update();
      expect(ema.module.weight.toList()).toEqual([1, 2]);
      ema.update();
      expect(ema.module.weight.toList()).toEqual(
        [1, 2].map((e) => expect.closeTo(0.9 ** 3 * e + (1 - 0.9 ** 3) * 5, 6)),
      );
    });
  });

  it("can make several updates of the warm-up at once, each with its own decay", () => {
    scope(() => {
      const source = new Toy(1);
      const ema = new Ema(source, new Toy(1), { decay: 0.9, everyNSteps: 3, warmup: true });
      noGrad(() => source.weight.fill_(5));
      for (let step = 0; step < 3; step++) ema.update();
      const kept = (1 / 10) * (2 / 11) * (3 / 12);
      expect(ema.module.weight.toList()).toEqual([1, 2].map((e) => expect.closeTo(kept * e + (1 - kept) * 5, 6)));
    });
  });

  it("refuses a decay that never forgets", () => {
    expect(() => scope(() => new Ema(new Toy(1), new Toy(1), { decay: 1 }))).toThrow(
      /decay: expected a number in \[0, 1\)/,
    );
  });
});
