import { join } from "node:path";
import { describe, expect, it } from "vitest";
import "../../emoji/register.js";
import { parseRinConfig, REWARD_KEYS } from "../../networks/config.js";
import { DEFAULT_TEXT_ENCODER, DEFAULT_VAE } from "../../pipeline/loading/parts.js";
import { sourceFacts } from "../batches/sources.js";
import { modelSize } from "../planning/model-size.js";
import { planOf } from "./batch-plan.js";
import { loadRecipe, readRecipe } from "./recipe.js";
import { recipeNames } from "./recipe-source.js";

const folder = join(import.meta.dirname, "../../../../../recipes");
const diffusion = recipeNames().filter((name) => {
  const json = readRecipe(join(folder, name));
  return !("kind" in json) && "network" in json; // the others render data, or train other parts
});

const SEVEN = [...REWARD_KEYS];

it.each(diffusion)("recipes/%s.yaml is valid", (name) => {
  expect(() => loadRecipe(name)).not.toThrow();
});

describe("the recipes of the paper", () => {
  const without = (key: string) => SEVEN.filter((other) => other !== key);
  /** Rewards, share of synthetic captions, trainable parameters (network). */
  const paper: [string, string[], number, number][] = [
    ["multi_cad_synth", SEVEN, 0.5, 360_411_664],
    ["multi_cad", SEVEN, 0, 360_411_664],
    ["multi_cad_no_synthetic_captions", SEVEN, 0, 360_411_664],
    ["multi_cad_no_aesthetic", without("aesthetic_score"), 0, 359_097_872],
    ["multi_cad_no_clip", without("clip_score"), 0, 359_097_872],
    ["multi_cad_no_hpsv2", without("hpsv2_score"), 0, 359_097_872],
    ["multi_cad_no_image_reward", without("image_reward_score"), 0, 359_097_872],
    ["multi_cad_no_pick", without("pick_a_score_score"), 0, 359_097_872],
    ["multi_cad_no_sciscore", without("sciscore_score"), 0, 359_097_872],
    ["multi_cad_no_vqa", without("vqa_score"), 0, 359_097_872],
    ...SEVEN.map((key) => [`${key}_cad`, [key], 0, 352_528_912] as [string, string[], number, number]),
    ["baseline", ["clip_score"], 0, 352_528_912],
    ["baseline_synth", ["clip_score"], 0.5, 352_528_912],
  ];

  it.each(paper)(
    "%s trains on its rewards and captions with the published network",
    (name, rewards, synthetic, size) => {
      const recipe = loadRecipe(name);
      expect(recipe.name).toBe(name);
      expect(parseRinConfig(recipe.network).coherenceKeys).toEqual(rewards);
      expect(recipe.data).toMatchObject({ kind: "shards", syntheticEmbeddingProb: synthetic, numBins: 64 });
      expect(recipe.optimizer).toMatchObject({ name: "lamb", lr: 1e-3, weightDecay: 0.01 });
      expect(recipe.lrScheduler).toMatchObject({ warmupSteps: 5000, rate: 0.8 });
      expect(modelSize(recipe).network.trainable).toBe(size);
      expect(planOf(recipe.trainer)).toMatchObject({ batchSize: 1024, deviceBatchSize: 64 });
      // A release is written at the end, with the parts that the data were prepared with.
      expect(sourceFacts(recipe.data, parseRinConfig(recipe.network))).toMatchObject({
        textEncoder: DEFAULT_TEXT_ENCODER,
        autoencoder: DEFAULT_VAE,
        release: { imgResolution: 256 },
      });
    },
  );

  it("have the network of upstream's experiment files where asked for", () => {
    const recipe = loadRecipe("clip_score_cad", ["extends=base/specialist_as_written"]);
    expect(modelSize(recipe).network.trainable).toBe(292_631_056);
  });

  it("have upstream's faults where asked for, and otherwise none", () => {
    const asUpstream = loadRecipe("multi_cad_synth", ["extends=base/as_upstream"]);
    const own = loadRecipe("multi_cad_synth");
    for (const [recipe, there] of [
      [asUpstream, true],
      [own, false],
    ] as const) {
      expect(recipe.loss.nanRewardAsZero).toBe(there);
      expect(recipe.lrScheduler.firstUpdateAtFullRate).toBe(there);
      expect(recipe.ema.updateOnSkippedSteps).toBe(there);
      expect(recipe.trainer.zeroNonFiniteGradients).toBe(there);
      expect(recipe.data).toMatchObject({ scoreMode: there ? "original" : "paired", upstreamLevels: there });
    }
  });

  it.each([
    [1, 1, 16],
    [8, 1, 2],
    [8, 2, 1],
    [8, 4, null],
  ])("divide 1024 samples among %i devices on %i nodes", (devices, nodes, accumulationSteps) => {
    const load = () => loadRecipe("multi_cad", [`trainer.devices=${devices}`, `trainer.num_nodes=${nodes}`]);
    if (accumulationSteps === null)
      expect(load).toThrow(/trainer\.device_batch_size: .* expected a divisor of 32 \(received 64\)/);
    else expect(planOf(load().trainer).accumulateGradBatches).toBe(accumulationSteps);
  });
});
