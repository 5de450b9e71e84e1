import {
  autocast,
  manualSeed,
  memory,
  nn,
  noGrad,
  ones,
  rand,
  randn,
  scope,
  type Tensor,
  tensor,
  zeros,
} from "@miro-t2i/torch";
import { beforeEach, describe, expect, it } from "vitest";
import { type ConditioningInput, narrowConditioning } from "./conditioning.js";
import { parseRinConfig, REWARD_KEYS } from "./config.js";
import { Rin } from "./rin.js";
import type { NoisyPicture } from "./rin-input.js";
import { PUBLISHED_NETWORK, TINY_NETWORK, tinyConfig } from "./testing/tiny-config.js";

const KEYS = TINY_NETWORK.coherence_keys;

type Batch = NoisyPicture & ConditioningInput;

/** A network whose every weight acts: no constant is left at its initial value. */
function network(changes: Record<string, unknown> = {}, options = {}): Rin {
  const rin = new Rin(tinyConfig(changes), options);
  noGrad(() => {
    for (const [name, p] of rin.namedParameters())
      if (p.ndim < 2 || name.includes("previous")) p.add_(randn(p.shape).mul(0.2));
  });
  return rin.eval() as Rin;
}

function batch(B: number, T: number, lengths: number[] = []): Batch {
  const mask = ones([B, T], { dtype: "bool" });
  for (const [i, length] of lengths.entries())
    mask
      .select(0, i)
      .narrow(0, length, T - length)
      .fill_(false);
  return {
    y: randn([B, 4, 8, 8]),
    gamma: rand([B]),
    textEmbeddings: randn([B, T, 24]),
    textMask: mask,
    rewards: Object.fromEntries(KEYS.map((key) => [key, rand([B])])),
    previousLatents: randn([B, 12, 64]),
  };
}

function rows(b: Batch, start: number, length: number): Batch {
  const cut = (t: Tensor) => t.narrow(0, start, length);
  return {
    y: cut(b.y),
    gamma: cut(b.gamma),
    textEmbeddings: cut(b.textEmbeddings),
    textMask: cut(b.textMask),
    rewards: Object.fromEntries(Object.entries(b.rewards).map(([key, t]) => [key, cut(t)])),
    previousLatents: b.previousLatents ? cut(b.previousLatents) : null,
  };
}

function difference(a: Tensor, b: Tensor): number {
  expect(a.shape).toEqual(b.shape);
  return a.sub(b).abs().max().item() / b.abs().max().item();
}

const evaluate = (test: () => void) => () => scope(() => noGrad(test));

beforeEach(() => {
  manualSeed(1);
});

describe("conditioning computed once", () => {
  it.each([
    ["nothing padded", [], {}],
    ["padded text", [7, 3, 1], {}],
    [
      "concatenated latents",
      [7, 3, 1],
      { concat_cond_token_to_latents: true, use_self_conditioning: false, num_latents: 20 },
    ],
  ])("gives the same result as within the pass: %s", (_, lengths, changes) =>
    evaluate(() => {
      const rin = network(changes);
      const b = batch(3, 9, lengths);
      const conditioning = rin.condition(b);
      for (const gamma of [0.1, 0.9]) {
        const at = { ...b, gamma: b.gamma.mul(0).add(gamma) };
        const { F, z } = rin.forward(at);
        const again = rin.forward({ ...at, conditioning, textEmbeddings: zeros([3, 1, 24]), rewards: {} });
        expect(difference(again.F, F)).toBe(0);
        expect(difference(again.z, z)).toBe(0);
      }
    })(),
  );

  it(
    "has no mask where nothing is padded and leaves out padding that all samples share",
    evaluate(() => {
      const rin = network();
      expect(rin.condition(batch(2, 9)).mask).toBeNull();
      const short = rin.condition(batch(2, 9, [4, 4]));
      expect(short.mask).toBeNull();
      expect(short.keyValues[0]!.keys.size(1)).toBe(KEYS.length + 16 + 4);
      expect(rin.condition(batch(2, 9, [4, 2])).mask!.shape).toEqual([2, 1, 1, 1 + KEYS.length + 16 + 4]);
    }),
  );

  it(
    "is cut to some of the samples",
    evaluate(() => {
      const rin = network();
      const pictures = batch(5, 9, [9, 5, 2, 2, 2]);
      const conditioning = rin.condition(pictures);
      const all = rin.forward({ ...pictures, conditioning });
      const cut = rin.forward({ ...rows(pictures, 1, 3), conditioning: narrowConditioning(conditioning, 1, 3) });
      expect(difference(cut.F, all.F.narrow(0, 1, 3))).toBeLessThan(1e-5);
    }),
  );
});

