// The committed recording of the published scorers (tests/reference/fixtures/scorers), every check of
// `npm run parity -- --part scorers`.
import { copyFileSync, cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { scope, tensor } from "@miro-t2i/torch";
import { readSafetensors, writeSafetensors } from "@miro-t2i/torch/io";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
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
  expect(rows.length).toBeGreaterThanOrEqual(12);
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
      "clip_openai=clip_openai",
    ]
      .map((pair) => pair.split("=") as [string, string])
      .flatMap(([key, of]) => ["--weights", `${key}=${join(folder, of)}`]);
    const by = ["pick_a_score_score", "hpsv2_score", "aesthetic_score"].flatMap((key) => ["--by", key]);
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
      }
    });
  });

  it("names the line of a pair that is none, and the head that is not given", async () => {
    const pairs = join(scratch, "bad.jsonl");
    writeFileSync(pairs, '{"image": "a.png"}\n');
    expect(await runCaptured("score", "--pairs", pairs, "--by", "sharpness")).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/bad\.jsonl: line 1: expected \{"image"/),
    });
    const image = join(folder, "pictures", "square.png");
    expect(await runCaptured("score", image, "--by", "aesthetic_score")).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/aesthetic_score: needs the folder of its head/),
    });
  });
});
