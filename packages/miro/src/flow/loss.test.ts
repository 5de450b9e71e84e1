import { join } from "node:path";
import { Generator, ones, rand, randn, scope, type Tensor, zeros } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { clipGradNorm_, Lamb } from "@miro-t2i/torch/optim";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseRinConfig, type RinConfig } from "../networks/config.js";
import { FlowPrecond } from "../networks/precond.js";
import { Rin } from "../networks/rin.js";
import { loadCheckpoint } from "../pipeline/loading/checkpoint.js";
import { Ema } from "../training/loop/ema.js";
import { WarmupCosine } from "../training/loop/lr-schedule.js";
import { type Draw, FlowMatchingLoss, type LossBatch } from "./loss.js";
import { LinearSchedule } from "./schedule.js";

const fixture = join(import.meta.dirname, "../../../../tests/reference/fixtures/tiny");

const tinyConfig: RinConfig = parseRinConfig({
  data_size: 4,
  num_input_channels: 4,
  label_dim: 6,
  num_cond_tokens: 5,
  data_dim: 16,
  num_latents: 4,
  latents_dim: 16,
  num_processing_layers: 1,
  num_blocks: 1,
  patch_size: 2,
  read_write_heads: 2,
  compute_heads: 2,
  use_cond_rin_block: true,
  concat_cond_token_to_latents: false,
  use_self_conditioning: true,
  num_text_registers: 2,
  coherence_keys: ["clip_score", "sharpness"],
});

/** The published implementation's loss, LAMB, schedule, clipping and EMA over five steps, with its recorded random draws. */
describe.each(["train", "train_reweighted"])("recorded training steps: %s", (prefix) => {
  let recorded: Map<string, Tensor>;
  beforeAll(() => {
    recorded = readSafetensors(join(fixture, "reference.safetensors"));
  });
  afterAll(() => {
    for (const tensor of recorded.values()) tensor.dispose();
  });
  const values = (name: string): number[] => (recorded.get(name)!.flatten().toList() as number[]).slice();

  it("gives the same losses, gradient norms, weights and averages", () => {
    scope(() => {
      const { config, network: stored, preconditioning, uncondEmbedding } = loadCheckpoint(join(fixture, "checkpoint"));
      const network = new Rin(config.network, { nanRewardAsZeroInTraining: true });
      network.loadStateDict(stored.stateDict());
      network.train();
      preconditioning.requiresGrad_(true).train();
      const ema = new Ema(network, new Rin(config.network), { decay: 0.9 });
      const emaOfPrecond = new Ema(preconditioning, new FlowPrecond(config.preconditioning), { decay: 0.9 });

      const doGradnormReweighting = prefix === "train_reweighted";
      const loss = new FlowMatchingLoss({
        schedule: new LinearSchedule(),
        uncondEmbedding,
        selfCondRate: 0.9,
        condDropRate: 0.3,
        doGradnormReweighting,
      });
      const named = new Map([...network.namedParameters()].filter(([, p]) => p.requiresGrad));
      const plain = new Set([...named.values()].filter((p) => p.ndim < 2));
      if (doGradnormReweighting)
        for (const [name, p] of preconditioning.namedParameters("preconditioning")) named.set(name, p);
      const parameters = [...named.values()];
      const optimizer = new Lamb(
        [
          { params: parameters.filter((p) => !plain.has(p)), weightDecay: 0.01, layerAdaptation: true },
          { params: [...plain], weightDecay: 0, layerAdaptation: false },
        ],
        { lr: 1e-2, betas: [0.9, 0.999], eps: 1e-8, decouple: false },
      );
      const schedule = new WarmupCosine(optimizer, { warmupSteps: 3, totalSteps: 20 });

      for (let step = 0; step < 5; step++) {
        const at = (name: string) => recorded.get(`${prefix}.${step}.${name}`)!;
        const batch: LossBatch = {
          x0: at("in.x_0"),
          textEmbeddings: at("in.text_tokens_embeddings"),
          textMask: at("in.text_tokens_mask"),
          rewards: Object.fromEntries(config.coherenceKeys.map((key) => [key, at(`in.${key}_coherence`)])),
        };
        const draw: Draw = (purpose) =>
          at(
            `draw.${{ textDrop: "rand0", time: "normal0", noise: "randn0", keepLatents: "rand1", rewardDrop: "none" }[purpose]}`,
          );
        const { loss: value } = loss.call(preconditioning, network, batch, { draw });
        value.backward();
        const norm = clipGradNorm_(parameters, 0.5);
        expect(value.item() / at("loss").item()).toBeCloseTo(1, 5);
        expect(norm.item() / at("grad_norm").item()).toBeCloseTo(1, 5);
        schedule.apply(step + 1);
        const rates = at("lr").toList() as number[];
        optimizer.paramGroups.forEach((group, i) => {
          expect(group.lr).toBeCloseTo(rates[i]!, 8);
        });
        optimizer.step();
        optimizer.zeroGrad();
        ema.update();
        emaOfPrecond.update();
      }

      const averages = new Map([
        ...ema.module.namedParameters(),
        ...emaOfPrecond.module.namedParameters("preconditioning"),
      ]);
      for (const [kind, tensors] of [
        ["final", named],
        ["ema", averages],
      ] as const) {
        for (const name of named.keys()) {
          if (rounding(name)) continue;
          const expected = values(`${prefix}.${kind}.${name}`);
          const all = tensors.get(name)!.detach().flatten().toList() as number[];
          const stride = Math.ceil(all.length / expected.length);
          const got = all.filter((_, i) => i % stride === 0);
          expect(got.length, name).toBe(expected.length);
          expect(relativeError(got, expected), `${kind} ${name}`).toBeLessThan(1e-5);
        }
      }
    });
  });
});

