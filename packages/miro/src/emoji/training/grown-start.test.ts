import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { manualSeed, noGrad, scope } from "@miro-t2i/torch";
import { afterAll, expect, it } from "vitest";
import "../register.js";
import { bundledModel } from "../../pipeline/loading/bundled.js";
import { readReleaseConfig } from "../../pipeline/loading/release-config.js";
import { createLoss, createNetworks, startFrom } from "../../training/loop/model.js";
import { loadRecipe } from "../../training/recipes/recipe.js";
import { EmojiBatches } from "./emoji-batches.js";
import type { EmojiData } from "./emoji-data.js";

const root = mkdtempSync(join(tmpdir(), "miro-grown-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

it("begins with what the model of larger patches knows", { timeout: 120_000 }, async () => {
  const model = bundledModel()!;
  const patchSize = readReleaseConfig(model).network.patchSize / 2;
  const recipe = loadRecipe("emoji", [
    ...[`network.patch_size=${patchSize}`, "initialization.distinct_tokens=false", "loss.cond_drop_rate=0"],
    ...["data.samples=8", "data.shard_size=8", "data.scenes.vocabulary=everyday", `data.cache=${join(root, "cache")}`],
  ]);
  const common = { seed: 1, batchSize: 8, device: "cpu", sigmaData: 0.5 };
  const source = await EmojiBatches.open({ ...common, data: recipe.data as unknown as EmojiData });
  try {
    await source.ready(0);
    const [fresh, grown] = [false, true].map((starts) =>
      scope(() => {
        manualSeed(3);
        const { network, preconditioning } = createNetworks(recipe);
        if (starts) startFrom(model, network, preconditioning);
        network.eval();
        const loss = createLoss(recipe, source.constants.uncondEmbedding);
        return noGrad(() => loss.call(preconditioning, network, source.batch(0)).rawLoss.item());
      }),
    ) as [number, number];
    // 1.2 is what predicting nothing gives.
    expect(fresh).toBeGreaterThan(1);
    expect(grown).toBeLessThan(0.5);
  } finally {
    await source.close();
  }
});
