import { manualSeed, noGrad, scope, zeros } from "@miro-t2i/torch";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { LossBatch } from "../../flow/loss.js";
import { RandomBatches } from "../batches/batches.js";
import { accumulateGradients, type Model } from "../loop/gradients.js";
import { createLoss, createNetworks } from "../loop/model.js";
import { tinyRecipe } from "../testing/tiny.js";
import { findNonFinite, nonFiniteGradients } from "./non-finite.js";

const recipe = tinyRecipe();
const source = new RandomBatches({
  seed: 1,
  batchSize: 4,
  channels: 4,
  size: 4,
  textLength: 3,
  textWidth: 6,
  rewardKeys: ["clip_score", "sharpness"],
});
let model: Model;
let batch: LossBatch;
beforeAll(() => {
  manualSeed(0);
  model = { ...createNetworks(recipe), loss: createLoss(recipe, zeros([1, 6])) };
  batch = source.batch(0);
});
afterAll(() => model.network.dispose());

const forward = () => void model.loss.call(model.preconditioning, model.network, batch);
const find = () => findNonFinite({ model, batch, forward });
const parameter = (name: string) => model.network.stateDict("network").get(name)!;

/** Runs with one value of a tensor replaced. */
function spoiled<T>(tensor: import("@miro-t2i/torch").Tensor, value: number, run: () => T): T {
  return noGrad(() =>
    scope(() => {
      const place = tensor.flatten().narrow(0, 1, 1);
      const before = place.item();
      place.fill_(value);
      try {
        return run();
      } finally {
        place.fill_(before);
      }
    }),
  );
}

describe("findNonFinite", () => {
  it("finds nothing where nothing is, and leaves the modules as they were", () => {
    expect(find()).toBe(null);
    for (const [path, module] of model.network.namedModules())
      expect(Object.hasOwn(module, "forward"), path).toBe(false);
  });

  it("names the batch, where a missing reward is none", () => {
    expect(spoiled(batch.x0, Number.NaN, find)).toBe("the batch's x0 (4, 4, 4, 4) float32: 1 NaN");
    expect(spoiled(batch.rewards.sharpness!, Number.NaN, find)).toBe(null);
  });

  it("names the weight", () => {
    const name = "network.rin_blocks.0.writer_ca.ca.out.weight";
    expect(spoiled(parameter(name), Number.POSITIVE_INFINITY, find)).toBe(
      `the weight ${name} (16, 16) float32: 1 infinite`,
    );
  });

  it("names the innermost module that first gives what is not finite, from finite weights", () => {
    const name = "network.rin_blocks.0.retriever_ca.ffn.linear_packed";
    const found = spoiled(parameter(`${name}.weight`), 3e38, () => spoiled(parameter(`${name}.bias`), 3e38, find));
    expect(found).toMatch(/^the output of network\.rin_blocks\.0\.retriever_ca\.ffn\S* \(4, 4, \d+\) float32: /);
  });
});

describe("nonFiniteGradients", () => {
  it("puts the gradient first that the backward pass came to first", () => {
    const options = { seed: 1, k: 1, rows: { start: 0, count: 4, batchSize: 4 }, precision: "32-true" } as const;
    scope(() => void accumulateGradients(model, batch, { ...options, accumulateGradBatches: 1 }));
    expect(nonFiniteGradients(model, forward)).toEqual([]);
    const grads = [
      "network.map_text_tokens.weight",
      "network.map_tokens_to_patches.1.weight",
      "network.data_ln.weight",
    ];
    const spoil = (names: string[], run: () => string[]): string[] =>
      names.length === 0 ? run() : spoiled(parameter(names[0]!).grad!, Number.NaN, () => spoil(names.slice(1), run));
    expect(spoil(grads, () => nonFiniteGradients(model, forward))).toEqual([grads[1], grads[2], grads[0]]);
    model.network.zeroGrad();
  });
});