/** Parameters whose gradient is zero in theory: what is recorded there is rounding noise that Adam scales up. */
function rounding(name: string): boolean {
  return name.endsWith("k_norm.bias") || name.endsWith("qkv.bias");
}

function relativeError(a: number[], b: number[]): number {
  const difference = Math.hypot(...a.map((x, i) => x - b[i]!));
  return difference / Math.max(Math.hypot(...b), 1e-12);
}

describe("FlowMatchingLoss", () => {
  const B = 3;
  const make = (options: Partial<ConstructorParameters<typeof FlowMatchingLoss>[0]> = {}) =>
    new FlowMatchingLoss({ schedule: new LinearSchedule(), uncondEmbedding: ones([1, 6]).keep(), ...options });
  const batchOf = (generator = new Generator().manualSeed(5)): LossBatch => ({
    x0: randn([B, 4, 4, 4], { generator }),
    textEmbeddings: randn([B, 5, 6], { generator }),
    textMask: ones([B, 5], { dtype: "bool" }),
    rewards: { clip_score: rand([B], { generator }), sharpness: rand([B], { generator }) },
  });
  /** A network that records what it is asked for. */
  function spy() {
    const seen: { input: any; conditioned: any[] } = { input: null, conditioned: [] };
    const network = {
      config: { ...tinyConfig, useSelfConditioning: false },
      condition: (input: unknown) => {
        seen.conditioned.push(input);
        return { tokens: null, keyValues: [], mask: null };
      },
      forward: (input: { y: Tensor }) => {
        seen.input = input;
        return { F: input.y.mul(0), z: zeros([B, 4, 16]) };
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
      const noise = randn([B, 4, 4, 4], { generator: new Generator().manualSeed(9) });
      const draw: Draw = (purpose, _kind, shape) => (purpose === "noise" ? noise : zeros(shape)); // t = sigmoid(1.5) with mean 1.5
      const { rawLoss } = make({ logitNormal: { mean: 1.5, std: 2 } }).call(precond, network, batch, { draw });
      const gamma = 1 - 1 / (1 + Math.exp(-1.5));
      expect(seen.input.gamma.toList()).toEqual(Array(B).fill(expect.closeTo(gamma, 6)));
      const expected = batch.x0.mul(gamma).add(noise.mul(1 - gamma));
      expect(seen.input.y.sub(expected).abs().max().item()).toBeLessThan(1e-6);
      expect(rawLoss.item()).toBeCloseTo(noise.sub(batch.x0).square().mean().item(), 5);
    });
  });

  it("drops text and rewards by the draw, leaves the batch alone", () => {
    scope(() => {
      const { network, seen } = spy();
      const batch = batchOf();
      const before = JSON.stringify([
        batch.textEmbeddings.toList(),
        batch.textMask.toList(),
        batch.rewards.clip_score!.toList(),
      ]);
      const uncondEmbedding = ones([2, 6]).mul(7);
      const draw: Draw = (purpose, _kind, shape) => (purpose === "textDrop" ? rows(0.05, 0.2, 0.9) : zeros(shape));
      make({ condDropRate: 0.1, textDropRate: 0.2, uncondEmbedding }).call(precond, network, batch, { draw });
      const [input] = seen.conditioned;
      expect(input.textMask.toList().map((row: unknown[]) => row.map(Number))).toEqual([
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1],
      ]);
      expect(input.textEmbeddings.select(0, 0).narrow(0, 0, 2).eq(7).all().item()).toBeTruthy();
      expect(input.textEmbeddings.select(0, 2).eq(batch.textEmbeddings.select(0, 2)).all().item()).toBeTruthy();
      const rewards = input.rewards.sharpness.toList();
      expect(rewards[0]).toBeNaN();
      expect(rewards.slice(1)).toEqual((batch.rewards.sharpness!.toList() as number[]).slice(1));
      expect(
        JSON.stringify([batch.textEmbeddings.toList(), batch.textMask.toList(), batch.rewards.clip_score!.toList()]),
      ).toBe(before);
    });
  });

  it("drops single rewards", () => {
    scope(() => {
      const { network, seen } = spy();
      const draw: Draw = (purpose, _kind, shape) => {
        const u = ones(shape);
        if (purpose === "rewardDrop") u.narrow(0, 1, 1).narrow(1, 0, 1).zero_();
        return u;
      };
      make({ rewardDropRate: 0.5 }).call(precond, network, batchOf(), { draw });
      const known = Object.values(seen.conditioned[0].rewards).map((r: any) =>
        (r.toList() as number[]).map(Number.isFinite),
      );
      expect(known).toEqual([
        [true, false, true],
        [true, true, true],
      ]);
    });
  });

  it("computes the conditioning once and keeps the first pass out of the graph", () => {
    scope(() => {
      const network = new Rin(tinyConfig);
      const preconditioning = new FlowPrecond({ numLatents: 4, latentsDim: 16 });
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
    expect(() => make({ uncondEmbedding: ones([6]) })).toThrow(/uncondEmbedding/);
  });
});

function rows(...values: number[]): Tensor {
  const out = zeros([values.length]);
  values.forEach((value, i) => void out.narrow(0, i, 1).fill_(value));
  return out;
}
