import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { empty, memory, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { readSafetensors, writeSafetensors } from "@miro-t2i/torch/io";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openTensors } from "../files/tensor-files.js";
import { decodeImage } from "../pictures/decode.js";
import type { RgbImage } from "../pictures/rgb.js";
import { loadScorer } from "./registry.js";
import { VQA_WEIGHTS } from "./vqa-facts.js";
import { loadVqaScorer } from "./vqa-scorer.js";

const RECORDED = fileURLToPath(new URL("../../../../tests/reference/fixtures/scorers/", import.meta.url));
const HOME = join(RECORDED, "vqa");
const scratch = mkdtempSync(join(tmpdir(), "miro-vqa-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const captions = ["a photo of a red bench", "", "two dogs on a sofa", "word ".repeat(40)];
let images: RgbImage[];
beforeAll(async () => {
  images = await Promise.all(
    ["square", "tall", "wide", "noise"].map((name) =>
      decodeImage(readFileSync(join(RECORDED, "pictures", `${name}.png`)), {}),
    ),
  );
});

const options = (home: string, more: Record<string, string> = {}) =>
  ({ weights: { vqa_score: home, ...more }, dtype: "float32" }) as const;

type Tensors = Map<string, Tensor>;

/** The recorded folder as one safetensors file, changed. */
function folder(name: string, change: (tensors: Tensors) => void, config: Record<string, unknown> = {}): string {
  const home = join(scratch, name);
  mkdirSync(home);
  for (const file of ["architecture.json", "tokenizer.json"]) cpSync(join(HOME, file), join(home, file));
  const json = JSON.parse(readFileSync(join(HOME, "config.json"), "utf8"));
  writeFileSync(join(home, "config.json"), JSON.stringify({ ...json, ...config }));
  scope(() => {
    using file = openTensors(HOME, VQA_WEIGHTS);
    const tensors: Tensors = new Map();
    for (const key of file.keys()) {
      const values = empty([...file.info(key).shape], { dtype: "bfloat16" });
      file.copyTo(key, values);
      tensors.set(key, values);
    }
    change(tensors);
    writeSafetensors(join(home, "model.safetensors"), tensors);
  });
  return home;
}

describe("layers that are read from disk", () => {
  /** Layers of each side: those of the recording again and again, whose tensors are in memory once. */
  const LAYERS = 24;
  let deep: string;
  beforeAll(() => {
    const again = (tensors: Tensors) => {
      for (const [key, values] of [...tensors]) {
        const block = /^(encoder|decoder)\.block\.1\.(.*)$/.exec(key);
        if (!block) continue;
        for (let i = 2; i < LAYERS; i++) tensors.set(`${block[1]}.block.${i}.${block[2]}`, values);
      }
    };
    deep = folder("deep", again, { num_layers: LAYERS, num_decoder_layers: LAYERS });
  });

  it("need the memory of one of them and give the same score to the bit", async () => {
    const told: string[] = [];
    const onMessage = (text: string) => told.push(text);
    const image = images.slice(0, 1);
    memory.collect();
    const before = memory.stats().liveBytes;
    // Enough for one layer and what a batch needs, too little for all layers.
    const streamed = await loadVqaScorer({ ...options(deep), onMessage }, 11e6);
    expect(told).toEqual([expect.stringMatching(/^vqa_score: needs .* layers are read from disk for each batch/)]);
    const first = await streamed.score(image, ["a bench"]);
    const peak = memory.stats().peakBytes - before;
    const again = await streamed.score(images, captions);
    streamed.dispose();
    const resident = await loadVqaScorer({ ...options(deep), onMessage }, Number.POSITIVE_INFINITY);
    const held = memory.stats().liveBytes - before;
    expect(told).toHaveLength(1);
    expect(await resident.score(image, ["a bench"])).toEqual(first);
    expect(await resident.score(images, captions)).toEqual(again);
    resident.dispose();
    expect(new Set(again).size).toBe(4);
    expect(held).toBeGreaterThan(4.5e6);
    expect(peak).toBeLessThan(2e6);
  });

  it("are refused before anything is read where there is no memory even for one", async () => {
    await expect(loadVqaScorer(options(deep), 100_000)).rejects.toThrow(/vqa_score: needs .* are free/);
  });
});

describe("a score", () => {
  it("does not depend on what else is in the batch, nor on its order", async () => {
    using scorer = await loadScorer("vqa_score", options(HOME));
    const together = await scorer.score(images, captions);
    const reversed = await scorer.score([...images].reverse(), [...captions].reverse());
    for (const [i, image] of images.entries()) {
      expect(reversed[images.length - 1 - i]).toBeCloseTo(together[i]!, 5);
      expect((await scorer.score([image], [captions[i]!]))[0]).toBeCloseTo(together[i]!, 5);
    }
  });

  it("is that of the cleaned caption", async () => {
    using scorer = await loadScorer("vqa_score", options(HOME));
    const same = [images[0]!, images[0]!, images[0]!];
    const [plain, dirty, other] = await scorer.score(same, ["a dog", "<PERSON> `a`  dog ```x", "a dog."]);
    expect(dirty).toBeCloseTo(plain!, 6);
    expect(Math.abs(other! - plain!)).toBeGreaterThan(1e-6);
  });

  it("of a picture of one pixel and a caption of 10,000 characters is a probability, and the caption is cut", async () => {
    using scorer = await loadScorer("vqa_score", options(HOME));
    const pixel = { width: 1, height: 1, data: Uint8Array.of(200, 10, 60) };
    const long = "a green xylophone ".repeat(600);
    const [score] = await scorer.score([pixel], [long]);
    expect(score).toBeGreaterThan(0);
    expect(score).toBeLessThan(1);
    expect(scorer.truncates?.(long)).toBe(true);
    expect(scorer.truncates?.("a green xylophone")).toBe(false);
  });

  it("in bfloat16 is near that in float32, and not the same", async () => {
    using half = await loadScorer("vqa_score", { ...options(HOME), dtype: "bfloat16" });
    using whole = await loadScorer("vqa_score", options(HOME));
    const [a, b] = [await half.score(images, captions), await whole.score(images, captions)];
    expect(half.dtype).toBe("bfloat16");
    expect(a).not.toEqual(b);
    a.forEach((score, i) => {
      expect(Math.abs(score - b[i]!)).toBeLessThan(0.02);
    });
  });

  it("with the published rounding comes from logits in bfloat16", async () => {
    const rounded = await loadScorer("vqa_score", { ...options(HOME), precision: "upstream" });
    using half = await loadScorer("vqa_score", { ...options(HOME), dtype: "bfloat16" });
    const [a, b] = [await rounded.score(images, captions), await half.score(images, captions)];
    rounded.dispose();
    expect(a).not.toEqual(b);
    a.forEach((score, i) => {
      expect(Math.abs(score / b[i]! - 1)).toBeLessThan(0.03);
    });
  });

  it("is not computed in float16", async () => {
    await expect(loadScorer("vqa_score", { ...options(HOME), dtype: "float16" })).rejects.toThrow(
      /dtype.*overflows in float16/,
    );
  });
});

describe("the published layouts", () => {
  const score = async (home: string, more: Record<string, string> = {}) => {
    using scorer = await loadScorer("vqa_score", options(home, more));
    return await scorer.score(images, captions);
  };

  it("one safetensors file, copies of the embedding, rows without a token: the same score", async () => {
    const wanted = await score(HOME);
    const copies = folder("copies", (tensors) => {
      const shared = tensors.get("shared.weight")!;
      for (const name of ["encoder.embed_tokens", "decoder.embed_tokens", "embed_tokens"])
        tensors.set(`${name}.weight`, shared);
    });
    expect(await score(copies)).toEqual(wanted);
    const renamed = folder("renamed", (tensors) => {
      tensors.set("encoder.embed_tokens.weight", tensors.get("shared.weight")!);
      tensors.delete("shared.weight");
    });
    expect(await score(renamed)).toEqual(wanted);
    const longer = folder("longer", (tensors) => {
      for (const key of ["shared.weight", "lm_head.weight"]) {
        const values = tensors.get(key)!;
        const rows = empty([values.size(0) + 28, values.size(1)], { dtype: "bfloat16" }).fill_(3);
        rows.narrow(0, 0, values.size(0)).copy_(values);
        tensors.set(key, rows);
      }
    });
    expect(await score(longer)).toEqual(wanted);
  });

  it("the vision tower in a folder of its own, with a text side beside it, and the tokenizer in another", async () => {
    const tower = join(scratch, "tower");
    mkdirSync(tower);
    const own: Tensors = new Map();
    const PREFIX = "vision_tower.vision_tower.";
    const home = folder("without", (tensors) => {
      for (const [key, values] of [...tensors])
        if (key.startsWith(PREFIX)) {
          own.set(key.slice(PREFIX.length), values);
          tensors.delete(key);
        }
      own.set("logit_scale", tensor(4));
      own.set("visual_projection.weight", tensor([[1, 2]]));
      own.set("vision_model.embeddings.position_ids", tensor([0n, 1n]));
      writeSafetensors(join(tower, "model.safetensors"), own);
    });
    const { vision } = JSON.parse(readFileSync(join(HOME, "architecture.json"), "utf8"));
    const config = {
      model_type: "clip",
      vision_config: {
        hidden_size: vision.width,
        num_hidden_layers: vision.layers,
        num_attention_heads: vision.heads,
        intermediate_size: vision.mlp,
        image_size: vision.image,
        patch_size: vision.patch,
      },
    };
    writeFileSync(join(tower, "config.json"), JSON.stringify(config));
    rmSync(join(home, "tokenizer.json"));
    const parts = { vqa_vision_tower: tower, vqa_tokenizer: HOME };
    expect(await score(home, parts)).toEqual(await score(HOME));
    await expect(score(home, { ...parts, vqa_tokenizer: tower })).rejects.toThrow(/tower: holds no tokenizer\.json/);
    await expect(score(home, { vqa_tower: tower })).rejects.toThrow(/weights.*"vqa_tower" is not known/);
  });
});

describe("weights that do not fit are refused by file and tensor", () => {
  const q = "decoder.block.1.layer.1.EncDecAttention.q.weight";
  it.each([
    ["missing", (t) => t.delete(q), new RegExp(`missing \\(1\\): ${q}`)],
    ["no embedding", (t) => t.delete("shared.weight"), /missing: shared\.weight/],
    ["extra", (t) => t.set("encoder.pooler.weight", tensor([1])), /not part of it \(1\): encoder\.pooler\.weight/],
    [
      "another layer",
      (t) => t.set("encoder.block.2.layer.0.layer_norm.weight", tensor([1])),
      /not part of it \(1\): encoder\.block\.2/,
    ],
    ["shape", (t) => t.set("mm_projector.2.bias", tensor([1])), /mm_projector\.2\.bias: expected \[48\], found \[1\]/],
    ["head", (t) => t.set("lm_head.weight", tensor([[1]])), /lm_head\.weight: expected \[353,48\], found \[1,1\]/],
    [
      "part of the tower",
      (t) => t.delete("vision_tower.vision_tower.vision_model.post_layernorm.bias"),
      /missing \(1\): vision_tower\.vision_tower\.vision_model\.post_layernorm\.bias/,
    ],
    [
      "infinite",
      (t) => t.set("encoder.final_layer_norm.weight", t.get("encoder.final_layer_norm.weight")!.mul(Number.NaN)),
      /encoder\.final_layer_norm\.weight/,
    ],
  ] as [string, (tensors: Tensors) => void, RegExp][])("%s", async (name, change, message) => {
    const home = folder(name.replaceAll(" ", "-"), change);
    await expect(loadScorer("vqa_score", options(home))).rejects.toThrow(message);
    await expect(loadScorer("vqa_score", options(home))).rejects.toThrow("model.safetensors");
  });

  it("a shard that is cut short or lacking", async () => {
    const home = join(scratch, "cut");
    cpSync(HOME, home, { recursive: true });
    const shard = "pytorch_model-00002-of-00002.bin";
    truncateSync(join(home, shard), 90_000);
    await expect(loadScorer("vqa_score", options(home))).rejects.toThrow(shard);
    rmSync(join(home, shard));
    await expect(loadScorer("vqa_score", options(home))).rejects.toThrow(shard);
    expect(existsSync(join(home, shard))).toBe(false);
  });

  it.each([
    ["tied", { tie_word_embeddings: true }, /config\.json: tie_word_embeddings/],
    ["kind", { model_type: "t5" }, /config\.json: model_type: expected "clip_t5"/],
    ["layer", { mm_vision_select_layer: -1 }, /config\.json: mm_vision_select_layer/],
    ["width", { mm_hidden_size: 33 }, /mm_hidden_size: expected 32.*found 33/],
    ["huge", { d_model: 65_536, d_ff: 1_048_576 }, /holds \d+ weights; the shape of this CLIP-FlanT5 has \d+/],
    ["vocabulary", { vocab_size: 300 }, /the tokenizer has 353 tokens, T5 300/],
  ])("a configuration of another model: %s", async (name, config, message) => {
    const home = folder(`config-${name}`, () => {}, config);
    await expect(loadScorer("vqa_score", options(home))).rejects.toThrow(message);
  });
});

it("the recorded score of the first picture and caption", async () => {
  using scorer = await loadScorer("vqa_score", options(HOME));
  const [score] = await scorer.score(images.slice(0, 1), [captions[0]!]);
  scope(() => {
    const recorded = readSafetensors(join(HOME, "reference.safetensors")).get("score")!;
    expect(score).toBeCloseTo(recorded.select(0, 0).select(0, 0).item() as number, 6);
  });
});
