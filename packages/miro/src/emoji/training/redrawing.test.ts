import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { scope, type Tensor } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import "../register.js";
import { loadAutoencoder } from "../../autoencoder/index.js";
import { runTraining } from "../../training/loop/run.js";
import { runTask } from "../../training/loop/run-task.js";
import { parseRecipe } from "../../training/recipes/recipe.js";
import { bits } from "../../training/testing/tiny.js";
import { autoencoderRecipeSchema } from "./recipes.js";
import { makeTinyParts, TINY_SCENES, type TinyParts, tinyEmojiJson } from "./testing/tiny-emoji.js";

const root = mkdtempSync(join(tmpdir(), "miro-redrawing-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let parts: TinyParts;
let model: string;

beforeAll(async () => {
  parts = await makeTinyParts(root);
  const recipe = parseRecipe(tinyEmojiJson(parts, join(root, "cache")));
  model = (await runTraining({ recipe, output: join(root, "model") })).exported!;
});

function decoderRecipe({ loss = {}, scenes = {} }: { loss?: object; scenes?: object } = {}) {
  return autoencoderRecipeSchema.parse({
    kind: "autoencoder",
    name: "tiny",
    refineDecoderOf: parts.autoencoder,
    network: { decoder_blocks: [1, 1] },
    scenes: { ...TINY_SCENES, ...scenes },
    loss: { latentPenalty: 0, crop: 3, redrawn: { model, share: 0.5, steps: 2 }, ...loss },
    trainer: { maxSteps: 4, batchSize: 4, lr: 0.01, warmupSteps: 1, checkpointEveryNSteps: 2, logEveryNSteps: 1 },
  });
}

/** Tensors of a folder's encoder or decoder, as lists. */
function weights(folder: string, part: "encoder" | "decoder"): Record<string, unknown> {
  const list = (t: Tensor) => t.float().flatten().toList();
  return scope(() => {
    const all = [...readSafetensors(join(folder, "diffusion_pytorch_model.safetensors"))];
    return Object.fromEntries(all.flatMap(([name, t]) => (name.startsWith(part) ? [[name, list(t)]] : [])));
  });
}

describe("a decoder trained on what a model redraws", { timeout: 120_000 }, () => {
  it("has the blocks that were asked for, the encoder as it was, and is the same after a stop", async () => {
    const whole = join(root, "whole");
    const { exported } = await runTask({ recipe: decoderRecipe(), output: whole, resume: false });
    expect(weights(exported!, "encoder")).toEqual(weights(parts.autoencoder, "encoder"));
    const [before, after] = [parts.autoencoder, exported!].map((folder) => weights(folder, "decoder"));
    for (const [name, values] of Object.entries(before!)) expect(after![name], name).not.toEqual(values);
    expect(Object.keys(after!).filter((name) => !(name in before!)).length).toBeGreaterThan(0);
    loadAutoencoder(exported!).dispose();
    const log = readFileSync(join(whole, "log.jsonl"), "utf8").trim().split("\n");
    const entries = log.map((line) => JSON.parse(line) as Record<string, number>);
    expect(entries.at(-1)!.psnr_redrawn).toBeGreaterThan(0);

    const stopped = join(root, "stopped");
    const stop = new AbortController();
    const onProgress = ({ step }: { step: number }) => step === 1 && stop.abort();
    await runTask({ recipe: decoderRecipe(), output: stopped, resume: false, signal: stop.signal, onProgress });
    await runTask({ recipe: decoderRecipe(), output: stopped, resume: true });
    expect(bits(stopped)).toEqual(bits(whole));
  });

  it("is refused where the model draws other latents or is not there", async () => {
    const output = join(root, "refused");
    const train = (changes: Parameters<typeof decoderRecipe>[0]) =>
      runTask({ recipe: decoderRecipe(changes), output, resume: false });
    await expect(train({ scenes: { size: 64 } })).rejects.toThrow(
      /loss\.redrawn\.model: expected a model of latents 4 × 8 × 8, received .* of 4 × 4 × 4/,
    );
    await expect(train({ loss: { redrawn: { model: join(root, "no"), share: 1 } } })).rejects.toThrow(/no/);
  });
});
