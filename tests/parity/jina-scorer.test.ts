// The committed recording of jina-clip (tests/reference/fixtures/scorers/clip_jina): what its scores depend on, and
// which folders are refused. That they agree with the published libraries is in scorers.test.ts.
import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cat, noGrad, ones, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { readSafetensors, writeSafetensors } from "@miro-t2i/torch/io";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCaptured } from "../../packages/miro/src/cli/testing/run-captured.js";
import { openTensors } from "../../packages/miro/src/files/tensor-files.js";
import { decodeImage } from "../../packages/miro/src/pictures/decode.js";
import type { RgbImage } from "../../packages/miro/src/pictures/rgb.js";
import { readJinaConfig } from "../../packages/miro/src/rewards/jina-config.js";
import { jinaFacts } from "../../packages/miro/src/rewards/jina-facts.js";
import { loadJinaClip } from "../../packages/miro/src/rewards/jina-weights.js";
import { loadScorer } from "../../packages/miro/src/rewards/registry.js";
import { scorerFolder } from "../reference/fixture.js";

const home = join(scorerFolder(), "clip_jina");
const TEXT = "text_model.transformer.roberta.";
const scratch = mkdtempSync(join(tmpdir(), "miro-jina-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

type Tensors = Map<string, Tensor>;
const load = (folder = home, dtype: "float32" | "bfloat16" = "float32") =>
  loadScorer("clip_score", { weights: { clip_score: folder }, dtype });
const loadNetwork = async (folder = home) => {
  using file = openTensors(folder, ["model.safetensors"]);
  return await loadJinaClip(file, readJinaConfig(folder), { device: "cpu", dtype: "float32" });
};

/** A copy of the recording's folder with other tensors. */
function changed(name: string, change: (tensors: Tensors) => void): string {
  const folder = join(scratch, name);
  cpSync(home, folder, { recursive: true });
  scope(() => {
    const tensors = readSafetensors(join(folder, "model.safetensors"));
    change(tensors);
    writeSafetensors(join(folder, "model.safetensors"), tensors);
  });
  return folder;
}

/** A copy of the recording's folder with another setting. */
function configured(name: string, file: string, change: (json: any) => void): string {
  const folder = join(scratch, name);
  cpSync(home, folder, { recursive: true });
  const json = JSON.parse(readFileSync(join(folder, file), "utf8"));
  change(json);
  writeFileSync(join(folder, file), JSON.stringify(json));
  return folder;
}

describe("a clip_score", () => {
  let images: RgbImage[];
  const captions = ["a photo of a red bench", "", "一只小海豹 🦭 на льду", "word ".repeat(2000)];
  beforeAll(async () => {
    images = await Promise.all(
      ["square", "tall", "wide", "noise"].map((name) =>
        decodeImage(readFileSync(join(home, "..", "pictures", `${name}.png`)), {}),
      ),
    );
  });
  const close = (actual: readonly number[], expected: readonly number[]) => {
    expect(actual.length).toBe(expected.length);
    actual.forEach((score, i) => {
      expect(Math.abs(score - expected[i]!)).toBeLessThan(1e-4);
    });
  };

  it("does not depend on what else is in the batch, on its order or on longer texts beside it", async () => {
    using scorer = await load();
    const together = await scorer.score(images, captions);
    using fresh = await load();
    close((await fresh.score([...images].reverse(), [...captions].reverse())).reverse(), together);
    for (const [i, image] of images.entries()) {
      using alone = await load();
      close(await alone.score([image], [captions[i]!]), [together[i]!]);
    }
    const many = Array.from({ length: 21 }, (_, i) => i % 4);
    close(
      await fresh.score(
        many.map((i) => images[i]!),
        many.map((i) => captions[i]!),
      ),
      many.map((i) => together[i]!),
    );
  });

  it("does not depend on padding behind the end", async () => {
    const clip = await loadNetwork();
    noGrad(() =>
      scope(() => {
        const ids = [0, 17, 30, 2];
        const [short, padded, longer] = [ids, [...ids, 1, 1, 1], [...ids, 3]].map((row) => clip.text.forward([row], 1));
        const distance = (other: Tensor) => other.sub(short!).abs().max().item() as number;
        expect(distance(padded!)).toBeLessThan(1e-6);
        expect(distance(longer!)).toBeGreaterThan(1e-2);
      }),
    );
    clip.dispose();
  });

  it("does not depend on the length of a picture's feature", async () => {
    const scaled = changed("scaled", (tensors) => {
      for (const end of ["weight", "bias"]) {
        const name = `vision_model.norm.${end}`;
        tensors.set(name, tensors.get(name)!.float().mul(3));
      }
    });
    using scorer = await load();
    using other = await load(scaled);
    close(await other.score(images, captions), await scorer.score(images, captions));
  });

  it("reads 1,024 tokens of a text, and says which texts are longer", async () => {
    using scorer = await load();
    const [long, longer, short] = [5000, 10_000, 500].map((count) => "x ".repeat(count));
    const scores = await scorer.score([images[0]!, images[0]!, images[0]!], [long!, longer!, short!]);
    expect(scores[1]).toBeCloseTo(scores[0]!, 4);
    expect(Math.abs(scores[2]! - scores[0]!)).toBeGreaterThan(1e-4);
    expect([long, short, ""].map((caption) => scorer.truncates!(caption!))).toEqual([true, false, false]);
  });

  it("of a picture of one pixel is a number", async () => {
    using scorer = await load();
    const pixel = { width: 1, height: 1, data: Uint8Array.of(200, 10, 60) };
    const [score] = await scorer.score([pixel], [""]);
    expect(Math.abs(score!)).toBeLessThan(120);
  });

  it("in bfloat16 is near that in float32; rounded as published values it is a multiple of their step", async () => {
    using whole = await load();
    using half = await load(home, "bfloat16");
    using rounded = await loadScorer("clip_score", { weights: { clip_score: home }, precision: "upstream" });
    const expected = await whole.score(images, captions);
    for (const scorer of [half, rounded]) {
      const scores = await scorer.score(images, captions);
      expect(scores).not.toEqual(expected);
      scores.forEach((score, i) => {
        expect(Math.abs(score - expected[i]!)).toBeLessThan(1.5);
      });
    }
    // bfloat16 has 8 binary digits.
    for (const score of await rounded.score(images, captions)) {
      const step = 2 ** (Math.floor(Math.log2(Math.abs(score))) - 7);
      expect(Number.isInteger(score / step)).toBe(true);
    }
  });

  it("is the same from shards with an index", async () => {
    const folder = join(scratch, "shards");
    cpSync(home, folder, { recursive: true });
    scope(() => {
      const tensors = [...readSafetensors(join(folder, "model.safetensors"))];
      const half = Math.floor(tensors.length / 2);
      const weight_map: Record<string, string> = {};
      for (const [i, part] of [tensors.slice(0, half), tensors.slice(half)].entries()) {
        const file = `model-0000${i + 1}-of-00002.safetensors`;
        writeSafetensors(join(folder, file), new Map(part));
        for (const [key] of part) weight_map[key] = file;
      }
      writeFileSync(join(folder, "model.safetensors.index.json"), JSON.stringify({ weight_map }));
    });
    rmSync(join(folder, "model.safetensors"));
    using scorer = await load();
    using sharded = await load(folder);
    expect(await sharded.score(images, captions)).toEqual(await scorer.score(images, captions));
  });

  it("comes out of miro score as recorded", async () => {
    const image = join(home, "..", "pictures", "square.png");
    const { code, stdout } = await runCaptured(
      ...["score", image, "--prompt", "a photo of a red bench", "--by", "clip_score"],
      ...["--weights", `clip_score=${home}`, "--dtype", "float32", "--json"],
    );
    expect(code).toBe(0);
    const recorded = scope(() => readSafetensors(join(home, "reference.safetensors")).get("logits")!.data()[0]);
    expect(JSON.parse(stdout).images[0].scores.clip_score).toBeCloseTo(recorded as number, 3);
  });

  it("is stored divided by 100, and its weights are not for commercial use", () => {
    expect(jinaFacts).toMatchObject({
      key: "clip_score",
      stored: { divisor: 100, offset: 0 },
      license: { name: "CC-BY-NC-4.0", nonCommercial: true },
    });
  });
});

describe("low-rank updates", () => {
  it.each([
    ["word_embeddings.weight", "embeddings.word_embeddings", true],
    ["token_type_embeddings.weight", "embeddings.token_type_embeddings", true],
    ["layers.1.mixer.Wqkv.weight", "encoder.layers.1.mixer.Wqkv", false],
    ["layers.0.mixer.out_proj.weight", "encoder.layers.0.mixer.out_proj", false],
    ["layers.1.fc1.weight", "encoder.layers.1.mlp.fc1", false],
    ["layers.1.fc2.weight", "encoder.layers.1.mlp.fc2", false],
  ])("are added to %s, times alpha / rank", async (name, published, embedding) => {
    const folder = configured(`alpha-${name}`, "config.json", (json) => {
      json.text_config.hf_model_config_kwargs.lora_alpha = 6;
    });
    const clip = await loadNetwork(folder);
    scope(() => {
      const tensors = readSafetensors(join(home, "model.safetensors"));
      const part = (end: string) => tensors.get(`${TEXT}${published}.parametrizations.weight.${end}`)!.double();
      const [a, b] = [part("0.lora_A").select(0, 0), part("0.lora_B").select(0, 0)];
      const product = embedding ? a.matmul(b) : b.matmul(a);
      const expected = part("original").add(product.mul(1.5));
      const found = clip.text.stateDict().get(name)!.double();
      expect(found.sub(expected).abs().max().item()).toBeLessThan(1e-6);
      expect(product.abs().max().item()).toBeGreaterThan(1e-3);
    });
    clip.dispose();
  });
});

describe("weights that do not fit are refused by file and tensor", () => {
  const WQKV = `${TEXT}encoder.layers.0.mixer.Wqkv.parametrizations.weight.`;
  it.each<[string, (tensors: Tensors) => void, RegExp]>([
    [
      "missing",
      (t) => t.delete("vision_model.blocks.1.mlp.w2.bias"),
      /missing \(1\): vision_model\.blocks\.1\.mlp\.w2/,
    ],
    ["extra", (t) => t.set("vision_model.head.weight", tensor([1, 2])), /not part of it \(1\): vision_model\.head/],
    ["k-bias", (t) => t.set("vision_model.blocks.0.attn.k_bias", tensor([1])), /not part of it \(1\): .*k_bias/],
    [
      "shape",
      (t) => t.set("vision_model.pos_embed", ones([1, 2, 32])),
      /pos_embed: expected \[1,17,32\], found \[1,2,/,
    ],
    ["adapter", (t) => t.delete(`${WQKV}0.lora_B`), /lacks .*Wqkv\.parametrizations\.weight\.0\.lora_B/],
    ["matrix", (t) => t.delete(`${WQKV}original`), /lacks .*Wqkv\.parametrizations\.weight\.original/],
    [
      "two-adapters",
      (t) => t.set(`${WQKV}0.lora_A`, cat([t.get(`${WQKV}0.lora_A`)!, t.get(`${WQKV}0.lora_A`)!])),
      /lora_A: expected \[1,4,32\] \(one adapter of rank 4 for .*found \[2,4,32\]/,
    ],
    ["second-adapter", (t) => t.set(`${WQKV}1.lora_A`, ones([1, 4, 32])), /not part of it \(1\): .*1\.lora_A/],
    ["infinite", (t) => t.set(`${WQKV}0.lora_A`, ones([1, 4, 32]).div(0)), /lora_A/],
    ["integers", (t) => t.set("vision_model.norm.bias", ones([32], { dtype: "int64" })), /norm\.bias: .*floating/],
    [
      "foreign",
      (t) => {
        t.clear();
        t.set("logit_scale", tensor(1));
      },
      /holds no jina-clip/,
    ],
  ])("%s", async (name, change, message) => {
    const folder = changed(name, change);
    await expect(load(folder)).rejects.toThrow(message);
    await expect(load(folder)).rejects.toThrow("model.safetensors");
  });

  it("a file that is cut short", async () => {
    const folder = changed("cut", () => {});
    truncateSync(join(folder, "model.safetensors"), 100_000);
    await expect(load(folder)).rejects.toThrow("model.safetensors");
  });

  it("tables of rotary positions are passed over", async () => {
    const folder = changed("rope", (t) => {
      t.set("vision_model.rope.freqs_cos", ones([3]));
      t.set("vision_model.blocks.0.attn.rope.freqs_sin", ones([3]));
    });
    using scorer = await load(folder);
    expect(scorer.name).toBe("jina-clip-v2");
  });
});

describe("settings that change the arithmetic are refused by file and field", () => {
  it.each<[string, string, (json: any) => void, RegExp]>([
    ["base", "text_model_config.json", (j) => (j.rotary_emb_base = 10_000), /rotary_emb_base: .*20000/],
    ["activation", "text_model_config.json", (j) => (j.hidden_act = "relu"), /hidden_act: /],
    ["types", "text_model_config.json", (j) => (j.type_vocab_size = 2), /type_vocab_size: /],
    ["truncation", "config.json", (j) => (j.truncate_dim = 16), /truncate_dim: /],
    ["prefix", "config.json", (j) => (j.text_config.default_instruction_task = "x"), /default_instruction_task: /],
    ["task", "config.json", (j) => j.text_config.hf_model_config_kwargs.lora_adaptations.push("b"), /lora_adaptations/],
    ["rank", "config.json", (j) => (j.text_config.hf_model_config_kwargs.lora_rank = 8), /one adapter of rank 8/],
    ["width", "config.json", (j) => (j.vision_config.width = 64), /vision_config\.width: 64 is not .* 32/],
    ["heads", "config.json", (j) => (j.vision_config.head_width = 6), /vision_config: .* heads/],
    ["parts", "text_model_config.json", (j) => (j.num_attention_heads = 3), /3 heads of a multiple of 2 channels/],
    ["huge", "text_model_config.json", (j) => (j.vocab_size = 4_000_000), /holds \d+ weights/],
    ["pixels", "preprocessor_config.json", (j) => (j.size = 64), /size: pictures of 64 .* 36/],
    ["filter", "preprocessor_config.json", (j) => (j.interpolation = "bilinear"), /interpolation: /],
    ["mean", "preprocessor_config.json", (j) => (j.mean = [0.5, 0.5, 0.5]), /mean: expected 0\.4814/],
    ["vocabulary", "text_model_config.json", (j) => (j.vocab_size = 254), /the tokenizer has 255 tokens/],
  ])("%s", async (name, file, change, message) => {
    await expect(load(configured(`setting-${name}`, file, change))).rejects.toThrow(message);
  });
});
