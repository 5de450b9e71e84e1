import { memory, type Tensor, tensor, zeros } from "@miro-t2i/torch";
import { afterEach, describe, expect, it, vi } from "vitest";
import { type Method, type Step, type StepReport, sample, type VelocityModel } from "../sampling.js";
import { LinearSchedule } from "../schedule.js";
import { gaussian, manySteps, modelOf, order, values } from "../testing/closed-forms.js";
import { euler, evaluationsOf, samplerMethod, samplerNames, stepsWithin, withOptionsOf } from "./index.js";

const NAMES = samplerNames();
/** Options that make any sampler follow the ODE. */
const still = (name: string) => ({ options: withOptionsOf(name, { eta: 0 }) ?? {} });

describe("sampling", () => {
  const live: Tensor[] = [];
  const own = (t: Tensor): Tensor => {
    live.push(t);
    return t;
  };
  afterEach(() => {
    for (const t of live.splice(0)) t.dispose();
  });

  it.each(NAMES)(
    "%s is exact on the straight paths of a single data point, whatever the number of steps",
    async (name) => {
      const data = own(tensor([[1, -2, 3]], { dtype: "float32" }));
      const noise = own(tensor([[0.5, 0.25, -1]], { dtype: "float32" }));
      // v = n − x₀ is constant along y = γ·x₀ + (1 − γ)·n
      const model: VelocityModel<object> = () => ({ velocity: noise.sub(data), state: {} });
      for (const steps of [1, 3, 10]) {
        const grid = new LinearSchedule({ shift: 0.5 }).grid(steps);
        const x = own(await sample(samplerMethod(name), model, noise, grid, still(name)));
        for (const [i, value] of values(x).entries()) expect(value).toBeCloseTo([1, -2, 3][i]!, 5);
      }
    },
  );

  it.each([
    ["undefined", () => undefined],
    ["a Promise", async ({ x }: Step) => x],
    ["a tensor () where x is (1, 3)", ({ x }: Step) => x.sum()],
    ['{"remember":{}}', () => ({ remember: {} })],
  ])("refuses a step of somebody's method that returns %s", async (found, step) => {
    const x = own(tensor([[1, 2, 3]]));
    const method = { order: 1, evaluations: (steps: number) => steps, step } as never as Method;
    const run = sample(method, (y) => ({ velocity: y.mul(1), state: {} }), x, [0, 1]);
    await expect(run).rejects.toThrow(`the sampler's step returned ${found}; expected the state`);
  });

  it("euler follows x ← x − v·(γ' − γ) and reports x₀ = x − (1 − γ)·v", async () => {
    const x0 = own(tensor([[1, 2]], { dtype: "float32" }));
    const gammas = [0, 0.3, 1];
    const seen: { gamma: number; x: number[]; denoised: number[] }[] = [];
    const result = own(
      await sample(euler, (x: Tensor, gamma) => ({ velocity: x.mul(gamma + 0.5), state: {} }), x0, gammas, {
        onStep: ({ gamma, x, denoised }: StepReport) =>
          void seen.push({ gamma, x: values(x), denoised: values(denoised) }),
      }),
    );
    const after1 = [1, 2].map((v) => v - v * 0.5 * 0.3);
    const after2 = after1.map((v) => v - v * 0.8 * 0.7);
    expect(seen.map((s) => s.gamma)).toEqual([0, 0.3]);
    for (const i of [0, 1]) {
      expect(seen[0]!.x[i]).toBeCloseTo(after1[i]!, 6);
      expect(seen[0]!.denoised[i]).toBeCloseTo([0.5, 1][i]!, 6);
      expect(seen[1]!.denoised[i]).toBeCloseTo(after1[i]! * (1 - 0.7 * 0.8), 6);
      expect(values(result)[i]).toBeCloseTo(after2[i]!, 6);
    }
    expect(values(x0)).toEqual([1, 2]);
  });

  it.each(NAMES)("%s turns noise into Gaussian data with the order it claims", async (name) => {
    const [mean, std] = [0.7, 0.5];
    const noise = [-2, -0.6, 0.3, 1.5];
    const start = own(tensor(noise));
    for (const shift of [1, 0.5]) {
      const errors = new Map<number, number>();
      for (const steps of manySteps(name)) {
        const x = own(
          await sample(
            samplerMethod(name),
            modelOf(gaussian(mean, std)),
            start,
            new LinearSchedule({ shift }).grid(steps),
            still(name),
          ),
        );
        errors.set(steps, Math.max(...values(x).map((value, i) => Math.abs(value - (mean + std * noise[i]!)))));
      }
      for (const steps of manySteps(name).slice(0, 2)) {
        const slope = order((n) => errors.get(n)!, steps);
        const claimed = samplerMethod(name).order;
        expect(slope).toBeGreaterThan(claimed === 1 ? 0.8 : name === "dpmpp_2m" ? 1.6 : 1.7);
        if (claimed === 1) expect(slope).toBeLessThan(1.3);
      }
    }
  });

  it.each(NAMES)("%s evaluates as often as it says, at the right γ, and hands the state on", async (name) => {
    const x = own(zeros([1, 4]));
    const before = memory.stats().liveTensors;
    const bytes = memory.stats().liveBytes;
    const seen: { count: number | null; gamma: number; at: string }[] = [];
    const model: VelocityModel<{ count: Tensor }> = (y, gamma, { step, fraction }, state) => {
      seen.push({ count: state && (state.count.item() as number), gamma, at: `${step}+${fraction}` });
      return { velocity: y.mul(0), state: { count: state ? state.count.add(1) : tensor(1) } };
    };
    const result = await sample(samplerMethod(name), model, x, [0, 0.25, 0.5, 1], { ...still(name), onStep: () => {} });
    expect(seen.map(({ count }) => count)).toEqual([null, ...Array.from({ length: seen.length - 1 }, (_, i) => i + 1)]);
    expect(seen).toHaveLength(evaluationsOf(name, 3));
    const [gammas, places] = {
      euler: [[0, 0.25, 0.5], "0+0 1+0 2+0"],
      ab2: [[0, 0.25, 0.5], "0+0 1+0 2+0"],
      midpoint: [[0, 0.125, 0.25, 0.375, 0.5, 0.75], "0+0 0+0.5 1+0 1+0.5 2+0 2+0.5"],
      heun: [[0, 0.25, 0.25, 0.5, 0.5], "0+0 0+1 1+0 1+1 2+0"],
      dpmpp_2m: [[0, 0.25, 0.5], "0+0 1+0 2+0"],
      euler_ancestral: [[0, 0.25, 0.5], "0+0 1+0 2+0"],
    }[name] as [number[], string];
    expect(seen.map(({ gamma }) => gamma)).toEqual(gammas);
    expect(seen.map(({ at }) => at).join(" ")).toBe(places);
    expect(memory.stats().liveTensors).toBe(before + 1);
    result.dispose();
    expect(memory.stats().liveBytes).toBe(bytes);
  });

  it.each(NAMES)("%s takes the most steps that a number of evaluations allows", (name) => {
    for (const evaluations of [2, 3, 10, 20, 41]) {
      const steps = stepsWithin(name, evaluations);
      expect(evaluationsOf(name, steps)).toBeLessThanOrEqual(evaluations);
      expect(evaluationsOf(name, steps + 1)).toBeGreaterThan(evaluations);
    }
  });

  it.each(NAMES)(
    "%s stops before the next step when the signal is aborted, and leaves nothing behind",
    async (name) => {
      const x = own(zeros([1, 4]));
      const before = memory.stats().liveTensors;
      const abort = new AbortController();
      const model = vi.fn((y: Tensor) => ({ velocity: y.mul(0), state: { z: y.add(1) } }));
      const run = sample(samplerMethod(name), model, x, new LinearSchedule().grid(50), {
        signal: abort.signal,
        onStep: ({ step }) => {
          if (step === 2) abort.abort(new Error("enough"));
        },
      });
      await expect(run).rejects.toThrow("enough");
      expect(model).toHaveBeenCalledTimes(name === "heun" || name === "midpoint" ? 6 : 3);
      expect(memory.stats().liveTensors).toBe(before);
    },
  );

  it.each(NAMES)("%s frees everything when the model or a callback fails", async (name) => {
    const x = own(zeros([1, 4]));
    const before = memory.stats().liveTensors;
    let calls = 0;
    const failing: VelocityModel<{ z: Tensor }> = (y) => {
      if (++calls === 4) throw new Error("broken model");
      return { velocity: y.add(1), state: { z: y.add(1) } };
    };
    await expect(sample(samplerMethod(name), failing, x, new LinearSchedule().grid(9))).rejects.toThrow("broken model");
    const onStep = async ({ step }: StepReport) => {
      if (step === 2) throw new Error("broken callback");
    };
    calls = 100;
    await expect(sample(samplerMethod(name), failing, x, new LinearSchedule().grid(9), { onStep })).rejects.toThrow(
      "broken callback",
    );
    expect(memory.stats().liveTensors).toBe(before);
  });

  it("lets timers run between steps", async () => {
    const x = own(zeros([1]));
    const ticks: number[] = [];
    const timer = setInterval(() => ticks.push(1), 0);
    const result = await sample(
      euler,
      (y: Tensor) => {
        const until = performance.now() + 5;
        while (performance.now() < until);
        return { velocity: y.mul(0), state: {} };
      },
      x,
      new LinearSchedule().grid(10),
    );
    clearInterval(timer);
    result.dispose();
    expect(ticks.length).toBeGreaterThanOrEqual(5);
  });
});

