// The committed recording of the published scorers (tests/reference/fixtures/scorers), every check of
// `npm run parity -- --part scorers`.
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { memory, scope, tensor } from "@miro-t2i/torch";
import { readSafetensors, writeSafetensors } from "@miro-t2i/torch/io";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { runCaptured } from "../../packages/miro/src/cli/testing/run-captured.js";
import { decodeImage } from "../../packages/miro/src/pictures/decode.js";
import type { RgbImage } from "../../packages/miro/src/pictures/rgb.js";
import { loadScorer } from "../../packages/miro/src/rewards/registry.js";
import { scorerFolder } from "../reference/fixture.js";
import { table } from "./report.js";
import { compareScorers } from "./scorers.js";

const folder = scorerFolder();
const scratch = mkdtempSync(join(tmpdir(), "miro-scorers-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const load = (key: string, of: string, home = join(folder, of)) =>
  loadScorer(key, { weights: { [key]: home }, dtype: "float32" });

it("pixels, ids, features, logits and scores agree with the published libraries", async () => {
  const rows = await compareScorers(folder);
  expect(rows.length).toBeGreaterThanOrEqual(15);
  expect(
    rows.every(({ ok }) => ok),
    `\n${table(rows)}`,
  ).toBe(true);
});

describe("a score", () => {
  let images: RgbImage[];
  const captions = ["a photo of a red bench", "", "two dogs on a sofa", "word ".repeat(100)];
  beforeAll(async () => {
    images = await Promise.all(
      ["square", "tall", "wide", "noise"].map((name) =>
        decodeImage(readFileSync(join(folder, "pictures", `${name}.png`)), {}),
      ),
    );
  });

  it("does not depend on what else is in the batch, nor on its order", async () => {
    using scorer = await load("pick_a_score_score", "pick_score");
    const together = await scorer.score(images, captions);
    const reversed = await scorer.score([...images].reverse(), [...captions].reverse());
    using fresh = await load("pick_a_score_score", "pick_score");
    for (const [i, image] of images.entries()) {
      expect(reversed[images.length - 1 - i]).toBeCloseTo(together[i]!, 4);
      expect((await fresh.score([image], [captions[i]!]))[0]).toBeCloseTo(together[i]!, 4);
    }
  });

  it("is that of the text up to the end token", async () => {
    using scorer = await load("clip_openai", "clip_openai");
    const texts = ["a red bench", "a red bench<|endoftext|> and a dog", "a red bench and a dog"];
    const [short, ended, long] = await scorer.score([images[0]!, images[0]!, images[0]!], texts);
    expect(ended).toBeCloseTo(short!, 4);
    expect(Math.abs(long! - short!)).toBeGreaterThan(1e-3);
  });

  it("of a picture of one pixel and a caption of 10,000 characters is a number", async () => {
    using scorer = await load("hpsv2_score", "hpsv2");
    const pixel = { width: 1, height: 1, data: Uint8Array.of(200, 10, 60) };
    const [score] = await scorer.score([pixel], ["x".repeat(10_000)]);
    expect(Math.abs(score!)).toBeLessThan(1);
  });

  it("with the letterbox is another one for pictures that are not square, and the same for square ones", async () => {
    const options = { weights: { hpsv2_score: join(folder, "hpsv2") }, dtype: "float32" } as const;
    using crop = await loadScorer("hpsv2_score", options);
    using letterbox = await loadScorer("hpsv2_score", { ...options, hpsLetterbox: true });
    const two = [images[0]!, images[2]!];
    const texts = ["a clock", "a clock"];
    const [a, b] = [await crop.score(two, texts), await letterbox.score(two, texts)];
    expect(b[0]).toBe(a[0]);
    expect(Math.abs(b[1]! - a[1]!)).toBeGreaterThan(1e-4);
  });

  it("has the learned scale of the file, unrounded, in bfloat16 too", async () => {
    const home = mkdtempSync(join(tmpdir(), "miro-scale-"));
    const scores: number[] = [];
    const image = { width: 8, height: 8, data: Uint8Array.from({ length: 192 }, (_, i) => (i * 37) % 256) };
    for (const scale of [4.6, 4.605]) {
      const at = join(home, `${scale}`);
      cpSync(join(folder, "pick_score"), at, { recursive: true });
      const tensors = readSafetensors(join(at, "model.safetensors"));
      tensors.set("logit_scale", tensor(scale));
      writeSafetensors(join(at, "model.safetensors"), tensors);
      for (const one of tensors.values()) one.dispose();
      using scorer = await loadScorer("pick_a_score_score", { weights: { pick_a_score_score: at }, dtype: "bfloat16" });
      scores.push((await scorer.score([image], ["a cat"]))[0]!);
    }
    rmSync(home, { recursive: true, force: true });
    expect(scores[1]! / scores[0]!).toBeCloseTo(Math.exp(0.005), 5);
  });

  it.each(["module.", "_orig_mod.", "module._orig_mod."])(
    "is the same where all names begin with %s",
    async (prefix) => {
      const home = join(scratch, prefix);
      cpSync(join(folder, "pick_score"), home, { recursive: true });
      const path = join(home, "model.safetensors");
      const tensors = readSafetensors(path);
      writeSafetensors(path, new Map([...tensors].map(([name, values]) => [prefix + name, values])));
      using scorer = await load("pick_a_score_score", "pick_score");
      using wrapped = await load("pick_a_score_score", "", home);
      expect(await wrapped.score(images, captions)).toEqual(await scorer.score(images, captions));
      tensors.set("other", tensors.get("logit_scale")!);
      writeSafetensors(
        path,
        new Map([...tensors].map(([name, values]) => [name.replace(/^logit/, `${prefix}$&`), values])),
      );
      await expect(load("pick_a_score_score", "", home)).rejects.toThrow(/not part of it \(2\): .*logit_scale, other/);
      for (const one of new Set(tensors.values())) one.dispose();
    },
  );

  it("in bfloat16 is near that in float32, and not the same", async () => {
    const weights = { hpsv2_score: join(folder, "hpsv2") };
    using half = await loadScorer("hpsv2_score", { weights, dtype: "bfloat16" });
    using whole = await loadScorer("hpsv2_score", { weights, dtype: "float32" });
    const [a, b] = [await half.score(images, captions), await whole.score(images, captions)];
    expect(a).not.toEqual(b);
    a.forEach((score, i) => {
      expect(Math.abs(score - b[i]!)).toBeLessThan(0.05);
    });
  });
});

describe("ImageReward's score", () => {
  let images: RgbImage[];
  let expected: (picture: number, caption: number) => number;
  const { captions, scored_pictures: names } = JSON.parse(readFileSync(join(folder, "scorers.json"), "utf8")) as {
    captions: string[];
    scored_pictures: string[];
  };
  const loadReward = () => load("image_reward_score", "image_reward");
  beforeAll(async () => {
    images = await Promise.all(
      names.map((name) => decodeImage(readFileSync(join(folder, "pictures", `${name}.png`)), {})),
    );
    const rewards = scope(() => {
      const recorded = readSafetensors(join(folder, "image_reward", "reference.safetensors"));
      return Float32Array.from(recorded.get("reward")!.data() as Float32Array);
    });
    expected = (picture, caption) => rewards[picture * captions.length + caption]!;
  });

  it("is that of each pair alone: no other pair, order or length of another caption changes it", async () => {
    using scorer = await loadReward();
    // Captions of 2 to 35 tokens, among them an empty one.
    const pairs = captions.map((_, i) => [i % images.length, i] as const);
    for (const order of [pairs, [...pairs].reverse(), pairs.slice(3, 4), pairs.slice(0, 5)]) {
      const scores = await scorer.score(
        order.map(([picture]) => images[picture]!),
        order.map(([, caption]) => captions[caption]!),
      );
      order.forEach(([picture, caption], i) => {
        expect(scores[i]).toBeCloseTo(expected(picture, caption), 4);
      });
    }
  });

  it("depends on the picture and on the first 35 tokens of the caption", async () => {
    using scorer = await loadReward();
    const score = async (picture: number, caption: string) => (await scorer.score([images[picture]!], [caption]))[0]!;
    const long = "a ".repeat(33);
    expect(await score(0, `${long}bench`)).toBe(await score(0, `${long}${"train ".repeat(2000)}`));
    expect(Math.abs((await score(0, "a bench")) - (await score(0, "a train")))).toBeGreaterThan(1e-3);
    expect(Math.abs((await score(0, "a bench")) - (await score(1, "a bench")))).toBeGreaterThan(1e-3);
    expect([long, `${long}a`].map((caption) => scorer.truncates?.(caption))).toEqual([false, true]);
  });

  it("of a picture of one pixel and a caption of 10,000 characters is a number", async () => {
    using scorer = await loadReward();
    const pixel = { width: 1, height: 1, data: Uint8Array.of(200, 10, 60) };
    const scores = await scorer.score([pixel, pixel, pixel], ["x".repeat(10_000), "", "🦭".repeat(5000)]);
    for (const score of scores) expect(Math.abs(score)).toBeLessThan(10);
  });

  it("in bfloat16 is near that in float32, and not the same", async () => {
    using half = await loadScorer("image_reward_score", {
      weights: { image_reward_score: join(folder, "image_reward") },
      dtype: "bfloat16",
    });
    expect(half.dtype).toBe("bfloat16");
    using published = await loadScorer("image_reward_score", {
      weights: { image_reward_score: join(folder, "image_reward") },
      dtype: "bfloat16",
      precision: "upstream",
    });
    expect(published.dtype).toBe("float32");
    const scores = await half.score(images, captions.slice(0, images.length));
    scores.forEach((score, i) => {
      expect(score).not.toBe(expected(i, i));
      expect(Math.abs(score - expected(i, i))).toBeLessThan(0.25);
    });
  });

  /** The committed folder with some of its files changed. */
  const changed = (name: string, files: Record<string, string | Buffer | null>): string => {
    const home = join(scratch, `reward-${name}`);
    cpSync(join(folder, "image_reward"), home, { recursive: true });
    for (const [path, content] of Object.entries(files))
      if (content === null) rmSync(join(home, path));
      else writeFileSync(join(home, path), content);
    return home;
  };
  const stated = (file: string, change: (content: Record<string, unknown>) => void): string => {
    const content = JSON.parse(readFileSync(join(folder, "image_reward", file), "utf8"));
    change(content);
    return JSON.stringify(content);
  };

  it.each([
    [
      "a shape of other layers",
      { "med_config.json": stated("med_config.json", (c) => Object.assign(c, { num_hidden_layers: 3 })) },
      /ImageReward\.pt: .*missing \(\d+\): blip\.text_encoder\.encoder\.layer\.2\./,
    ],
    [
      "a shape of fewer layers",
      { "med_config.json": stated("med_config.json", (c) => Object.assign(c, { num_hidden_layers: 1 })) },
      /ImageReward\.pt: .*not part of it \(\d+\): blip\.text_encoder\.encoder\.layer\.1\./,
    ],
    [
      "another width of the feed-forward layers",
      { "architecture.json": stated("architecture.json", (c) => Object.assign(c.vision!, { mlp: 120 })) },
      /blip\.visual_encoder\.blocks\.0\.mlp\.fc1\.weight: expected \[120,32\], found \[128,32\]/,
    ],
    [
      "another head",
      { "architecture.json": stated("architecture.json", (c) => Object.assign(c, { head: [24, 20, 16, 12, 8, 1] })) },
      /ImageReward\.pt: mlp\.layers\.0\.weight: expected \[20,24\], found \[24,24\]/,
    ],
    [
      "heads that do not divide the width",
      { "med_config.json": stated("med_config.json", (c) => Object.assign(c, { num_attention_heads: 5 })) },
      /med_config\.json: num_attention_heads: 5 heads do not divide a width of 24/,
    ],
    [
      "another activation",
      { "med_config.json": stated("med_config.json", (c) => Object.assign(c, { hidden_act: "relu" })) },
      /med_config\.json: hidden_act/,
    ],
    [
      "more tokens than positions",
      { "architecture.json": stated("architecture.json", (c) => Object.assign(c, { text_length: 49 })) },
      /architecture\.json: text_length: 49 tokens, but .*med_config\.json has 48 positions/,
    ],
    [
      "another vocabulary",
      { "tokenizer/vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n" },
      /7 tokens, the text tower 506/,
    ],
    ["no checkpoint", { "ImageReward.pt": Buffer.from("nothing") }, /ImageReward\.pt/],
  ] as [string, Record<string, string | Buffer | null>, RegExp][])(
    "is refused with %s",
    async (name, files, message) => {
      const home = changed(name.replaceAll(" ", "-"), files);
      await expect(load("image_reward_score", "", home)).rejects.toThrow(message);
    },
  );

  it("is refused with a file that is cut short, and with weights of another model", async () => {
    const cut = changed("cut", {});
    truncateSync(join(cut, "ImageReward.pt"), 200_000);
    await expect(load("image_reward_score", "", cut)).rejects.toThrow("ImageReward.pt");
    const other = changed("other", {
      "ImageReward.pt": readFileSync(join(folder, "hpsv2", "HPS_v2.1_compressed.pt")),
    });
    await expect(load("image_reward_score", "", other)).rejects.toThrow(/ImageReward\.pt: not the head of a scorer/);
  });

  it("takes the vocabulary from the Hub where the folder has none, and says what is missing without it", async () => {
    const home = changed("no-vocabulary", { "tokenizer/vocab.txt": null });
    const cacheDir = join(scratch, "hub");
    const options = { weights: { image_reward_score: home }, cacheDir };
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    try {
      await expect(loadScorer("image_reward_score", options)).rejects.toThrow(
        /reward-no-vocabulary: has no vocabulary, .*google-bert\/bert-base-uncased.*Put its vocab\.txt into .*tokenizer/,
      );
      const commit = "0".repeat(40);
      const repository = join(cacheDir, "models--google-bert--bert-base-uncased");
      mkdirSync(join(repository, "refs"), { recursive: true });
      mkdirSync(join(repository, "snapshots", commit), { recursive: true });
      writeFileSync(join(repository, "refs", "main"), commit);
      writeFileSync(join(repository, "snapshots", commit, "vocab.txt"), "[PAD]\n");
      await expect(loadScorer("image_reward_score", options)).rejects.toThrow(/vocab\.txt: not the vocabulary of bert/);
    } finally {
      vi.unstubAllEnvs();
    }
  });
});

describe("rounded as published values are", () => {
  // transformers 5.24 and open_clip 3.3 with torch.autocast("cpu", …) on the same files: picture i with caption i.
  const recorded = {
    clip_openai: ["clip_openai", "bfloat16", [-5.25, 20.5, -5.5625, 25.125], 0.25],
    pick_a_score_score: ["pick_score", "bfloat16", [18.625, 9.875, -3.015625, -2.375], 0.25],
    hpsv2_score: ["hpsv2", "float16", [-0.015144, -0.186718, 0.136688, 0.076504], 2e-3],
  } as const;

  it.each(Object.entries(recorded))("%s", async (key, [of, dtype, expected, step]) => {
    const { captions, scored_pictures } = JSON.parse(readFileSync(join(folder, "scorers.json"), "utf8"));
    const images = await Promise.all(
      scored_pictures
        .slice(0, 4)
        .map((name: string) => decodeImage(readFileSync(join(folder, "pictures", `${name}.png`)), {})),
    );
    const weights = { [key]: join(folder, of) };
    using scorer = await loadScorer(key, { weights, precision: "upstream" });
    using exact = await loadScorer(key, { weights, dtype: "float32" });
    expect(scorer.dtype).toBe(dtype);
    const scores = await scorer.score(images, captions.slice(0, 4));
    scores.forEach((score, i) => {
      expect(Math.abs(score - expected[i]!)).toBeLessThanOrEqual(step);
    });
    expect(scores).not.toEqual(await exact.score(images, captions.slice(0, 4)));
    // Logits are bfloat16 themselves, cosines of HPSv2 are not.
    const rounded = scope(() => tensor(scores).to({ dtype: "bfloat16" }).toList());
    expect(String(rounded) === String(scores)).toBe(key !== "hpsv2_score");
  });

  it("the aesthetic score, with features in float16", async () => {
    const weights = { aesthetic_score: join(folder, "aesthetic"), clip_openai: join(folder, "clip_openai") };
    using scorer = await loadScorer("aesthetic_score", { weights, precision: "upstream" });
    using exact = await loadScorer("aesthetic_score", { weights, dtype: "float32" });
    const image = await decodeImage(readFileSync(join(folder, "pictures", "tall.png")), {});
    const [score, near] = [(await scorer.score([image], []))[0]!, (await exact.score([image], []))[0]!];
    expect(scorer.dtype).toBe("float16");
    expect(score).not.toBe(near);
    expect(Math.abs(score - near)).toBeLessThan(0.01);
  });
});

it("scorers of one model hold its tower together, until the last of them is freed", async () => {
  const weights = { aesthetic_score: join(folder, "aesthetic"), clip_openai: join(folder, "clip_openai") };
  const image = await decodeImage(readFileSync(join(folder, "pictures", "square.png")), {});
  const before = memory.stats().liveBytes;
  const clip = await loadScorer("clip_openai", { weights, dtype: "float32" });
  const one = memory.stats().liveBytes - before;
  const aesthetic = await loadScorer("aesthetic_score", { weights, dtype: "float32" });
  expect(memory.stats().liveBytes - before - one).toBeLessThan(0.01 * one);
  const [both] = await aesthetic.score([image], []);
  clip.dispose();
  clip.dispose();
  expect((await aesthetic.score([image], []))[0]).toBe(both);
  aesthetic.dispose();
  expect(memory.stats().liveBytes).toBe(before);
});

describe("weights that do not fit are refused by file and tensor", () => {
  const broken = (name: string, change: (tensors: Map<string, ReturnType<typeof tensor>>) => void): string => {
    const home = join(scratch, name);
    cpSync(join(folder, "clip_openai"), home, { recursive: true });
    scope(() => {
      const tensors = readSafetensors(join(home, "model.safetensors"));
      change(tensors);
      writeSafetensors(join(home, "model.safetensors"), tensors);
    });
    return home;
  };

  it.each([
    [
      "missing",
      (t) => t.delete("text_model.final_layer_norm.bias"),
      /missing \(1\): text_model\.final_layer_norm\.bias/,
    ],
    [
      "extra",
      (t) => t.set("text_model.pooler.weight", tensor([1, 2])),
      /not part of it \(1\): text_model\.pooler\.weight/,
    ],
    [
      "shape",
      (t) => t.set("visual_projection.weight", tensor([[1, 2]])),
      /visual_projection\.weight: expected \[28,32\], found \[1,2\]/,
    ],
    ["infinite", (t) => t.set("logit_scale", tensor(Number.NaN)), /logit_scale/],
  ] as [string, (tensors: Map<string, ReturnType<typeof tensor>>) => void, RegExp][])(
    "%s",
    async (name, change, message) => {
      const home = broken(name, change);
      await expect(load("clip_openai", "", home)).rejects.toThrow(message);
      await expect(load("clip_openai", "", home)).rejects.toThrow("model.safetensors");
    },
  );

  it("buffers that hold no weights are passed over", async () => {
    const home = broken("positions", (t) => t.set("text_model.embeddings.position_ids", tensor([0n, 1n])));
    using scorer = await load("clip_openai", "", home);
    expect(scorer.name).toBe("CLIP ViT-L/14");
  });

  it("a file that is cut short", async () => {
    const home = broken("cut", () => {});
    truncateSync(join(home, "model.safetensors"), 200_000);
    await expect(load("clip_openai", "", home)).rejects.toThrow("model.safetensors");
    const hps = join(scratch, "hps");
    cpSync(join(folder, "hpsv2"), hps, { recursive: true });
    truncateSync(join(hps, "HPS_v2.1_compressed.pt"), 100_000);
    await expect(load("hpsv2_score", "", hps)).rejects.toThrow("HPS_v2.1_compressed.pt");
  });

  it("a tokenizer of another model, and a shape that the file is too small for", async () => {
    const home = broken("vocabulary", () => {});
    rmSync(join(home, "merges.txt"));
    await expect(load("clip_openai", "", home)).rejects.toThrow(/49408 tokens, the text tower 914/);
    const config = JSON.parse(readFileSync(join(home, "config.json"), "utf8"));
    copyFileSync(join(folder, "clip_openai", "merges.txt"), join(home, "merges.txt"));
    config.vision_config.hidden_size = 65_536;
    writeFileSync(join(home, "config.json"), JSON.stringify(config));
    await expect(load("clip_openai", "", home)).rejects.toThrow(/model\.safetensors: holds \d+ weights/);
  });

  it("version 2.0 of HPSv2 is another file", async () => {
    const options = { weights: { hpsv2_score: join(folder, "hpsv2") }, hpsVersion: "v2.0" } as const;
    await expect(loadScorer("hpsv2_score", options)).rejects.toThrow("HPS_v2_compressed.pt");
  });
});

describe("miro score", () => {
  it("scores pairs of pictures and texts with weights from folders", async () => {
    const pairs = join(scratch, "pairs.jsonl");
    const image = join(folder, "pictures", "square.png");
    copyFileSync(image, join(scratch, "beside.png"));
    const lines = [
      { image, prompt: "a photo of a red bench" },
      { image: "beside.png", prompt: "a photo of a red bench" },
    ];
    writeFileSync(pairs, `${lines.map((line) => JSON.stringify(line)).join("\n")}\n`);
    const weights = [
      "pick_a_score_score=pick_score",
      "hpsv2_score=hpsv2",
      "aesthetic_score=aesthetic",
      "image_reward_score=image_reward",
      "clip_openai=clip_openai",
    ]
      .map((pair) => pair.split("=") as [string, string])
      .flatMap(([key, of]) => ["--weights", `${key}=${join(folder, of)}`]);
    const by = ["pick_a_score_score", "hpsv2_score", "aesthetic_score", "image_reward_score"].flatMap((key) => [
      "--by",
      key,
    ]);
    const { code, stdout } = await runCaptured(
      "score",
      "--pairs",
      pairs,
      ...by,
      ...weights,
      "--json",
      "--dtype",
      "float32",
    );
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    expect(report.scorers).toContainEqual({ key: "hpsv2_score", name: "HPSv2.1" });
    scope(() => {
      const recorded = (of: string, name: string) =>
        readSafetensors(join(folder, of, "reference.safetensors"))
          .get(name)!
          .data() as Float32Array;
      for (const { scores } of report.images) {
        expect(scores.pick_a_score_score).toBeCloseTo(recorded("pick_score", "logits")[0]!, 3);
        expect(scores.hpsv2_score).toBeCloseTo(recorded("hpsv2", "cosine")[0]!, 5);
        expect(scores.aesthetic_score).toBeCloseTo(recorded("aesthetic", "raw")[0]!, 5);
        expect(scores.image_reward_score).toBeCloseTo(recorded("image_reward", "reward")[0]!, 4);
      }
    });
  });

  it("names the line of a pair that is none, and the head that can neither be found nor fetched", async () => {
    const pairs = join(scratch, "bad.jsonl");
    writeFileSync(pairs, '{"image": "a.png"}\n');
    expect(await runCaptured("score", "--pairs", pairs, "--by", "sharpness")).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/bad\.jsonl: line 1: expected \{"image"/),
    });
    const image = join(folder, "pictures", "square.png");
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    vi.stubEnv("HF_ASSETS_CACHE", join(scratch, "assets"));
    const by = ["--by", "aesthetic_score", "--weights", `clip_openai=${join(folder, "clip_openai")}`];
    expect(await runCaptured("score", image, ...by)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(
        /aesthetic_score: needs the folder of its head.*HF_HUB_OFFLINE is set.*--weights aesthetic_score=DIR/,
      ),
    });
    vi.unstubAllEnvs();
  });
});
