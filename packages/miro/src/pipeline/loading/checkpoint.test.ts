import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { memory, scope, type Tensor, zeros } from "@miro-t2i/torch";
import { readSafetensors, writeNpy, writeSafetensors } from "@miro-t2i/torch/io";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Checkpoint, loadCheckpoint } from "./checkpoint.js";
import { readReleaseConfig, samplerDefaults } from "./release-config.js";
import { saveCheckpoint } from "./save-checkpoint.js";

const released = fileURLToPath(new URL("../../../../../tests/reference/fixtures/tiny/checkpoint", import.meta.url));
let folder: string;

beforeEach(() => {
  folder = join(mkdtempSync(join(tmpdir(), "miro-checkpoint-")), "model");
  cpSync(released, folder, { recursive: true });
});
afterEach(() => rmSync(join(folder, ".."), { recursive: true, force: true }));

function dispose(checkpoint: Checkpoint): void {
  checkpoint.network.dispose();
  checkpoint.preconditioning.dispose();
  for (const { scale, bias } of [checkpoint.preprocessing, checkpoint.postprocessing]) {
    scale.dispose();
    bias.dispose();
  }
  checkpoint.uncondEmbedding.dispose();
}

function bytes(t: Tensor): Buffer {
  const { buffer, byteOffset, byteLength } = t.data() as Uint8Array;
  return Buffer.from(buffer, byteOffset, byteLength);
}

/** Rewrites `model.safetensors`. */
function edit(change: (tensors: Map<string, Tensor>) => void): void {
  const path = join(folder, "model.safetensors");
  scope(() => {
    const tensors = new Map([...readSafetensors(path)].map(([name, t]) => [name, t.clone()]));
    change(tensors);
    writeSafetensors(path, tensors);
  });
}

/** Rewrites `config.json`. */
function configure(change: (config: Record<string, any>) => void): void {
  const path = join(folder, "config.json");
  const config = JSON.parse(readFileSync(path, "utf8"));
  change(config);
  writeFileSync(path, JSON.stringify(config));
}

describe("a published checkpoint", () => {
  it("is written back with the same names, shapes and values", () => {
    const checkpoint = loadCheckpoint(folder);
    const copy = join(folder, "..", "copy");
    saveCheckpoint(copy, checkpoint);
    expect(readdirSync(copy).sort()).toEqual(["config.json", "model.safetensors", "uncond_embedding.npy"]);
    scope(() => {
      const [before, after] = [folder, copy].map((at) => readSafetensors(join(at, "model.safetensors")));
      expect([...after!.keys()].sort()).toEqual([...before!.keys()].sort());
      for (const [name, t] of before!) {
        expect([name, after!.get(name)!.dtype, after!.get(name)!.shape]).toEqual([name, t.dtype, t.shape]);
        expect(bytes(after!.get(name)!).equals(bytes(t))).toBe(true);
      }
    });
    expect(readReleaseConfig(copy)).toEqual(readReleaseConfig(folder));
    expect(readFileSync(join(copy, "uncond_embedding.npy"))).toEqual(
      readFileSync(join(folder, "uncond_embedding.npy")),
    );
    dispose(checkpoint);
  });

  it("without reweighting has no log-variance, and one that is stored all the same is passed over", () => {
    configure((config) => {
      config.preconditioning.do_gradnorm_reweighting = false;
    });
    const written = (name: string) => {
      const checkpoint = loadCheckpoint(folder);
      saveCheckpoint(join(folder, "..", name), checkpoint);
      dispose(checkpoint);
      return join(folder, "..", name, "model.safetensors");
    };
    const stored = written("stored");
    edit((tensors) => {
      for (const name of [...tensors.keys()]) if (name.startsWith("preconditioning.")) tensors.delete(name);
    });
    expect(readFileSync(written("absent")).equals(readFileSync(stored))).toBe(true);
    scope(() => {
      const names = [...readSafetensors(stored).keys()];
      expect(names.filter((name) => name.startsWith("preconditioning."))).toEqual([]);
    });
  });

  it("is drawn with a straight schedule where its own has a shift below 1, which the published code leaves out", () => {
    const shiftOf = (shift: number, own?: number) => {
      configure((config) => {
        config.scheduler.shift = shift;
        config.sampler_defaults = own === undefined ? {} : { shift: own };
      });
      return samplerDefaults(readReleaseConfig(folder).settings).shift;
    };
    expect([shiftOf(0.5), shiftOf(0), shiftOf(-1), shiftOf(2), shiftOf(2, 0.5)]).toEqual([1, 1, 1, 2, 0.5]);
  });

  it("loads from half precision; frequencies written by us stay float32", () => {
    const checkpoint = loadCheckpoint(folder);
    saveCheckpoint(folder, { ...checkpoint, dtype: "float16" });
    scope(() => {
      const dtypes = new Map(
        [...readSafetensors(join(folder, "model.safetensors"))].map(([name, t]) => [name, t.dtype]),
      );
      expect(dtypes.get("network.latents")).toBe("float16");
      expect(dtypes.get("network.time_embedder.encode_time.freqs")).toBe("float32");
      expect(dtypes.get("network.cond_mask")).toBe("bool");
    });
    const half = loadCheckpoint(folder);
    expect(half.network.latents.dtype).toBe("float32");
    const difference = scope(() => half.network.latents.sub(checkpoint.network.latents).abs().max().item() as number);
    expect(difference).toBeLessThan(2e-3);
    dispose(half);
    dispose(checkpoint);
  });

  it("loads in bfloat16 with float32 frequencies", () => {
    const checkpoint = loadCheckpoint(folder, { dtype: "bfloat16" });
    expect(checkpoint.network.patchExtractor.weight.dtype).toBe("bfloat16");
    expect(checkpoint.network.stateDict().get("time_embedder.encode_time.freqs")!.dtype).toBe("float32");
    dispose(checkpoint);
  });

  it("takes unconditional embeddings of one or two dimensions, and SDXL's constants where it has none", () => {
    const flat = scope(() => zeros([48]).keep());
    writeNpy(join(folder, "uncond_embedding.npy"), flat);
    flat.dispose();
    edit((tensors) => {
      for (const name of [...tensors.keys()])
        if (/^(data_preprocessing|postprocessing)\./.test(name)) tensors.delete(name);
      tensors.set("postprocessing.vae.whatever", zeros([3]));
    });
    const [checkpoint, original] = [loadCheckpoint(folder), loadCheckpoint(released)];
    expect(checkpoint.uncondEmbedding.shape).toEqual([1, 48]);
    expect(checkpoint.postprocessing.scale.toList()).toEqual(original.postprocessing.scale.toList());
    expect(checkpoint.postprocessing.bias.toList()).toEqual(original.postprocessing.bias.toList());
    dispose(checkpoint);
    dispose(original);
  });
});