describe("dpmpp_2m", () => {
  it("is of second order where the signal-to-noise ratio stays finite", async () => {
    const [mean, std] = [0.7, 0.5];
    const deviation = (gamma: number) => Math.hypot(gamma * std, 1 - gamma);
    const noise = [-2, -0.6, 0.3, 1.5];
    const x = tensor(noise.map((n) => 0.1 * mean + deviation(0.1) * n));
    const errors = new Map<number, number>();
    for (const steps of [20, 40, 80]) {
      const gammas = Array.from({ length: steps + 1 }, (_, i) => Math.fround(0.1 + (0.8 * i) / steps));
      const result = await sample(samplerMethod("dpmpp_2m"), modelOf(gaussian(mean, std)), x, gammas);
      const exact = noise.map((n) => 0.9 * mean + deviation(0.9) * n);
      errors.set(steps, Math.max(...values(result).map((value, i) => Math.abs(value - exact[i]!))));
      result.dispose();
    }
    for (const steps of [20, 40]) expect(order((n) => errors.get(n)!, steps)).toBeCloseTo(2, 0);
    expect(order((n) => errors.get(n)!, 40)).toBeGreaterThan(1.9);
    x.dispose();
  });

  it("takes its first step, its last one and the one after a jump without looking back", async () => {
    // D = 1, 2, 3, … whatever x: the result tells which estimates each step has used.
    const model =
      (jumpAt: number): VelocityModel<object> =>
      (x, gamma, { step }) => ({
        velocity: x.sub(step + 1).div(1 - gamma),
        state: {},
        restart: step === jumpAt,
      });
    const gammas = [0.2, 0.4, 0.6, 0.8, 1];
    const x = tensor([0.5]);
    const seen: number[] = [];
    const run = async (jumpAt: number) => {
      seen.length = 0;
      const method = samplerMethod("dpmpp_2m");
      const result = await sample(method, model(jumpAt), x, gammas, {
        onStep: (at) => void seen.push(values(at.x)[0]!),
      });
      result.dispose();
      return [...seen];
    };
    const lambda = gammas.map((g) => Math.log(g / (1 - g)));
    const expected = (jumpAt: number) => {
      let y = 0.5;
      return [0, 1, 2, 3].map((i) => {
        const back = i > 0 && i < 3 && i !== jumpAt;
        const [before, now, next] = [lambda[i - 1]!, lambda[i]!, lambda[i + 1]!];
        const D = i + 1 + (back ? (next - now) / (2 * (now - before)) : 0);
        const h = next - now;
        y = i === 3 ? D : ((1 - gammas[i + 1]!) / (1 - gammas[i]!)) * y - gammas[i + 1]! * (Math.exp(-h) - 1) * D;
        return y;
      });
    };
    for (const jumpAt of [-1, 2]) {
      for (const [i, value] of (await run(jumpAt)).entries()) expect(value).toBeCloseTo(expected(jumpAt)[i]!, 5);
    }
    x.dispose();
  });
});