describe("a sample's result", () => {
  it(
    "does not depend on what else is in the batch",
    evaluate(() => {
      const rin = network();
      const b = batch(4, 9, [9, 4, 1, 7]);
      const all = rin.forward(b);
      for (let i = 0; i < 4; i++) {
        const alone = rin.forward(rows(b, i, 1));
        expect(difference(alone.F, all.F.narrow(0, i, 1))).toBeLessThan(1e-5);
        expect(difference(alone.z, all.z.narrow(0, i, 1))).toBeLessThan(1e-5);
      }
    }),
  );

  it(
    "does not depend on masked text",
    evaluate(() => {
      const rin = network();
      const b = batch(2, 9, [9, 4]);
      const changed = b.textEmbeddings.clone();
      changed.select(0, 1).narrow(0, 4, 5).fill_(1000);
      expect(difference(rin.forward({ ...b, textEmbeddings: changed }).F, rin.forward(b).F)).toBe(0);
    }),
  );

  it(
    "depends on masked text in the concatenated variant unless that is asked to be masked",
    evaluate(() => {
      const changes = { concat_cond_token_to_latents: true, use_self_conditioning: false, num_latents: 20 };
      const b = batch(2, 9, [9, 4]);
      const changed = b.textEmbeddings.clone();
      changed.select(0, 1).narrow(0, 4, 5).fill_(10);
      const effect = (rin: Rin) => difference(rin.forward({ ...b, textEmbeddings: changed }).F, rin.forward(b).F);
      expect(effect(network(changes))).toBeGreaterThan(1e-4);
      expect(effect(network(changes, { maskPaddedText: true }))).toBeLessThan(1e-5);
    }),
  );

  it(
    "adds nothing for absent previous latents, which is neither zeros nor others",
    evaluate(() => {
      const rin = network();
      const b = batch(2, 3);
      const absent = rin.forward({ ...b, previousLatents: null });
      expect(difference(absent.F, rin.forward({ ...b, previousLatents: zeros([2, 12, 64]) }).F)).toBeGreaterThan(1e-3);
      expect(difference(absent.F, rin.forward(b).F)).toBeGreaterThan(1e-3);
    }),
  );
});

describe("rewards", () => {
  it(
    "that are NaN, infinite or missing are no information, in evaluation",
    evaluate(() => {
      const rin = network();
      const b = batch(1, 3);
      const result = (value: Tensor | undefined) => {
        const { vqa_score: _, ...others } = b.rewards;
        return rin.forward({ ...b, rewards: value ? { ...others, vqa_score: value } : others }).F;
      };
      const missing = result(undefined);
      expect(difference(result(tensor([Number.NaN])), missing)).toBe(0);
      expect(difference(result(tensor([Number.POSITIVE_INFINITY])), missing)).toBe(0);
      expect(difference(result(tensor([0])), missing)).toBeGreaterThan(1e-4);
    }),
  );

  it(
    "that are NaN mean the same in training as in evaluation, or zero on request",
    evaluate(() => {
      const b = batch(2, 3);
      const unknown = { ...b, rewards: { ...b.rewards, clip_score: tensor([Number.NaN, 0.5]) } };
      const zero = { ...b, rewards: { ...b.rewards, clip_score: tensor([0, 0.5]) } };
      const rin = network();
      const expected = rin.forward(unknown).F;
      rin.train();
      expect(difference(rin.forward(unknown).F, expected)).toBeLessThan(1e-5);
      const upstream = new Rin(rin.config, { nanRewardAsZeroInTraining: true });
      upstream.loadStateDict(rin.stateDict());
      expect(difference(upstream.forward(unknown).F, upstream.forward(zero).F)).toBe(0);
      upstream.eval();
      expect(difference(upstream.forward(unknown).F, expected)).toBeLessThan(1e-5);
    }),
  );

  it("give finite gradients when they are NaN", () => {
    scope(() => {
      const rin = network().train() as Rin;
      const b = batch(2, 3);
      rin
        .forward({ ...b, rewards: { ...b.rewards, clip_score: tensor([Number.NaN, 0.5]) } })
        .F.square()
        .sum()
        .backward();
      for (const [name, p] of rin.namedParameters()) expect(p.grad?.isfinite().all().item(), name).toBeTruthy();
    });
  });

  it(
    "must all be given in training",
    evaluate(() => {
      const rin = network().train() as Rin;
      const { vqa_score: _, ...rewards } = batch(1, 3).rewards;
      expect(() => rin.forward({ ...batch(1, 3), rewards })).toThrow("missing vqa_score");
    }),
  );
});

