import { Generator, ones, rand, randn, scope, type Tensor, tensor, zeros } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { FlowPrecond } from "../networks/precond.js";
import { Rin } from "../networks/rin.js";
import { tinyConfig } from "../networks/testing/tiny-config.js";
import { type Draw, drawFrom, FlowMatchingLoss, type LossBatch } from "./loss.js";
import { LinearSchedule } from "./schedule.js";

const config = tinyConfig({ num_blocks: 1, coherence_keys: ["clip_score", "vqa_score"] });

it("draws from a generator what PyTorch does: standard normal, or uniform on [0, 1)", () => {
  scope(() => {
    const draw = drawFrom(new Generator().manualSeed(3));
    const generator = new Generator().manualSeed(3);
    expect(draw("noise", "normal", [50]).toList()).toEqual(randn([50], { generator }).toList());
    expect(draw("time", "uniform", [50]).toList()).toEqual(rand([50], { generator }).toList());
  });
});

describe("FlowMatchingLoss", () => {
  const B = 3;
  const make = (options: Partial<ConstructorParameters<typeof FlowMatchingLoss>[0]> = {}) =>
    new FlowMatchingLoss({ schedule: new LinearSchedule(), uncondEmbedding: ones([1, 24]).keep(), ...options });
  const batchOf = (generator = new Generator().manualSeed(5)): LossBatch => ({
    x0: randn([B, 4, 8, 8], { generator }),
    textEmbeddings: randn([B, 5, 24], { generator }),
    textMask: ones([B, 5], { dtype: "bool" }),
    rewards: { clip_score: rand([B], { generator }), vqa_score: rand([B], { generator }) },
  });
  /** A network that records what it is asked for. */
  function spy() {
    const seen: { input: any; conditioned: any[] } = { input: null, conditioned: [] };
    const network = {
      config: { ...config, useSelfConditioning: false },
      condition: (input: unknown) => {
        seen.conditioned.push(input);
        return { tokens: null, keyValues: [], mask: null };
      },
      forward: (input: { y: Tensor }) => {
        seen.input = input;
        return { F: input.y.mul(0), z: zeros([B, 12, 64]) };
      },
    } as unknown as Rin;
    return { network, seen };
  }
  const precond = {
    apply: (network: Rin, batch: any) => ({ D: network.forward(batch).F, z: zeros([1]) }),
  } as unknown as FlowPrecond;

  it("builds y = γx₀ + (1 − γ)n and compares with n − x₀", () => {
    scope(() => {
      const { network, seen } = spy();
      const batch = batchOf();
      const noise = randn([B, 4, 8, 8], { generator: new Generator().manualSeed(9) });
      // t = sigmoid(1.5) with mean 1.5
      const draw: Draw = (purpose, _kind, shape) => (purpose === "noise" ? noise : zeros(shape));
      const { rawLoss } = make({ logitNormal: { mean: 1.5, std: 2 } }).call(precond, network, batch, { draw });
      const gamma = 1 - 1 / (1 + Math.exp(-1.5));
      expect(seen.input.gamma.toList()).toEqual(Array(B).fill(expect.closeTo(gamma, 6)));
      const expected = batch.x0.mul(gamma).add(noise.mul(1 - gamma));
      expect(seen.input.y.sub(expected).abs().max().item()).toBeLessThan(1e-6);
      expect(rawLoss.item()).toBeCloseTo(noise.sub(batch.x0).square().mean().item(), 5);
    });
  });

  it("keeps the latents of the first pass where the draw is above 1 − selfCondRate, and has zeros elsewhere", () => {
    scope(() => {
      const { network } = spy();
      const previous: (Tensor | null)[] = [];
      const passes = {
        apply: (_: Rin, { y, previousLatents }: { y: Tensor; previousLatents: Tensor | null }) => {
          previous.push(previousLatents);
          return { D: y, z: ones([B, 2, 1]) };
        },
      } as unknown as FlowPrecond;
      const selfConditioning = { ...network, config: { ...config, useSelfConditioning: true } } as unknown as Rin;
      const draw: Draw = (purpose, _kind, shape) =>
        purpose === "keepLatents" ? tensor([0.1, 0.3, 0.9]).view(...shape) : zeros(shape);
      make({ selfCondRate: 0.8 }).call(passes, selfConditioning, batchOf(), { draw });
      expect(previous[0]).toBeNull();
      expect(previous[1]!.flatten().toList()).toEqual([0, 0, 1, 1, 1, 1]);
      make({ selfCondRate: 0 }).call(passes, selfConditioning, batchOf(), { draw });
      expect(previous.slice(2)).toEqual([null]);
    });
  });

  it("computes the conditioning once and keeps the first pass out of the graph", () => {
    scope(() => {
      const network = new Rin(config);
      const preconditioning = new FlowPrecond({ numLatents: 12, latentsDim: 64 });
      let passes = 0;
      let conditionings = 0;
      const condition = network.condition.bind(network);
      const forward = network.forward.bind(network);
      network.condition = (input) => {
        conditionings++;
        return condition(input);
      };
      network.forward = (input) => {
        const output = forward(input);
        expect(output.z.requiresGrad).toBe(passes++ === 1);
        return output;
      };
      const generator = new Generator().manualSeed(1);
      make({ selfCondRate: 0.9 }).call(preconditioning, network, batchOf(), { generator }).loss.backward();
      expect([passes, conditionings]).toEqual([2, 1]);
      expect(network.textRegisters.grad!.abs().max().item()).toBeGreaterThan(0);
    });
  });

  it("refuses impossible options", () => {
    expect(() => make({ condDropRate: 1.5 })).toThrow(/condDropRate: expected a probability/);
    expect(() => make({ condDropRate: 0.6, textDropRate: 0.5 })).toThrow(/textDropRate: expected at most 1 together/);
    expect(() => make({ uncondEmbedding: ones([24]) })).toThrow(/uncondEmbedding/);
    expect(() => make({ uncondEmbedding: undefined as never })).toThrow(/options with schedule and uncondEmbedding/);
  });
});
