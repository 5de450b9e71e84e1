import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { noGrad, randn, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { afterAll, describe, expect, it } from "vitest";
import { loadScorer } from "../../rewards/registry.js";
import { runTask } from "../../training/loop/run-task.js";
import { bits } from "../../training/testing/tiny.js";
import { EmojiScenes } from "../scenes/scenes.js";
import { EmojiClip } from "../scorer/emoji-clip.js";
import "../register.js";
import { measureClip } from "./clip.js";
import { clipRecipeSchema } from "./recipes.js";

const root = mkdtempSync(join(tmpdir(), "miro-clip-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const recipe = clipRecipeSchema.parse({
  kind: "clip",
  name: "tiny",
  scenes: { size: 32, kinds: { one: 0.5, small: 0.5 } },
  textEncoder: fileURLToPath(new URL("../../../../../models/miro-emoji/text_encoder", import.meta.url)),
  network: { towerWidths: [8, 8, 16, 16], textHeads: 2, textHidden: 16, sharedDim: 16 },
  evaluatedScenes: 16,
  trainer: { maxSteps: 6, batchSize: 8, lr: 0.003, warmupSteps: 1, checkpointEveryNSteps: 4, threads: 1 },
});

describe("the training of the CLIP", () => {
  it("exports a CLIP that the scorer loads, and resumes bit for bit", async () => {
    const whole = join(root, "whole");
    const { finished, exported } = await runTask({ recipe, output: whole, resume: false });
    expect(finished).toBe(true);

    const scorer = await loadScorer("emoji_clip_score", { model: exported! });
    const image = { width: 40, height: 33, data: new Uint8Array(40 * 33 * 3).fill(200) };
    const [score] = await scorer.score([image], ["a fox"]);
    expect(Number.isFinite(score)).toBe(true);
    scorer.dispose();

    const stopped = join(root, "stopped");
    const stop = new AbortController();
    const onProgress = ({ step }: { step: number }) => step === 3 && stop.abort();
    const first = await runTask({ recipe, output: stopped, resume: false, signal: stop.signal, onProgress });
    expect(first).toMatchObject({ finished: false, step: 3 });
    await runTask({ recipe, output: stopped, resume: true });
    expect(bits(stopped)).toEqual(bits(whole));
  });
});

describe("measureClip", () => {
  it("gives full marks to an oracle, and chance to noise", async () => {
    const scenes = await EmojiScenes.load({ ...recipe.scenes, wrongCaption: 0 });
    const count = 32;
    const captions = Array.from({ length: count }, (_, i) => scenes.describe(2 ** 31 + i).trueCaption);
    /** The i-th picture and its true caption lie on the i-th axis, all other captions on an axis of their own. */
    const axes = (indices: number[]): Tensor => {
      const values = new Float32Array(indices.length * (count + 1));
      for (const [row, i] of indices.entries()) values[row * (count + 1) + (i < 0 ? count : i)] = 1;
      return tensor(values, { shape: [indices.length, count + 1] });
    };
    let seen = 0;
    const picture = (pixels: Tensor) => axes(Array.from({ length: pixels.size(0) }, () => seen++));
    const oracle = measureClip(scenes, count, picture, (texts) => axes(texts.map((text) => captions.indexOf(text))));
    expect(oracle).toMatchObject({ retrieval_of_32: 1, object_told: 1, size_told: 1, background_told: 1, auc: 1 });
    expect(oracle).toMatchObject({ cosine_of_true: 1, cosine_of_other: 0 });
    expect(oracle).not.toHaveProperty("count_told");

    const noise = (rows: number) => randn([rows, 8]);
    const blind = measureClip(
      scenes,
      count,
      (pixels) => noise(pixels.size(0)),
      (texts) => noise(texts.length),
    );
    expect(Math.abs(blind.auc! - 0.5)).toBeLessThan(0.2);
  });
});

describe("EmojiClip", () => {
  it("does not look at padding, and gives unit vectors", () => {
    const clip = new EmojiClip({ ...tinyConfig, text_encoder_sha256: "0".repeat(64) });
    scope(() =>
      noGrad(() => {
        const states = randn([1, 5, 128]);
        const mask = tensor([1, 1, 1, 0, 0], { shape: [1, 5] }).to({ dtype: "bool" });
        const padded = clip.embedTexts(states, mask);
        const short = clip.embedTexts(states.narrow(1, 0, 3), mask.narrow(1, 0, 3));
        expect(padded.sub(short).abs().max().item()).toBeLessThan(1e-6);
        for (const unit of [padded, clip.embedPictures(randn([1, 3, 32, 32]))])
          expect(unit.square().sum().item()).toBeCloseTo(1, 5);
      }),
    );
    clip.dispose();
  });
});

const tinyConfig = { image_size: 32, tower_widths: [8, 8, 16, 16], text_heads: 2, text_hidden: 16, shared_dim: 16 };
