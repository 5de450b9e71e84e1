import { randn, scope, type Tensor, tensor, zeros } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { type BranchState, combine, type Guidance, guidanceWeight, guidedSteps, guidedVelocity } from "./guidance.js";
import { euler, heun, midpoint, samplerMethod, samplerNames } from "./samplers/index.js";
import { sample, type VelocityModel } from "./sampling.js";
import { LinearSchedule } from "./schedule.js";
import { gaussian, manySteps, order, rungeKutta4, values } from "./testing/closed-forms.js";

const constant: Guidance = { scale: 2, type: "constant", start: 0, end: null };
const secondOrder = samplerNames().filter((name) => samplerMethod(name).order === 2);

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
   * A network with memory whose answer can be followed by hand. Rows of the conditional branch get conditioning 1, of
   * the other −1; latents: z' = z + c; velocity: c + z.
   */
  async function run(guidance: Guidance, steps = 4) {
    const calls: { rows: number; previous: number[] | null }[] = [];
    const model = guidedVelocity<number[]>({
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
    const result = await sample<BranchState>(euler, model, x, new LinearSchedule().grid(steps));
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
    const model = guidedVelocity<number[]>({
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
    const spy: VelocityModel<BranchState> = (...evaluation) => {
      const result = model(...evaluation);
      weights.push(values(result.velocity)[0]! - 1);
      return result;
    };
    const x = zeros([1, 1]);
    for (const method of [heun, midpoint]) (await sample(method, spy, x, [0, 0.25, 0.5, 0.75, 1])).dispose();
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
    for (const name of secondOrder) {
      const error = new Map<number, number>();
      const [few, twice] = manySteps(name);
      for (const steps of [few, twice]) {
        const guidance: Guidance = {
          scale,
          type,
          start: "from" in window ? window.from * steps : 0,
          end: "from" in window ? window.to * steps - 1 : null,
        };
        const model = guidedVelocity<"both" | "conditional">({
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
        const result = await sample<BranchState>(samplerMethod(name), model, x, new LinearSchedule().grid(steps));
        error.set(steps, Math.max(...values(result).map((value, i) => Math.abs(value - expected[i]!))));
        result.dispose();
      }
      expect(
        order((n) => error.get(n)!, few),
        name,
      ).toBeGreaterThan(1.6);
    }
    x.dispose();
  });

  it("says at which steps the velocity jumps: where guidance begins or ends, never at the first", () => {
    const jumpsOf = (guidance: Guidance) =>
      scope(() => {
        const predict = (y: Tensor) => ({ D: y, z: null });
        const model = guidedVelocity<null>({ guidance, both: null, conditional: null, predict });
        const at = (step: number) => model(zeros([1, 1]), 0.5, { step, steps: 5, fraction: 0 }, null);
        return [0, 1, 2, 3, 4].filter((step) => at(step).restart);
      });
    expect(jumpsOf(constant)).toEqual([]);
    expect(jumpsOf({ ...constant, start: 1, end: 2 })).toEqual([1, 3]);
    expect(jumpsOf({ ...constant, end: 2 })).toEqual([3]);
    // It begins at 0, without a jump.
    expect(jumpsOf({ ...constant, type: "linear", end: 2 })).toEqual([3]);
  });

  it("leaves the batch's rows in order, conditional half first", async () => {
    const x = randn([3, 2]);
    const model = guidedVelocity<null>({
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
    const result = await sample<BranchState>(euler, model, x, [0, 1]);
    for (const value of values(result)) expect(value).toBeCloseTo(0, 5);
    x.dispose();
    result.dispose();
  });
});
