import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { setting } from "../options.js";
import { recipeKeys } from "../training/recipes/reference.js";
import { recipeKinds, recipesPage } from "./recipe-keys.js";
import { runCaptured } from "./testing/run-captured.js";

const keysOf = (kind: string | null) => recipeKinds().find((one) => one.kind === kind)!.keys;
const keyOf = (kind: string | null, key: string, data?: string) =>
  keysOf(kind).find((one) => one.key === key && one.kind === data);

describe("the reference of recipe keys", () => {
  it("is what docs/recipes.md holds; npm run docs:recipes writes it", () => {
    const page = fileURLToPath(new URL("../../../../docs/recipes.md", import.meta.url));
    expect(readFileSync(page, "utf8")).toBe(recipesPage());
  });

  it("describes every key of every kind of recipe in plain words", () => {
    const kinds = recipeKinds();
    expect(kinds.map(({ kind }) => kind)).toEqual([
      null,
      "autoencoder",
      "text-encoder",
      "clip",
      "classifier",
      "emoji-data",
    ]);
    const all = kinds.flatMap(({ keys }) => keys);
    for (const { key, description } of all) {
      expect(description, key).toMatch(/^\S.{3,}[^.\s]$/);
      expect(description, key).toMatch(/^[^A-Z]|^(?:AdamW|CLIP)/);
    }
    expect(new Set(keysOf(null).map(({ key, kind }) => `${key} ${kind}`)).size).toBe(keysOf(null).length);
  });

  it("says type, default and upstream's name", () => {
    expect(keyOf(null, "trainer.max_steps")).toEqual({
      key: "trainer.max_steps",
      type: "integer ≥ 1",
      required: true,
      description: "optimizer steps of the whole run",
    });
    expect(keyOf(null, "trainer.batch_size")).toMatchObject({ upstream: "data.full_batch_size" });
    expect(keyOf(null, "loss.self_cond_rate")).toMatchObject({ type: "number 0 to 1", default: 0.9 });
    expect(keyOf(null, "optimizer.name")).toMatchObject({ type: "lamb, adamw", default: "lamb", required: false });
    expect(keyOf(null, "optimizer.betas")).toMatchObject({ type: "[number ≥ 0 and < 1, number ≥ 0 and < 1]" });
    expect(keyOf(null, "ema.decay")?.type).toBe("number ≥ 0 and < 1, or list of number ≥ 0 and < 1");
    expect(keyOf(null, "network.coherence_keys")).toMatchObject({ type: "list of text", default: [] });
    expect(keyOf(null, "data.max_text_len", "shards")).toMatchObject({ default: 256 });
    expect(keyOf(null, "data.max_text_len", "emoji")).toMatchObject({ required: true });
    expect(keyOf("autoencoder", "network.patch_size")).toMatchObject({ default: 4 });
    // What a kind of recipe sets for a section counts, not the section's own default.
    expect(keyOf("text-encoder", "scenes.size")).toMatchObject({ default: 64 });
    expect(keyOf("autoencoder", "scenes.size")).toMatchObject({ default: 128 });
  });

  it("refuses a key without a description", () => {
    const schema = z.strictObject({ told: setting(z.string(), "a text"), untold: z.string() });
    expect(() => recipeKeys(schema)).toThrow(/untold: a key without a description/);
  });
});

describe("miro train --keys", () => {
  it("prints the keys of recipes, of a recipe's kind where one is named", async () => {
    const all = await runCaptured("train", "--keys");
    expect([all.code, all.stderr]).toEqual([0, ""]);
    expect(all.stdout).toMatch(/^ {2}trainer\.max_steps +optimizer steps of the whole run \(integer ≥ 1; required\)$/m);
    const text = await runCaptured("train", "emoji-text", "--keys", "--json");
    const { kind, keys } = JSON.parse(text.stdout);
    expect(kind).toBe("text-encoder");
    expect(keys).toContainEqual(expect.objectContaining({ key: "tokenizer.vocab_size", default: 2048 }));
  });
});