describe("a broken checkpoint is refused in one line that names the file", () => {
  const weights = () => join(folder, "model.safetensors");
  const config = () => join(folder, "config.json");

  it.each<[string, () => void, () => RegExp]>([
    ["a missing file", () => rmSync(weights()), () => /model\.safetensors: not found; a checkpoint folder holds/],
    ["a truncated file", () => truncateSync(weights(), 300_000), () => /model\.safetensors.*byte \d+/],
    ["an empty file", () => truncateSync(weights(), 0), () => /model\.safetensors.*byte 0/],
    ["no JSON", () => writeFileSync(config(), "{"), () => /config\.json: not valid JSON/],
    ["a list", () => writeFileSync(config(), "[]"), () => /config\.json: expected an object/],
    [
      "an unknown argument",
      () => configure((c) => Object.assign(c.network, { wings: 2 })),
      () => /config\.json: network\.wings: unknown argument/,
    ],
    ["no resolution", () => configure((c) => delete c.data_resolution), () => /config\.json: data_resolution: /],
    [
      "an absurd size",
      () => configure((c) => Object.assign(c.network, { num_latents: 1e12 })),
      () => /network\.latents: expected shape \[1000000000000,64\]/,
    ],
    [
      "an absurd depth",
      () => configure((c) => Object.assign(c.network, { num_blocks: 1e9 })),
      () => /expected 1000000000 RIN blocks as config\.json says, found 2/,
    ],
    [
      "other rewards",
      () => configure((c) => Object.assign(c, { coherence_keys: ["a"] })),
      () => /coherence_keys differ/,
    ],
    [
      "a missing tensor",
      () => edit((t) => void t.delete("network.data_ln.weight")),
      () => /model\.safetensors: .*missing.*data_ln\.weight/,
    ],
    [
      "an extra tensor",
      () => edit((t) => void t.set("network.more", zeros([1]))),
      () => /model\.safetensors: .*unexpected.*more/,
    ],
    [
      "a wrong shape",
      () => edit((t) => void t.set("network.data_ln.weight", zeros([5]))),
      () => /model\.safetensors: .*data_ln\.weight: expected \[32\], got \[5\]/,
    ],
    [
      "a wrong embedding",
      () => scope(() => writeNpy(join(folder, "uncond_embedding.npy"), zeros([2, 3]))),
      () => /uncond_embedding\.npy: expected shape \(48,\) or \(n, 48\), found \(2, 3\)/,
    ],
  ])("%s", (_what, damage, message) => {
    damage();
    const before = memory.stats().liveTensors;
    let text = "";
    try {
      dispose(loadCheckpoint(folder));
    } catch (error) {
      text = (error as Error).message;
    }
    expect(text).toMatch(message());
    expect(text).toContain(folder);
    expect(text).not.toContain("\n");
    expect(memory.stats().liveTensors).toBe(before);
  });

  it("a folder of variants lists them", () => {
    cpSync(released, join(folder, "..", "all", "one"), { recursive: true });
    expect(() => loadCheckpoint(join(folder, "..", "all"))).toThrow(/the folder has the variants one/);
  });
});
