import { scope, tensor } from "@miro-t2i/torch";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { dynamicShift, LinearSchedule } from "./schedule.js";

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

describe("dynamicShift", () => {
  it("gives the noise levels of FLUX.1's scheduler", () => {
    // FlowMatchEulerDiscreteScheduler(use_dynamic_shifting) of diffusers 0.42.1: set_timesteps(sigmas=linspace(1, 1/8,
    // 8), mu), with mu = 0.5 (256 tokens) and 1.15 (4096 tokens), followed by its final 0.
    const recorded: [number, number[]][] = [
      [32, [1, 0.9202618, 0.8318243, 0.7331817, 0.6224594, 0.4972936, 0.3546612, 0.1906318, 0]],
      [128, [1, 0.9567237, 0.9045308, 0.8403488, 0.7595109, 0.6545668, 0.5128441, 0.3109011, 0]],
    ];
    for (const [side, sigmas] of recorded) {
      const grid = new LinearSchedule({ shift: dynamicShift(side, side) }).grid(8);
      for (const [i, sigma] of sigmas.entries()) expect(1 - grid[i]!).toBeCloseTo(sigma, 5);
    }
  });

  it("is e^-0.5 for 32 x 32 latents and falls with the size", () => {
    expect(dynamicShift(32, 32)).toBeCloseTo(Math.exp(-0.5), 12);
    expect(dynamicShift(128, 128)).toBeCloseTo(Math.exp(-1.15), 12);
    expect(dynamicShift(32, 128)).toBeLessThan(dynamicShift(32, 32));
  });
});