describe("training-time noise", () => {
  it.each([
    { compute_dropout: 0.5 },
    { rw_stochastic_depth: 0.5 },
    { compute_stochastic_depth: 0.5 },
    { coherence_dropout: 0.5 },
    { dropout_strategy: "uniform" },
  ])("acts in training and not in evaluation: %o", (changes) =>
    evaluate(() => {
      const rin = network(changes);
      const plain = network();
      plain.loadStateDict(rin.stateDict());
      const b = batch(4, 3);
      expect(difference(rin.forward(b).F, plain.forward(b).F)).toBe(0);
      rin.train();
      expect(difference(rin.forward(b).F, plain.forward(b).F)).toBeGreaterThan(1e-4);
    })(),
  );
});

describe("dtypes", () => {
  it(
    "keeps frequencies in float32 and stays close to float32 in bfloat16",
    evaluate(() => {
      const rin = network();
      const b = batch(2, 5, [5, 2]);
      const { F } = rin.forward(b);
      rin.to({ dtype: "bfloat16" });
      for (const [name, t] of rin.stateDict()) {
        const expected = /freqs|phases/.test(name) ? "float32" : /mask/.test(name) ? "bool" : "bfloat16";
        expect(t.dtype, name).toBe(expected);
      }
      const half = rin.forward(b);
      expect(half.F.dtype).toBe("float32");
      expect(half.z.dtype).toBe("bfloat16");
      expect(difference(half.F, F)).toBeLessThan(0.05);
    }),
  );

  it("gives the same with gradients as without", () => {
    scope(() => {
      const rin = network();
      const b = batch(2, 5, [5, 2]);
      const plain = rin.forward(b).F;
      expect(plain.requiresGrad).toBe(true);
      expect(difference(noGrad(() => rin.forward(b)).F, plain)).toBeLessThan(1e-5);
    });
  });

  it("trains under autocast to bfloat16", () => {
    scope(() => {
      const rin = network().train() as Rin;
      const b = batch(2, 5, [5, 2]);
      const plain = rin.forward(b).F;
      const half = autocast({ device: "cpu", dtype: "bfloat16" }, () => rin.forward(b).F);
      expect(difference(half, plain)).toBeLessThan(0.05);
      half.square().mean().backward();
      for (const [name, p] of rin.namedParameters()) {
        expect(p.grad?.isfinite().all().item(), name).toBeTruthy();
        expect(p.grad!.dtype, name).toBe("float32");
      }
    });
  });

  it(
    "loads half-precision weights into a float32 network",
    evaluate(() => {
      const rin = network();
      const other = network();
      const half = new Map([...rin.stateDict()].map(([name, t]) => [name, t.dtype === "bool" ? t : t.half()]));
      other.loadStateDict(half);
      const b = batch(1, 3);
      expect(difference(other.forward(b).F, rin.forward(b).F)).toBeLessThan(0.02);
      expect(other.latents.dtype).toBe("float32");
    }),
  );
});

describe("initialisation", () => {
  it(
    "follows the published scheme",
    evaluate(() => {
      const rin = new Rin(tinyConfig());
      for (const [name, module] of rin.namedModules()) {
        if (module instanceof nn.Linear) {
          const bound = Math.sqrt(6 / (module.inFeatures + module.outFeatures));
          expect(module.weight.abs().max().item(), name).toBeLessThanOrEqual(bound * 1.0001);
          expect(module.weight.abs().max().item(), name).toBeGreaterThan(bound * 0.9);
          expect(module.bias?.abs().max().item() ?? 0, name).toBe(0);
        }
      }
      const state = rin.stateDict();
      for (const name of ["data_pos_embedding", "latents", "coherence_positional_embedding", "text_registers"]) {
        expect(state.get(name)!.abs().max().item()).toBeLessThanOrEqual(0.04);
        expect(state.get(name)!.std().item()).toBeCloseTo(0.0176, 2); // a normal of 0.02 cut at two deviations
      }
      expect(state.get("ln_previous_2.weight")!.abs().max().item()).toBe(0);
      expect(state.get("ln_previous_1.weight")!.min().item()).toBe(1);
      expect(state.get("transformers_blocks.1.layer_scale_2")!.mean().item()).toBeCloseTo(0.1);
    }),
  );

  it(
    "begins with self-conditioning as a no-op",
    evaluate(() => {
      const rin = new Rin(tinyConfig()).eval() as Rin;
      const b = batch(1, 3);
      expect(difference(rin.forward(b).F, rin.forward({ ...b, previousLatents: null }).F)).toBe(0);
    }),
  );
});

