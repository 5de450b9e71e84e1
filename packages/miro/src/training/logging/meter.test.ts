import { full, scope } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { groupGradientNorms, learningRates, Meter, memoryFigures, type StepReport, type StepTimes } from "./meter.js";
import { measurePeakFlops } from "./peak-flops.js";

const times = { waitMs: 100, totalMs: 500, images: 8, flops: 4e12 };

/** What a step of a run tells. */
function add(meter: Meter, report: StepReport, times: StepTimes): void {
  meter.report(report);
  meter.time(times);
}

describe("Meter", () => {
  it("means over the steps since the last line; speed is images over time, not a mean of speeds", () => {
    const meter = new Meter(16e12);
    add(meter, { loss: 1, rawLoss: 2, logvar: 0.5, gradNorm: 3 }, times);
    add(meter, { loss: 3, rawLoss: 4, logvar: 1.5, gradNorm: 5, groupNorms: [3, 4] }, { ...times, totalMs: 1500 });
    // The last step counts 1, the one before it 0.95: a first step that is slow is soon forgotten.
    expect(meter.smoothLoss).toBeCloseTo((0.95 * 2 + 4) / 1.95, 12);
    expect(meter.stepsPerSecond).toBeCloseTo(1000 / ((0.95 * 500 + 1500) / 1.95), 12);
    expect(meter.flush()).toEqual({
      "train/loss": 2,
      "train/raw_loss": 3,
      "train/loss_gradnorm_reweighted": 2,
      "train/logvar": 1,
      "train/grad_norm": 4,
      "train/grad_norm_pg1": 3,
      "train/grad_norm_pg2": 4,
      "speed/images_per_second": 8,
      "speed/step_ms": 1000,
      "speed/data_wait_ms": 100,
      "speed/data_wait_share": 0.1,
      "speed/tflops": 4,
      "speed/mfu": 0.25,
    });
    add(meter, { loss: 7, rawLoss: 8, gradNorm: 9 }, { waitMs: 0, totalMs: 100, images: 8 });
    const later = meter.flush();
    expect([later["train/loss"], later["train/logvar"], later["speed/mfu"]]).toEqual([7, undefined, undefined]);
  });

  it("leaves out what is not finite, and has null where nothing is", () => {
    const meter = new Meter();
    add(meter, { loss: Number.NaN, rawLoss: Number.NaN, gradNorm: Number.POSITIVE_INFINITY }, times);
    add(meter, { loss: 2, rawLoss: 2, gradNorm: Number.NaN }, times);
    expect(meter.flush()).toMatchObject({ "train/loss": 2, "train/grad_norm": null });
    expect(meter.smoothLoss).toBeCloseTo(2, 12);
  });
});

describe("figures beside the loss", () => {
  it("learning rates have Lightning's names", () => {
    class Lamb {
      paramGroups = [{ lr: 1e-3 }, { lr: 2e-3 }];
    }
    expect(learningRates(new Lamb())).toEqual({ "lr-Lamb/pg1": 1e-3, "lr-Lamb/pg2": 2e-3 });
  });

  it("the norm of a group is that of all its gradients together", () => {
    scope(() => {
      const parameter = (value: number) => {
        const p = full([2], 0).requiresGrad_();
        p.grad = full([2], value);
        return p;
      };
      const norms = groupGradientNorms([
        { params: [parameter(3), parameter(4)] },
        { params: [full([2], 0).requiresGrad_()] },
      ]).toList() as number[];
      expect(norms[0]).toBeCloseTo(Math.sqrt(2 * 9 + 2 * 16), 5);
      expect(norms[1]).toBe(0);
    });
  });

  it("tensor bytes grow by those of a tensor", () => {
    scope(() => {
      const before = memoryFigures("cpu")["memory/tensor_bytes"]!;
      full([1024, 1024], 1);
      const grown = memoryFigures("cpu")["memory/tensor_bytes"]! - before;
      expect(grown / (4 * 2 ** 20)).toBeCloseTo(1, 3); // the allocator rounds up
    });
    expect(memoryFigures("cpu")).not.toHaveProperty("memory/cuda_bytes");
  });

  it("the peak is that of a product which takes a while, and frees its factors", () => {
    const before = memoryFigures("cpu")["memory/tensor_bytes"];
    const peak = measurePeakFlops({ device: "cpu", dtype: "float32" });
    expect(peak).toBeGreaterThan(1e8);
    expect(memoryFigures("cpu")["memory/tensor_bytes"]).toBe(before);
  });
});
