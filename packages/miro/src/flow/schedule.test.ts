import { scope, tensor } from "@miro-t2i/torch";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LinearSchedule } from "./schedule.js";

describe("LinearSchedule", () => {
  it("gives γ = 1 − t, never below clipMin, uniformly over the grid", () => {
    const grid = new LinearSchedule().grid(4);
    expect([...grid]).toEqual([Math.fround(1e-9), 0.25, 0.5, 0.75, 1]);
  });

  it("bends towards the data with a shift above 1 and towards the noise below 1, each the mirror of its inverse", () => {
    const [up, down] = [new LinearSchedule({ shift: 4 }).grid(8), new LinearSchedule({ shift: 1 / 4 }).grid(8)];
    for (let i = 1; i < 8; i++) {
      expect(up[i]!).toBeGreaterThan(i / 8);
      expect(up[i]! + down[8 - i]!).toBeCloseTo(1, 6);
    }
  });

  it("is the same float32 number for tensors and for single times", () => {
    fc.assert(
      fc.property(
        fc.array(fc.float({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 8 }),
        fc.constantFrom(0.25, 1, 1.5, 2, 3, 6.25),
        (times, shift) => {
          const schedule = new LinearSchedule({ shift });
          const gammas = scope(() => schedule.gamma(tensor(times, { dtype: "float32" })).toList()) as number[];
          for (const [i, t] of times.entries()) expect(schedule.gammaAt(t)).toBeCloseTo(gammas[i]!, 6);
        },
      ),
    );
  });

  it("rises from noise to data and keeps both ends under any shift", () => {
    fc.assert(
      fc.property(fc.double({ min: 0.05, max: 20, noNaN: true }), fc.integer({ min: 1, max: 200 }), (shift, steps) => {
        const grid = new LinearSchedule({ shift }).grid(steps);
        expect(grid).toHaveLength(steps + 1);
        expect(grid[0]).toBeCloseTo(1e-9, 9);
        expect(grid[steps]).toBeCloseTo(1, 6);
        for (let i = 0; i < steps; i++) expect(grid[i + 1]!).toBeGreaterThan(grid[i]!);
      }),
    );
  });
});
