import { describe, expect, it } from "vitest";
import { tensor, zeros } from "../creation.js";
import { scope } from "../scope.js";
import { AdamW } from "./adamw.js";
import { GradScaler } from "./grad-scaler.js";

/** A parameter with a gradient. */
function parameter(gradient: number[]) {
  const p = zeros([gradient.length]).requiresGrad_(true);
  p.grad = tensor(gradient);
  return p;
}

describe("GradScaler", () => {
  it("divides all gradients by the scale and finds what is not finite among them", () => {
    scope(() => {
      const scaler = new GradScaler({ initScale: 8 });
      const [a, b] = [parameter([8, -16]), parameter([4])];
      expect(scaler.unscale([a, b, zeros([1])])).toBe(true);
      expect([a.grad!.toList(), b.grad!.toList()]).toEqual([[1, -2], [0.5]]);
      expect(scaler.unscale([a, parameter([Number.POSITIVE_INFINITY])])).toBe(false);
      expect(scaler.unscale([parameter([Number.NaN])])).toBe(false);
    });
  });

  it("tells an optimizer on the device to leave a step out", () => {
    scope(() => {
      const scaler = new GradScaler({ initScale: 8 });
      const p = parameter([8, Number.POSITIVE_INFINITY]);
      const optimizer = new AdamW([p], { lr: 1 });
      optimizer.step(scaler.unscale_([p]));
      expect(p.toList()).toEqual([0, 0]);
      scaler.update();
      expect([scaler.scale, scaler.scaleOn("cpu").item()]).toEqual([4, 4]);
      p.grad = tensor([4, -4]);
      optimizer.step(scaler.unscale_([p]));
      expect((p.toList() as number[]).map(Math.sign)).toEqual([-1, 1]);
      optimizer.dispose();
    });
  });

  // The scales that torch.amp.GradScaler(init_scale=16, growth_interval=3) has after steps with (o) and without (.)
  // overflow.
  it("halves the scale at an overflow and doubles it after enough steps without", () => {
    scope(() => {
      const scaler = new GradScaler({ initScale: 16, growthInterval: 3 });
      const scales = [..."..o....o.....o"].map((step) => {
        scaler.unscale([parameter([step === "o" ? Number.POSITIVE_INFINITY : 1])]);
        scaler.update();
        return scaler.scale;
      });
      expect(scales).toEqual([16, 16, 8, 8, 8, 16, 16, 8, 8, 8, 16, 16, 16, 8]);
      const resumed = new GradScaler();
      resumed.loadStateDict(scaler.stateDict());
      expect(resumed.stateDict()).toEqual({ scale: 8, growthTracker: 0 });
    });
  });
});
