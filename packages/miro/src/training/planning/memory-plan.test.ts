import { autocast, Generator, memory, nn, ones, rand, randn, scope, zeros } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import type { Precision } from "../../flow/loss.js";
import { parseRinConfig } from "../../networks/config.js";
import { createLoss, createNetworks } from "../loop/model.js";
import type { Recipe } from "../recipes/recipe.js";
import { tinyRecipe, tinyRecipeJson } from "../testing/tiny.js";
import { activationBytes, memoryPlan } from "./memory-plan.js";
import { modelSize } from "./model-size.js";

/** Wide enough for activations to matter, narrow enough to be quick. */
const TEXT = 24;
const sizes = {
  data_size: 16,
  label_dim: 128,
  data_dim: 64,
  num_latents: 64,
  latents_dim: 128,
  num_blocks: 2,
  num_processing_layers: 2,
  read_write_heads: 4,
  compute_heads: 4,
  num_text_registers: 8,
  coherence_dropout: 0,
};

function wide(trainer: object = {}, network: object = {}): Recipe {
  const json = tinyRecipeJson(trainer);
  return tinyRecipe(trainer, { network: { ...(json.network as object), ...sizes, ...network }, loss: {} });
}

/** Memory that a training pass over a batch holds before the backward pass begins, the weights apart. */
function held(recipe: Recipe, batchSize: number): number {
  return scope(() => {
    const config = parseRinConfig(recipe.network);
    const { network, preconditioning } = nn.init.skipped(() => createNetworks(recipe));
    const generator = new Generator().manualSeed(1);
    const batch = {
      x0: randn([batchSize, 4, config.dataSize, config.dataSize], { generator }),
      textEmbeddings: randn([batchSize, TEXT, config.labelDim], { generator }),
      textMask: ones([batchSize, TEXT], { dtype: "bool" }),
      rewards: Object.fromEntries(config.coherenceKeys.map((key) => [key, rand([batchSize], { generator })])),
    };
    const loss = createLoss(recipe, zeros([1, config.labelDim]));
    const precision: Precision =
      recipe.trainer.precision === "32-true"
        ? (run) => run()
        : (run) => autocast({ device: "cpu", dtype: "bfloat16" }, run);
    const { liveBytes } = memory.stats();
    const terms = scope(() => loss.call(preconditioning, network, batch, { precision, generator }).loss);
    const held = memory.stats().liveBytes - liveBytes;
    terms.backward();
    return held;
  });
}

describe("the memory of a training step", () => {
  it.each([
    ["32-true", {}],
    ["bf16-mixed", {}],
    [
      "32-true",
      {
        use_cond_rin_block: false,
        concat_cond_token_to_latents: true,
        use_self_conditioning: false,
        num_latents: 96,
        num_cond_tokens: 24,
      },
    ],
  ])("grows with each sample by what is estimated, within a fifth (%s, %j)", (precision, network) => {
    const recipe = wide({ precision }, network);
    const perSample = (held(recipe, 24) - held(recipe, 8)) / 16;
    const estimate = activationBytes(parseRinConfig(recipe.network), TEXT, precision !== "32-true");
    expect(estimate / perSample).toBeGreaterThan(0.8);
    expect(estimate / perSample).toBeLessThan(1.2);
  });

  it("has weights, gradients, two moments and each average once", () => {
    const recipe = tinyRecipe({}, { ema: { decay: [0.9, 0.99] } });
    const size = modelSize(recipe);
    const plan = memoryPlan(recipe, size, 3);
    const values = size.network.trainable + size.preconditioning.trainable;
    expect(plan.gradients).toBe(4 * values);
    expect(plan.optimizer).toBe(2 * plan.gradients);
    expect(plan.averages).toBe(2 * 4 * (size.network.trainable + size.network.buffers));
    expect(plan.castWeights).toBe(0);
    const { total, ...parts } = plan;
    expect(Object.values(parts).reduce((a, b) => a + b, 0)).toBe(total);
  });
});
