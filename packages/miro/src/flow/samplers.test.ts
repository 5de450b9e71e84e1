import { memory, randn, scope, type Tensor, tensor, zeros } from "@miro-t2i/torch";
import { afterEach, describe, expect, it, vi } from "vitest";
import { type BranchState, combine, type Guidance, guidanceWeight, guidedDenoise, guidedSteps } from "./guidance.js";
import {
  type Denoise,
  euler,
  evaluationsOf,
  heun,
  midpoint,
  SAMPLERS,
  type SamplerName,
  type StepReport,
  stepsWithin,
} from "./samplers.js";
import { LinearSchedule } from "./schedule.js";

const none = {};
const constant: Guidance = { scale: 2, type: "constant", start: 0, end: null };
const values = (t: Tensor) => t.flatten().toList() as number[];

const NAMES = Object.keys(SAMPLERS) as SamplerName[];
const SECOND_ORDER = NAMES.filter((name) => name !== "euler");

/**
 * The velocity E[n − x₀ | y] of one-dimensional Gaussian data N(mean, std²), of which everything is known: with
 * V(γ) = γ²·std² + (1 − γ)², noise n ends at mean + std·n.
 */
const gaussian = (mean: number, std: number) => (y: number, gamma: number) =>
  ((1 - gamma - gamma * std ** 2) * (y - gamma * mean)) / ((gamma * std) ** 2 + (1 - gamma) ** 2) - mean;

/** A field of numbers as a model. */
const modelOf =
  (velocity: (y: number, gamma: number) => number): Denoise<object> =>
  (x, gamma) => ({ velocity: tensor(values(x).map((y) => velocity(y, gamma))).view(x.shape), state: none });

/** The classical Runge-Kutta method in double precision, from γ = 0 to 1: an independent solution of the same equation. */
function rungeKutta4(velocity: (y: number, gamma: number) => number, y: number, steps: number): number {
  const h = 1 / steps;
  for (let i = 0; i < steps; i++) {
    const gamma = i / steps;
    // The far end belongs to this step: a window that begins there has not begun yet.
    const end = gamma + h * (1 - 1e-9);
    const k1 = -velocity(y, gamma);
    const k2 = -velocity(y + (h / 2) * k1, gamma + h / 2);
    const k3 = -velocity(y + (h / 2) * k2, gamma + h / 2);
    const k4 = -velocity(y + h * k3, end);
    y += (h / 6) * (k1 + 2 * k2 + 2 * k3 + k4);
  }
  return y;
}

/** The slope of log error over log steps between two numbers of steps. */
const order = (error: (steps: number) => number, steps: number) => Math.log2(error(steps) / error(2 * steps));

