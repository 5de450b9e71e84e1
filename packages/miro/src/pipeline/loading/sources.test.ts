import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ModelSource } from "./hub.js";
import { choosePart, fetchCheckpoint, fetchTextEncoder, fetchVae, variantPrefix, variantsOf } from "./sources.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-sources-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A source that notes what is fetched and makes it appear. */
function sourceOf(files: Record<string, string>): ModelSource & { fetched: string[] } {
  const fetched: string[] = [];
  return {
    name: "someone/model",
    folder,
    files: Object.keys(files),
    fetched,
    fetch: async (paths) => {
      for (const path of paths) {
        fetched.push(path);
        mkdirSync(dirname(join(folder, path)), { recursive: true });
        writeFileSync(join(folder, path), files[path]!);
      }
    },
  };
}

const checkpoint = (prefix: string) => ({
  [`${prefix}config.json`]: "{}",
  [`${prefix}model.safetensors`]: "",
  [`${prefix}uncond_embedding.npy`]: "",
});
const part = (source: ModelSource, prefix: string, parameter: string) => ({
  name: source.name,
  parameter,
  source,
  prefix,
});

describe("checkpoints", () => {
  it("are found at the root or in a variant's folder, and nothing else is fetched", async () => {
    const source = sourceOf({
      ...checkpoint(""),
      ...checkpoint("miro-no-clip/"),
      "miro-broken/config.json": "{}",
      "teaser.jpg": "",
    });
    expect(variantsOf(source)).toEqual(["miro-no-clip"]);
    expect([undefined, ""].map((none) => variantPrefix(source, none))).toEqual(["", ""]);
    expect(variantPrefix(source, "miro-no-clip")).toBe("miro-no-clip/");
    expect(await fetchCheckpoint(source, "miro-no-clip/")).toBe(join(folder, "miro-no-clip/"));
    expect(source.fetched).toEqual(Object.keys(checkpoint("miro-no-clip/")));
    for (const wrong of ["miro-broken", "..", "miro-no-clip/", "a/../b"]) {
      expect(() => variantPrefix(source, wrong)).toThrow(
        /^variant: someone\/model has no variant .*; it has miro-no-clip$/,
      );
    }
  });
});

describe("parts", () => {
  it("come from the caller, else the checkpoint's folder, else its config, else upstream's default", () => {
    const source = sourceOf({ ...checkpoint(""), "vae/config.json": "{}" });
    expect(choosePart(source, "vae/", "vae", "my/vae", "configured/vae", "default/vae")).toMatchObject({
      name: "my/vae",
      source: null,
    });
    expect(choosePart(source, "vae/", "vae", undefined, "configured/vae", "default/vae")).toMatchObject({
      source,
      prefix: "vae/",
    });
    expect(choosePart(source, "text_encoder/", "textEncoder", undefined, "configured/t5", "default/t5")).toMatchObject({
      name: "configured/t5",
      source: null,
    });
    expect(choosePart(source, "text_encoder/", "textEncoder", undefined, undefined, "default/t5")).toMatchObject({
      name: "default/t5",
    });
  });

  it("of a sharded T5 only the encoder's shards are fetched", async () => {
    const weight_map = {
      "shared.weight": "model-00001-of-00003.safetensors",
      "encoder.block.0.layer.0.SelfAttention.q.weight": "model-00002-of-00003.safetensors",
      "decoder.block.0.layer.0.SelfAttention.q.weight": "model-00003-of-00003.safetensors",
      "lm_head.weight": "model-00003-of-00003.safetensors",
    };
    const files = {
      "config.json": "{}",
      "tokenizer.json": "{}",
      "pytorch_model.bin": "",
      "model.safetensors.index.json": JSON.stringify({ weight_map }),
      ...Object.fromEntries(Object.values(weight_map).map((name) => [name, ""])),
    };
    const source = sourceOf(files);
    expect(await fetchTextEncoder(part(source, "", "textEncoder"), {})).toBe(folder);
    expect([...new Set(source.fetched)].sort()).toEqual([
      "config.json",
      "model-00001-of-00003.safetensors",
      "model-00002-of-00003.safetensors",
      "model.safetensors.index.json",
      "tokenizer.json",
    ]);
    const hostile = { "shared.weight": "../../etc/passwd" };
    const evil = sourceOf({ ...files, "model.safetensors.index.json": JSON.stringify({ weight_map: hostile }) });
    await expect(fetchTextEncoder(part(evil, "", "textEncoder"), {})).rejects.toThrow(
      /is not the name of a file beside it/,
    );
  });

  it("say what they lack", async () => {
    const source = sourceOf({ "config.json": "{}" });
    await expect(fetchTextEncoder(part(source, "", "textEncoder"), {})).rejects.toThrow(
      /^textEncoder: tokenizer\.json not found in /,
    );
    await expect(fetchVae(part(source, "", "vae"), {})).rejects.toThrow(
      /^vae: diffusion_pytorch_model\.safetensors not found in /,
    );
  });

  it("are not a release that has them, nor is a training checkpoint one", async () => {
    const release = sourceOf({ ...checkpoint(""), "vae/config.json": "{}", "text_encoder/config.json": "{}" });
    await expect(fetchTextEncoder(part(release, "", "textEncoder"), {})).rejects.toThrow(
      "textEncoder: someone/model is a whole model; name its part, someone/model/text_encoder",
    );
    await expect(fetchVae(part(release, "", "vae"), {})).rejects.toThrow("name its part, someone/model/vae");
    await expect(fetchCheckpoint(sourceOf({ "config.yaml": "", "last.ckpt": "" }), "")).rejects.toThrow(
      /is not a checkpoint: .*; miro convert makes one of last\.ckpt$/,
    );
  });
});
