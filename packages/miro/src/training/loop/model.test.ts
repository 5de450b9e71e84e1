import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { aten, manualSeed, scope, type Tensor } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { describe, expect, it } from "vitest";
import { parseRecipe, recipeToJson } from "../recipes/recipe.js";
import { tinyRecipe, tinyRecipeJson } from "../testing/tiny.js";
import { createNetworks, startFrom } from "./model.js";

const checkpoint = fileURLToPath(new URL("../../../../../tests/reference/fixtures/tiny/checkpoint", import.meta.url));
const config = JSON.parse(readFileSync(`${checkpoint}/config.json`, "utf8"));

/** Singular values above a tenth of the largest. */
const rank = (t: Tensor) =>
  scope(() => {
    const values = aten.linalg_svdvals(t.detach());
    return values.gt(values.max().mul(0.1)).sum().item();
  });

describe("initial weights of a run", () => {
  it("keep places and latents apart where the recipe asks for it", () => {
    manualSeed(0);
    const { network } = createNetworks(tinyRecipe({}, { initialization: { distinct_tokens: true } }));
    expect(network.latents.std().item()).toBeCloseTo(1, 0);
    expect(network.dataPositions.std().item()).toBeCloseTo(1, 0);
    const [places, dim] = network.dataPositions.shape as [number, number];
    expect(rank(network.dataPositions)).toBeGreaterThan(Math.min(places, dim) / 2);
    expect(createNetworks(tinyRecipe()).network.latents.std().item()).toBeLessThan(0.03);
  });

  it("are those of a release folder where the recipe names one", () => {
    const { network: _, ...rest } = recipeToJson(tinyRecipe()) as Record<string, unknown>;
    const recipe = parseRecipe({
      ...rest,
      network: config.network,
      preconditioning: config.preconditioning,
      initialization: { from: checkpoint },
    });
    const { network, preconditioning } = createNetworks(recipe);
    startFrom(recipe.initialization.from!, network, preconditioning);
    scope(() => {
      const stored = readSafetensors(`${checkpoint}/model.safetensors`);
      for (const [name, value] of [...network.stateDict("network"), ...preconditioning.stateDict("preconditioning")])
        expect(value.eq(stored.get(name)!).all().item(), name).toBe(1);
    });
  });

  it("refuse a folder of another network", () => {
    const json = tinyRecipeJson();
    const sizes = { ...(json.network as object), coherence_keys: config.network.coherence_keys };
    const { network, preconditioning } = createNetworks(tinyRecipe({}, { network: sizes }));
    expect(() => startFrom(checkpoint, network, preconditioning)).toThrow(/shape|missing|unexpected/i);
  });

  it("refuse a model of other rewards, and say how fields take their names", () => {
    const { network, preconditioning } = createNetworks(tinyRecipe());
    expect(() => startFrom(checkpoint, network, preconditioning)).toThrow(
      /has learned the rewards clip_score, .*, network\.coherence_keys are clip_score, sharpness; .*data\.score_columns/,
    );
  });
});