describe("samplers", () => {
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
      const denoise: Denoise<object> = () => ({ velocity: noise.sub(data), state: none });
      for (const steps of [1, 3, 10]) {
        const x = own(await SAMPLERS[name](denoise, noise, new LinearSchedule({ shift: 0.5 }).grid(steps)));
        for (const [i, value] of values(x).entries()) expect(value).toBeCloseTo([1, -2, 3][i]!, 5);
      }
    },
  );

  it("euler follows x ← x − v·(γ' − γ) and reports x₀ = x − (1 − γ)·v", async () => {
    const x0 = own(tensor([[1, 2]], { dtype: "float32" }));
    const gammas = [0, 0.3, 1];
    const seen: { gamma: number; x: number[]; denoised: number[] }[] = [];
    const result = own(
      await euler((x: Tensor, gamma) => ({ velocity: x.mul(gamma + 0.5), state: none }), x0, gammas, {
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
      for (const steps of [20, 40, 80]) {
        const x = own(
          await SAMPLERS[name](modelOf(gaussian(mean, std)), start, new LinearSchedule({ shift }).grid(steps)),
        );
        errors.set(steps, Math.max(...values(x).map((value, i) => Math.abs(value - (mean + std * noise[i]!)))));
      }
      for (const steps of [20, 40]) {
        const slope = order((n) => errors.get(n)!, steps);
        expect(slope).toBeGreaterThan(name === "euler" ? 0.8 : 1.7);
        if (name === "euler") expect(slope).toBeLessThan(1.3);
      }
    }
  });

  it.each(NAMES)("%s evaluates as often as it says, at the right γ, and hands the state on", async (name) => {
    const x = own(zeros([1, 4]));
    const before = memory.stats().liveTensors;
    const bytes = memory.stats().liveBytes;
    const seen: { count: number | null; gamma: number; at: string }[] = [];
    const denoise: Denoise<{ count: Tensor }> = (y, gamma, { step, fraction }, state) => {
      seen.push({ count: state && (state.count.item() as number), gamma, at: `${step}+${fraction}` });
      return { velocity: y.mul(0), state: { count: state ? state.count.add(1) : tensor(1) } };
    };
    const result = await SAMPLERS[name](denoise, x, [0, 0.25, 0.5, 1], { onStep: () => {} });
    expect(seen.map(({ count }) => count)).toEqual([null, ...Array.from({ length: seen.length - 1 }, (_, i) => i + 1)]);
    expect(seen).toHaveLength(evaluationsOf(name, 3));
    const [gammas, places] = {
      euler: [[0, 0.25, 0.5], "0+0 1+0 2+0"],
      ab2: [[0, 0.25, 0.5], "0+0 1+0 2+0"],
      midpoint: [[0, 0.125, 0.25, 0.375, 0.5, 0.75], "0+0 0+0.5 1+0 1+0.5 2+0 2+0.5"],
      heun: [[0, 0.25, 0.25, 0.5, 0.5], "0+0 0+1 1+0 1+1 2+0"],
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
      const denoise = vi.fn((y: Tensor) => ({ velocity: y.mul(0), state: { z: y.add(1) } }));
      const run = SAMPLERS[name](denoise, x, new LinearSchedule().grid(50), {
        signal: abort.signal,
        onStep: ({ step }) => {
          if (step === 2) abort.abort(new Error("enough"));
        },
      });
      await expect(run).rejects.toThrow("enough");
      expect(denoise).toHaveBeenCalledTimes(name === "heun" || name === "midpoint" ? 6 : 3);
      expect(memory.stats().liveTensors).toBe(before);
    },
  );

  it.each(NAMES)("%s frees everything when the model or a callback fails", async (name) => {
    const x = own(zeros([1, 4]));
    const before = memory.stats().liveTensors;
    let calls = 0;
    const failing: Denoise<{ z: Tensor }> = (y) => {
      if (++calls === 4) throw new Error("broken model");
      return { velocity: y.add(1), state: { z: y.add(1) } };
    };
    await expect(SAMPLERS[name](failing, x, new LinearSchedule().grid(9))).rejects.toThrow("broken model");
    const onStep = async ({ step }: StepReport) => {
      if (step === 2) throw new Error("broken callback");
    };
    calls = 100;
    await expect(SAMPLERS[name](failing, x, new LinearSchedule().grid(9), { onStep })).rejects.toThrow(
      "broken callback",
    );
    expect(memory.stats().liveTensors).toBe(before);
  });

  it("lets timers run between steps", async () => {
    const x = own(zeros([1]));
    const ticks: number[] = [];
    const timer = setInterval(() => ticks.push(1), 0);
    const result = await euler(
      (y: Tensor) => {
        const until = performance.now() + 5;
        while (performance.now() < until);
        return { velocity: y.mul(0), state: none };
      },
      x,
      new LinearSchedule().grid(10),
    );
    clearInterval(timer);
    result.dispose();
    expect(ticks.length).toBeGreaterThanOrEqual(5);
  });
});

describe("guidance", () => {
  it("is (1 + w)·cond − w·uncond", () => {
    const [a, b] = [tensor([1, 2]), tensor([3, 5])];
    expect(scope(() => combine(a, b, 2).toList())).toEqual([-3, -4]);
    expect(scope(() => combine(a, b, 0).toList())).toEqual([1, 2]);
    a.dispose();
    b.dispose();
  });

  it("is off at w ≤ 0 and outside an inclusive window; linear guidance has mean w·(S − 1)/S", () => {
    const at = (guidance: Guidance, steps = 5) =>
      Array.from({ length: steps }, (_, i) => guidanceWeight(guidance, i, steps));
    expect(at(constant)).toEqual([2, 2, 2, 2, 2]);
    expect(at({ ...constant, scale: 0 })).toEqual([0, 0, 0, 0, 0]);
    expect(at({ ...constant, scale: -3 })).toEqual([0, 0, 0, 0, 0]);
    expect(at({ ...constant, start: 1, end: 3 })).toEqual([0, 2, 2, 2, 0]);
    expect(at({ ...constant, type: "linear" })).toEqual([0, 0.8, 1.6, 2.4, 3.2].map((w) => expect.closeTo(w, 10)));
    expect(guidedSteps({ ...constant, start: 9 }, 5)).toEqual({ any: false, all: false });
    expect(guidedSteps({ ...constant, type: "linear" }, 5)).toEqual({ any: true, all: false });
    expect(guidedSteps(constant, 5)).toEqual({ any: true, all: true });
  });

  /**
   * A network with memory whose answer can be followed by hand. Rows of the conditional branch get conditioning 1, of the
   * other −1; latents: z' = z + c; velocity: c + z.
   */
  async function run(guidance: Guidance, steps = 4) {
    const calls: { rows: number; previous: number[] | null }[] = [];
    const denoise = guidedDenoise<number[]>({
      guidance,
      both: [1, -1],
      conditional: [1],
      predict: (y, gamma, conditioning, previous) => {
        expect(gamma.shape).toEqual([conditioning.length]);
        calls.push({ rows: y.shape[0]!, previous: previous && (previous.flatten().toList() as number[]) });
        const c = tensor(conditioning, { dtype: "float32" }).unsqueeze(1);
        const z = previous ?? zeros([conditioning.length, 1]);
        return { D: z.add(c).expand(conditioning.length, y.shape[1]!), z: z.add(c) };
      },
    });
    const x = zeros([1, 2]);
    const result = await euler<BranchState>(denoise, x, new LinearSchedule().grid(steps));
    x.dispose();
    const value = (result.toList() as number[][])[0]![0]!;
    result.dispose();
    return { calls, value };
  }

  it("gives each branch its own latents", async () => {
    const { calls, value } = await run(constant);
    expect(calls).toEqual([
      { rows: 2, previous: null },
      { rows: 2, previous: [1, -1] },
      { rows: 2, previous: [2, -2] },
      { rows: 2, previous: [3, -3] },
    ]);
    // v̂ = 3·z⁺ − 2·z⁻ with z = ±1, ±2, ±3, ±4, each over a quarter of γ
    expect(value).toBeCloseTo(-(5 + 10 + 15 + 20) / 4, 5);
  });

  it("copies the conditional latents on entering the window and keeps them on leaving", async () => {
    const { calls } = await run({ ...constant, start: 1, end: 2 });
    expect(calls).toEqual([
      { rows: 1, previous: null },
      { rows: 2, previous: [1, 1] },
      { rows: 2, previous: [2, 0] },
      { rows: 1, previous: [3] },
    ]);
  });

  it("runs linear guidance, whose first step is unguided", async () => {
    const { calls } = await run({ ...constant, type: "linear" });
    expect(calls.map((call) => call.rows)).toEqual([1, 2, 2, 2]);
  });

  it("runs the conditional branch alone at w = 0", async () => {
    const { calls, value } = await run({ ...constant, scale: 0 });
    expect(calls.map((call) => call.rows)).toEqual([1, 1, 1, 1]);
    expect(value).toBeCloseTo(-(1 + 2 + 3 + 4) / 4, 5);
  });

  it("gives the second evaluation of a step the weight and the latents of its place", async () => {
    const weights: number[] = [];
    const seen: { rows: number; previous: number[] | null }[] = [];
    const guidance: Guidance = { scale: 2, type: "linear", start: 0, end: 2 };
    const denoise = guidedDenoise<number[]>({
      guidance,
      both: [1, -1],
      conditional: [1],
      predict: (y, _gamma, conditioning, previous) => {
        seen.push({ rows: y.size(0), previous: previous && values(previous) });
        const z = (previous ?? zeros([y.size(0), 1])).add(1);
        // cond − uncond = 1, so that v̂ is 1 + w
        return { D: tensor(conditioning).clamp(0, null).unsqueeze(1).expand(y.size(0), 1), z };
      },
    });
    const spy: Denoise<BranchState> = (...evaluation) => {
      const result = denoise(...evaluation);
      weights.push(values(result.velocity)[0]! - 1);
      return result;
    };
    const x = zeros([1, 1]);
    for (const sampler of [heun, midpoint]) (await sampler(spy, x, [0, 0.25, 0.5, 0.75, 1])).dispose();
    x.dispose();
    // 4·(step + fraction)/4 inside the window, which ends with step 2; Heun's last step is a single evaluation
    expect(weights.slice(0, 7)).toEqual([0, 1, 1, 2, 2, 3, 0]);
    expect(weights.slice(7)).toEqual([0, 0.5, 1, 1.5, 2, 2.5, 0, 0]);
    expect(seen.slice(0, 7)).toEqual([
      { rows: 1, previous: null },
      { rows: 2, previous: [1, 1] },
      { rows: 2, previous: [2, 2] },
      { rows: 2, previous: [3, 3] },
      { rows: 2, previous: [4, 4] },
      { rows: 2, previous: [5, 5] },
      { rows: 1, previous: [6] },
    ]);
  });

  it.each([
    ["constant", {}],
    ["linear", {}],
    ["constant", { from: 0.25, to: 0.75 }],
    ["linear", { from: 0.25, to: 0.75 }],
  ] as const)("keeps the second order under %s guidance, window %o", async (type, window) => {
    const [conditional, unconditional] = [gaussian(0.7, 0.5), gaussian(-0.2, 0.9)];
    const scale = 1.5;
    const guided = (gamma: number) => !("from" in window) || (gamma >= window.from && gamma < window.to);
    const weight = (gamma: number) => (guided(gamma) ? (type === "linear" ? 2 * scale * gamma : scale) : 0);
    const field = (y: number, gamma: number) =>
      (1 + weight(gamma)) * conditional(y, gamma) - weight(gamma) * unconditional(y, gamma);
    const noise = [-1.5, 0.4, 1.1];
    const expected = noise.map((y) => rungeKutta4(field, y, 4000));
    const x = tensor(noise).unsqueeze(1);
    for (const name of SECOND_ORDER) {
      const error = new Map<number, number>();
      for (const steps of [20, 40]) {
        const guidance: Guidance = {
          scale,
          type,
          start: "from" in window ? window.from * steps : 0,
          end: "from" in window ? window.to * steps - 1 : null,
        };
        const denoise = guidedDenoise<"both" | "conditional">({
          guidance,
          both: "both",
          conditional: "conditional",
          predict: (y, gammas, branches) => {
            const gamma = values(gammas)[0]!;
            const rows = values(y).map((value, i) =>
              (branches === "both" && i >= noise.length ? unconditional : conditional)(value, gamma),
            );
            return { D: tensor(rows).unsqueeze(1), z: null };
          },
        });
        const result = await SAMPLERS[name]<BranchState>(denoise, x, new LinearSchedule().grid(steps));
        error.set(steps, Math.max(...values(result).map((value, i) => Math.abs(value - expected[i]!))));
        result.dispose();
      }
      expect(
        order((n) => error.get(n)!, 20),
        name,
      ).toBeGreaterThan(1.6);
    }
    x.dispose();
  });

  it("leaves the batch's rows in order, conditional half first", async () => {
    const x = randn([3, 2]);
    const denoise = guidedDenoise<null>({
      guidance: constant,
      both: null,
      conditional: null,
      predict: (y) => {
        expect(y.shape).toEqual([6, 2]);
        const rows = y.toList() as number[][];
        expect(rows.slice(0, 3)).toEqual(rows.slice(3));
        return { D: y, z: null };
      },
    });
    // cond = uncond = y, so v̂ = y and one full step takes x to 0
    const result = await euler<BranchState>(denoise, x, [0, 1]);
    for (const value of values(result)) expect(value).toBeCloseTo(0, 5);
    x.dispose();
    result.dispose();
  });
});
