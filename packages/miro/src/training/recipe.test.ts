import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { loadRecipe, nearest, parseRecipe, recipeToJson } from "./recipe.js";

const folder = mkdtempSync(join(tmpdir(), "miro-recipe-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

export const tiny = `
name: tiny
data: { kind: random, text_len: 3 }
network:
  { data_size: 4, num_input_channels: 4, label_dim: 6, num_cond_tokens: 5, data_dim: 16, num_latents: 4, latents_dim: 16,
    num_processing_layers: 1, num_blocks: 1, patch_size: 2, read_write_heads: 2, compute_heads: 2, use_cond_rin_block: true,
    concat_cond_token_to_latents: false, use_self_conditioning: true, num_text_registers: 2, coherence_keys: [clip_score] }
optimizer: { name: adamw, lr: 0.001 }
lr_scheduler: { warmup_steps: 2 }
trainer: { max_steps: 6, batch_size: 4 }
`;

function load(text: string, ...overrides: string[]) {
  const path = join(folder, "recipe.yaml");
  writeFileSync(path, text);
  return loadRecipe(path, overrides);
}

describe("loadRecipe", () => {
  it("fills in defaults and reads overrides as YAML", () => {
    const recipe = load(
      tiny,
      "trainer.max_steps=20",
      "optimizer.betas=[0.9, 0.99]",
      "network.num_latents=8",
      "samples.prompts=[a cat, a dog]",
    );
    expect(recipe.trainer).toMatchObject({ maxSteps: 20, batchSize: 4, precision: "32-true", gradientClipVal: 2 });
    expect(recipe.optimizer).toMatchObject({ betas: [0.9, 0.99], weightDecay: 0.01 });
    expect(recipe.samples.prompts).toEqual(["a cat", "a dog"]);
    expect(recipe.preconditioning).toMatchObject({ num_latents: 8, latents_dim: 16, sigma_data: 0.5 });
  });

  it("writes what it reads", () => {
    const recipe = load(tiny);
    expect(parseRecipe(recipeToJson(recipe))).toEqual(recipe);
  });

  it.each([
    ["trainer.max_step=3", /unknown key trainer\.max_step; did you mean trainer\.max_steps|did you mean max_steps/],
    ["trainr.max_steps=3", /unknown key trainr; did you mean trainer/],
    ["network.num_latent=3", /unknown key network\.num_latent; did you mean num_latents/],
    ["data.textlen=3", /unknown key data\.textlen; did you mean text_len/],
    ["trainer.batch_size=0", /trainer\.batch_size: .*\(received 0\)/],
    ["trainer.precision=fp8", /trainer\.precision: .*"32-true"\|"bf16-mixed"/],
    ["loss.cond_drop_rate=2", /loss\.cond_drop_rate: .*\(received 2\)/],
    ["network.read_write_heads=3", /network\.read_write_heads: must divide/],
    ["lr_scheduler.warmup_steps=6", /lr_scheduler\.warmup_steps: expected fewer than the 6 steps/],
    ["optimizer.lr=fast", /optimizer\.lr: .*received "fast"/],
    ["trainer.max_steps", /expected key=value/],
    ["name.first=x", /name is a value/],
    ["trainer.max_steps=[1", /not valid YAML/],
  ])("refuses %s", (override, message) => {
    expect(() => load(tiny, override)).toThrow(message);
  });

  it("names what is missing", () => {
    expect(() => load(tiny.replace("max_steps: 6, ", ""))).toThrow(/trainer\.max_steps is missing/);
    expect(() => loadRecipe(join(folder, "none.yaml"))).toThrow(/none\.yaml: no such file/);
    expect(() => load("- a\n- b\n")).toThrow(/expected a mapping/);
    expect(() => load("a: [")).toThrow(/not valid YAML/);
  });
});

describe("nearest", () => {
  it("finds misspelt names and no far ones", () => {
    expect(nearest("batchsize", ["batch_size", "max_steps"])).toEqual(["batch_size"]);
    expect(nearest("zzz", ["batch_size", "max_steps"])).toEqual([]);
  });
});