describe("state dict at full size", () => {
  const full = PUBLISHED_NETWORK;
  const single = {
    ...full,
    coherence_keys: ["clip_score"],
    use_cond_rin_block: false,
    concat_cond_token_to_latents: true,
    use_self_conditioning: false,
  };
  const baseSizes = {
    data_dim: 256,
    num_latents: 128,
    latents_dim: 512,
    num_processing_layers: 2,
    num_blocks: 3,
    read_write_heads: 8,
    compute_heads: 16,
  };

  it.each([
    ["seven rewards", full, 504, 360_411_664],
    ["six rewards", { ...full, coherence_keys: REWARD_KEYS.slice(1) }, 498, 359_097_872],
    ["one reward", { ...full, coherence_keys: ["clip_score"] }, 468, 352_528_912],
    ["concatenated, as upstream's single-reward files", single, 400, 292_631_056],
    ["base sizes", { ...single, ...baseSizes }, 230, 39_831_312],
  ])("has the published number of entries and parameters: %s", (_, config, entries, parameters) => {
    scope(() => {
      using rin = nn.init.skipped(() => new Rin(parseRinConfig(config)));
      expect(rin.stateDict().size).toBe(entries);
      expect([...rin.parameters()].reduce((sum, p) => sum + p.numel, 0)).toBe(parameters);
    });
  });
});

describe("an input", () => {
  it(
    "names a wrongly shaped input",
    evaluate(() => {
      const rin = network();
      expect(() => rin.forward({ ...batch(1, 3), y: randn([1, 4, 16, 16]) })).toThrow(
        "y: expected shape (batch, 4, 8, 8)",
      );
      expect(() => rin.forward({ ...batch(1, 3), textEmbeddings: randn([1, 3, 7]) })).toThrow("textEmbeddings");
    }),
  );
});

it("frees everything that it does not return", () => {
  const rin = network();
  const b = batch(2, 5, [5, 2]);
  const pass = (count: () => number) =>
    scope(() =>
      noGrad(() => {
        const before = count();
        const conditioning = rin.condition(b);
        const held = 2 * conditioning.keyValues.length + 1;
        expect(count() - before).toBe(held);
        rin.forward({ ...b, conditioning });
        expect(count() - before).toBe(held + 2);
      }),
    );
  pass(() => memory.stats().liveTensors);
});

it("the layer of self-conditioning is as wide as latent_mlp_multiplier says", () => {
  scope(() => {
    const rin = new Rin(tinyConfig({ use_self_conditioning: true, latent_mlp_multiplier: 3 }));
    const { latentsDim: L } = rin.config;
    const shape = (name: string) => rin.stateDict().get(`linear_previous.${name}.weight`)!.shape;
    expect([shape("linear_1"), shape("linear_2")]).toEqual([
      [3 * L, L],
      [L, 3 * L],
    ]);
  });
});

it("is refused with arguments that make no network, all of which need not be given", () => {
  const { coherenceKeys, ...others } = tinyConfig();
  expect(() => new Rin({ ...others, coherenceKeys: [] })).toThrow("network: coherenceKeys: must be a list of keys");
  expect(() => new Rin({ ...tinyConfig(), patchSize: 3 })).toThrow("network: patchSize: must divide data_size");
  expect(() => new Rin({ ...tinyConfig(), layers: 3 } as never)).toThrow("layers");
  expect(() => new Rin({ coherenceKeys } as never)).toThrow("network: dataSize: expected an integer, received nothing");
  expect(() => new Rin(undefined as never)).toThrow("network: expected an object, received nothing");
  const { computeHeads: _, ...some } = tinyConfig();
  expect(new Rin({ ...some, latentsDim: 16 }).config.computeHeads).toBe(16);
});
