import { memory, randn, scope, type Tensor, tensor, zeros } from "@miro-t2i/torch";
import { afterEach, describe, expect, it, vi } from "vitest";
import { type BranchState, combine, type Guidance, guidanceWeight, guidedDenoise, guidedSteps } from "./guidance.js";
import { type Denoise, euler, type StepReport } from "./samplers.js";
import { LinearSchedule } from "./schedule.js";

const none = {};
const constant: Guidance = { scale: 2, type: "constant", start: 0, end: null };
const values = (t: Tensor) => t.flatten().toList() as number[];

describe("euler", () => {
  const live: Tensor[] = [];
  const own = (t: Tensor): Tensor => {
    live.push(t);
    return t;
  };
  afterEach(() => {
    for (const t of live.splice(0)) t.dispose();
  });

  it("is exact on the straight paths of a single data point, whatever the number of steps", async () => {
    const data = own(tensor([[1, -2, 3]], { dtype: "float32" }));
    const noise = own(tensor([[0.5, 0.25, -1]], { dtype: "float32" }));
    // v = n − x₀ is constant along y = γ·x₀ + (1 − γ)·n
    const denoise: Denoise<object> = () => ({ velocity: noise.sub(data), state: none });
    for (const steps of [1, 3, 10]) {
      const x = own(await euler(denoise, noise, new LinearSchedule().grid(steps)));
      for (const [i, value] of values(x).entries()) expect(value).toBeCloseTo([1, -2, 3][i]!, 5);
    }
  });

  it("follows x ← x − v·(γ' − γ) and reports x₀ = x − (1 − γ)·v", async () => {
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

  it("hands the state from step to step and frees every tensor but the result", async () => {
    const x = own(zeros([1, 4]));
    const before = memory.stats().liveTensors;
    const seen: (number | null)[] = [];
    const denoise: Denoise<{ count: Tensor }> = (y, _gamma, _at, state) => {
      seen.push(state && (state.count.item() as number));
      return { velocity: y.mul(0), state: { count: state ? state.count.add(1) : tensor(1) } };
    };
    const result = await euler(denoise, x, [0, 0.25, 0.5, 1], { onStep: () => {} });
    expect(seen).toEqual([null, 1, 2]);
    expect(memory.stats().liveTensors).toBe(before + 1);
    result.dispose();
  });

  it("stops before the next step when the signal is aborted, and leaves nothing behind", async () => {
    const x = own(zeros([1, 4]));
    const before = memory.stats().liveTensors;
    const abort = new AbortController();
    const denoise = vi.fn((y: Tensor) => ({ velocity: y.mul(0), state: { z: y.add(1) } }));
    const run = euler(denoise, x, new LinearSchedule().grid(50), {
      signal: abort.signal,
      onStep: ({ step }) => {
        if (step === 2) abort.abort(new Error("enough"));
      },
    });
    await expect(run).rejects.toThrow("enough");
    expect(denoise).toHaveBeenCalledTimes(3);
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
