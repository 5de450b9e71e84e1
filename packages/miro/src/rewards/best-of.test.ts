import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import "../emoji/register.js";
import type { RgbImage } from "../pictures/rgb.js";
import { MiroPipeline } from "../pipeline/pipeline.js";
import { bestOf } from "./best-of.js";
import { checkedScorer, type Scorer } from "./scorer.js";

const model = fileURLToPath(new URL("../../../../models/miro-emoji", import.meta.url));
let pipe: MiroPipeline;
beforeAll(async () => {
  pipe = await MiroPipeline.fromPretrained(model);
});
afterAll(() => pipe.dispose());

const mean = ({ data }: RgbImage) => data.reduce((sum, value) => sum + value, 0) / data.length;

/** A scorer from a function; remembers what it was given. */
function scorerOf(key: string, value: (image: RgbImage, caption: string, i: number) => number) {
  const captions: string[] = [];
  let disposed = 0;
  let seen = 0;
  const scorer: Scorer = checkedScorer(
    { key, usesText: true },
    {
      name: key,
      batchSize: 64,
      score(images, texts) {
        captions.push(...texts);
        return images.map((image, i) => value(image, texts[i]!, seen++));
      },
      dispose: () => void disposed++,
    },
  );
  return { scorer, captions, disposed: () => disposed };
}

const options = { steps: 2, seed: 11 };

describe("bestOf", () => {
  it("ranks the pictures that generate would draw, by the score of each with its own prompt", async () => {
    const prompts = ["a fox", "a red apple"];
    const { scorer, captions, disposed } = scorerOf("brightness", mean);
    const result = await bestOf(pipe, prompts, { ...options, n: 3, scorer, keepLatents: true });
    const drawn = await pipe.generate(prompts, { ...options, imagesPerPrompt: 3, keepLatents: true });
    expect(captions).toEqual(["a fox", "a fox", "a fox", "a red apple", "a red apple", "a red apple"]);
    result.prompts.forEach(({ prompt, best, ranked }, p) => {
      expect(prompt).toBe(prompts[p]);
      const own = drawn.images.slice(3 * p, 3 * p + 3);
      const order = own.map((_, i) => i).sort((a, b) => mean(own[b]!) - mean(own[a]!));
      expect(ranked.map(({ index }) => index)).toEqual(order);
      for (const { image, score, scores, index } of ranked) {
        expect(image.seed).toBe(options.seed + 3 * p + index);
        expect(Buffer.compare(image.data, own[index]!.data)).toBe(0);
        expect(score).toBe(mean(own[index]!));
        expect(scores).toEqual({ brightness: score });
      }
      expect(best).toBe(ranked[0]!.image);
    });
    expect(result.latents!.shape).toEqual(drawn.latents.shape);
    // A scorer that the caller loaded stays the caller's.
    expect(disposed()).toBe(0);
    result.latents!.dispose();
    drawn.latents.dispose();
  });

  it("keeps the order of drawing among equal scores, and records what does not decide", async () => {
    const { scorer: first } = scorerOf("parity", (_, __, i) => (i % 2 === 0 ? 1 : 2));
    const { scorer: second } = scorerOf("order", (_, __, i) => i);
    const reported: [number, number][] = [];
    const { prompts } = await bestOf(pipe, "a fox", {
      ...options,
      steps: 1,
      n: 4,
      scorer: [first, second],
      onScore: ({ scored, imageCount }) => reported.push([scored, imageCount]),
    });
    expect(prompts[0]!.ranked.map(({ index }) => index)).toEqual([1, 3, 0, 2]);
    expect(prompts[0]!.ranked.map(({ scores }) => scores)).toEqual([
      { parity: 2, order: 1 },
      { parity: 2, order: 3 },
      { parity: 1, order: 0 },
      { parity: 1, order: 2 },
    ]);
    expect(reported).toEqual([[4, 4]]);
  });

  it("refuses wrong options before it draws, and stops with the signal", async () => {
    const draws = { onStep: () => expect.unreachable("it draws") };
    await expect(bestOf(pipe, "a fox", { ...draws, n: 0 })).rejects.toThrow(/n: expected an integer of at least 1/);
    await expect(bestOf(pipe, "a fox", { ...draws, scorer: "emoji_clip_scor" })).rejects.toThrow(
      /there are emoji_clip_score/,
    );
    await expect(bestOf(pipe, "a fox", { ...draws, scorer: ["sharpness", "sharpness"] })).rejects.toThrow(/once/);
    await expect(bestOf(pipe, "a fox", { ...draws, imagesPerPrompt: 2 } as object)).rejects.toThrow(/imagesPerPrompt/);
    const stop = new AbortController();
    const { scorer } = scorerOf("never", () => expect.unreachable("it scores"));
    const running = bestOf(pipe, "a fox", {
      ...options,
      n: 2,
      scorer,
      signal: stop.signal,
      onStep: () => stop.abort(),
    });
    await expect(running).rejects.toThrow(/abort/i);
  });
});
