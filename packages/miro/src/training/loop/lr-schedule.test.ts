import { describe, expect, it } from "vitest";
import { risingAgain, WarmupCosine, warmupCosine } from "./lr-schedule.js";

const upstream = { warmupSteps: 5000, totalSteps: 500_000, rate: 0.8 };

describe("warmupCosine", () => {
  it("has the values of the published configuration", () => {
    expect(warmupCosine(0, upstream)).toBe(0);
    expect(1e-3 * warmupCosine(1, upstream)).toBeCloseTo(2e-7, 12);
    expect(warmupCosine(2500, upstream)).toBe(0.5);
    expect(warmupCosine(5000, upstream)).toBe(1);
    expect(1e-3 * warmupCosine(500_000, upstream)).toBeCloseTo(9.55e-5, 7);
  });

  it("ends at zero for a whole half cosine, and starts without warm-up", () => {
    expect(warmupCosine(20, { warmupSteps: 0, totalSteps: 20 })).toBeCloseTo(0, 12);
    expect(warmupCosine(0, { warmupSteps: 0, totalSteps: 20 })).toBe(1);
    expect(warmupCosine(10, { warmupSteps: 0, totalSteps: 20 })).toBeCloseTo(0.5, 12);
  });
});

describe("risingAgain", () => {
  it("speaks of the steps after which the rate is no longer falling, and only where the run has them", () => {
    for (const [rate, totalSteps] of [
      [1, 20],
      [0.8, 20],
      [0.5, 13],
    ] as const) {
      const options = { warmupSteps: 4, totalSteps, rate };
      const at = (step: number) => warmupCosine(step, options);
      const maxSteps = Array.from({ length: 60 }, (_, i) => totalSteps + i);
      const told = maxSteps.find((max) => risingAgain(options, max) !== null)!;
      for (let step = 5; step < told; step++) expect(at(step)).toBeLessThan(at(step - 1));
      expect(at(told)).toBeGreaterThan(at(told - 1));
      expect(risingAgain(options, told)).toMatch(new RegExp(`lowest at step ${told - 1} `));
    }
    expect(risingAgain({ warmupSteps: 0, totalSteps: 10, rate: 0 }, 1000)).toBeNull();
  });
});

describe("WarmupCosine", () => {
  const groups = () => ({ paramGroups: [{ lr: 1e-3 }, { lr: 1e-2 }] });

  it("applies η(k) before update k, to each group's own base rate", () => {
    const optimizer = groups();
    const schedule = new WarmupCosine(optimizer, upstream);
    schedule.apply(1);
    expect(optimizer.paramGroups.map(({ lr }) => lr)).toEqual([2e-7, 2e-6].map((lr) => expect.closeTo(lr, 12)));
    schedule.apply(5000);
    expect(optimizer.paramGroups.map(({ lr }) => lr)).toEqual([1e-3, 1e-2]);
  });

  it("can take the first update at full rate, as upstream does", () => {
    const optimizer = groups();
    const schedule = new WarmupCosine(optimizer, { ...upstream, firstUpdateAtFullRate: true });
    schedule.apply(1);
    expect(optimizer.paramGroups[0]!.lr).toBe(1e-3);
    schedule.apply(2);
    expect(optimizer.paramGroups[0]!.lr).toBeCloseTo(2e-7, 12);
  });

  it("refuses a schedule that ends before its warm-up", () => {
    expect(() => new WarmupCosine(groups(), { warmupSteps: 10, totalSteps: 10 })).toThrow(
      /totalSteps: expected more than warmupSteps \(10\)/,
    );
  });
});
