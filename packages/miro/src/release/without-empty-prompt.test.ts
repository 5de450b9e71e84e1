import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randn, scope, zeros } from "@miro-t2i/torch";
import { readNpy, writeNpy } from "@miro-t2i/torch/io";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCaptured } from "../cli/testing/run-captured.js";
import { copyPublished, recorded } from "../data/dataset/testing/published.js";
import { loadCheckpointFiles } from "../pipeline/loading/checkpoint.js";
import { openRunModel } from "../pipeline/loading/run-model.js";
import { runTraining } from "../training/loop/run.js";
import { parseRecipe } from "../training/recipes/recipe.js";
import { bits, tinyRecipeJson } from "../training/testing/tiny.js";

const published = copyPublished();
const folder = mkdtempSync(join(tmpdir(), "miro-no-prompt-"));
const at = (name: string) => join(folder, name);
const run = at("run");
const states = at("states.npy");
const wrong = at("wrong.npy");
afterAll(() => {
  published.remove();
  rmSync(folder, { recursive: true, force: true });
});

const recipe = (data: object = {}, rest: object = {}) => {
  const root = ["cc12m", "laion"].map((name) => join(published.path, name));
  const json = tinyRecipeJson(
    { max_steps: 2, checkpoint_every_n_steps: 2 },
    { loss: {}, data: { kind: "shards", root, num_bins: 8, ...data }, ...rest },
  );
  const sizes = { data_size: 8, label_dim: 16, num_cond_tokens: 20, coherence_keys: recorded().scores };
  return parseRecipe({ ...json, network: { ...(json.network as object), ...sizes } });
};
const resumed = async (name: string, ...args: Parameters<typeof recipe>) => {
  cpSync(run, at(name), { recursive: true });
  return runTraining({ recipe: recipe(...args), output: at(name), resume: true });
};
const convert = (...args: string[]) => runCaptured("convert", run, "--output", at("release"), ...args);

describe("a run that knows nothing of the empty prompt", { timeout: 60_000 }, () => {
  beforeAll(async () => {
    scope(() => {
      writeNpy(states, randn([1, 3, 16]));
      writeNpy(wrong, zeros([3, 15]));
    });
    expect(await runTraining({ recipe: recipe(), output: run })).toMatchObject({ finished: true, exported: null });
  });

  it("is released with text states that are named, in any shape that such files have", async () => {
    expect(await convert()).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/knows no text states of the empty prompt; name .* --uncond-embedding/),
    });
    expect(await convert("--uncond-embedding", wrong)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^error: \S+wrong\.npy: expected shape \(16,\) or \(n, 16\), found \(3, 15\)/),
    });
    expect(await convert("--uncond-embedding", states)).toMatchObject({ code: 0 });
    scope(() => {
      const written = readNpy(join(at("release"), "uncond_embedding.npy"));
      expect(written.eq(readNpy(states).select(0, 0)).all().item()).toBe(1);
    });
  });

  it("gets a release when it is resumed with them, and keeps its weights", async () => {
    expect((await resumed("known", { uncond_embedding: states })).exported).toBe(join(at("known"), "export"));
    expect(bits(at("known"))).toEqual(bits(run));
    // Dropped texts become the empty prompt, so there it decides what is computed.
    const drops = { loss: { text_drop_rate: 0.5 } };
    await expect(resumed("dropped", { uncond_embedding: states }, drops)).rejects.toThrow(
      /data\.uncond_embedding: not set in the checkpoint/,
    );
  });

  it("draws nothing, and is what another run can start from", async () => {
    expect(() => loadCheckpointFiles(openRunModel(run))).toThrow(/knows no text states of the empty prompt, as/);
    const next = recipe({}, { initialization: { from: run } });
    expect(await runTraining({ recipe: next, output: at("next") })).toMatchObject({ finished: true });
  });
});