describe("euler_ancestral", () => {
  const [mean, std] = [0.7, 0.5];
  const method = samplerMethod("euler_ancestral");

  /**
   * Mean and variance of the state at each γ. With Gaussian data each step is affine in x and in its noise, so one run
   * of steps + 2 rows gives both: row 0 begins at 0 and gets no noise, row 1 begins at 1, and row i + 2 gets 1 in step
   * i.
   */
  async function moments(steps: number, eta: number): Promise<{ gamma: number; mean: number; variance: number }[]> {
    const gammas = new LinearSchedule().grid(steps);
    const x = tensor(Array.from({ length: steps + 2 }, (_, row) => (row === 1 ? 1 : 0)));
    const found: { gamma: number; mean: number; variance: number }[] = [];
    let step = 0;
    const result = await sample(method, modelOf(gaussian(mean, std)), x, gammas, {
      options: { eta },
      noise: () => tensor(Array.from({ length: steps + 2 }, (_, row) => (row === step + 2 ? 1 : 0))),
      onStep: (at) => {
        step = at.step + 1;
        const [base, ...rows] = values(at.x);
        const variance = rows.reduce((sum, row) => sum + (row - base!) ** 2, 0);
        found.push({ gamma: gammas[step]!, mean: base!, variance });
      },
    });
    x.dispose();
    result.dispose();
    return found;
  }

  it.each([0, 0.3, 1])("has the flow's mean and variance at every γ, η = %s", async (eta) => {
    const largest = async (steps: number) => {
      const errors = (await moments(steps, eta)).map(({ gamma, ...got }) =>
        Math.max(Math.abs(got.mean - gamma * mean), Math.abs(got.variance - ((gamma * std) ** 2 + (1 - gamma) ** 2))),
      );
      expect(errors).toHaveLength(steps);
      return Math.max(...errors);
    };
    const errors = new Map([
      [40, await largest(40)],
      [80, await largest(80)],
    ]);
    expect(errors.get(80)).toBeLessThan(0.025);
    expect(order((steps) => errors.get(steps)!, 40)).toBeGreaterThan(0.8);
  });

  it("adds as much noise as η says, and none to the data", async () => {
    const drawn = async (eta: number, gammas: ArrayLike<number> = new LinearSchedule().grid(10)) => {
      let count = 0;
      const x = tensor([1]);
      const result = await sample(method, modelOf(gaussian(mean, std)), x, gammas, {
        options: { eta },
        noise: () => {
          count++;
          return tensor([0.5]);
        },
      });
      x.dispose();
      result.dispose();
      return count;
    };
    expect([await drawn(0), await drawn(0.5), await drawn(1)]).toEqual([0, 9, 9]);
    expect(await drawn(0, [0.1, 0.3, 0.7, 1])).toBe(0); // where rounding alone leaves a variance above 0
  });

  it("is Euler's method at η = 0", async () => {
    const x = tensor([-2, -0.6, 0.3, 1.5]);
    const grid = new LinearSchedule().grid(7);
    const model = modelOf(gaussian(mean, std));
    const [a, b] = [await sample(method, model, x, grid, { options: { eta: 0 } }), await sample(euler, model, x, grid)];
    for (const [i, value] of values(a).entries()) expect(value).toBeCloseTo(values(b)[i]!, 5);
    for (const t of [x, a, b]) t.dispose();
  });

  it("refuses an eta that is no share", async () => {
    const x = tensor([0]);
    const run = sample(method, modelOf(gaussian(mean, std)), x, [0, 1], { options: { eta: 1.5 } });
    await expect(run).rejects.toThrow("eta: expected a number from 0 to 1, received 1.5");
    x.dispose();
  });
});
