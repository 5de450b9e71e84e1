import { dirname, join } from "node:path";
import { expect, it } from "vitest";
import type { RgbImage } from "../../pictures/rgb.js";
import { bundledModel } from "../../pipeline/loading/bundled.js";
import type { MiroPipeline } from "../../pipeline/pipeline.js";
import { NAMED_COLOURS } from "../scenes/captions.js";
import { EmojiClassifier } from "./classifier.js";
import { EVALUATION_PARTS, type EvaluationFigures, evaluateEmoji } from "./evaluate.js";

const classifier = EmojiClassifier.fromPretrained(join(dirname(bundledModel()!), "emoji-classifier"));

/** Draws the background that a prompt asks for and nothing on it, the redder the higher `colorfulness`. */
const drawn: string[] = [];
const pipeline = {
  coherenceKeys: ["clip_score", "colorfulness"],
  async generate(prompts: string[], { rewardTargets }: { rewardTargets?: Record<string, number> }) {
    drawn.push(...prompts);
    const images = prompts.map((prompt): RgbImage => {
      const colour = / on an? (.+) background/.exec(prompt)?.[1] as keyof typeof NAMED_COLOURS | undefined;
      const [red, green, blue] = colour ? NAMED_COLOURS[colour] : [255, 255, 255];
      const less = 1 - (rewardTargets?.colorfulness ?? 1);
      const pixel = [red + less * (128 - red), green + less * (128 - green), blue + less * (128 - blue)];
      return { width: 64, height: 64, data: Uint8Array.from({ length: 3 * 64 * 64 }, (_, i) => pixel[i % 3]!) };
    });
    return { images };
  },
} as unknown as MiroPipeline;

it("measures part by part, each name as often as it is to be, and draws sheets", async () => {
  const labels = ["fox", "grapes", "red apple", "key", "house"];
  const figures: Partial<EvaluationFigures> = {};
  const sheets: string[] = [];
  let progress = [0, 0];
  const options = { labels, limit: 4, rewardPrompts: 2, onProgress: (...now: number[]) => (progress = now) };
  for await (const done of evaluateEmoji(pipeline, classifier, options)) {
    Object.assign(figures, { [done.part]: done.figures });
    for (const [name, { width, height, data }] of Object.entries(done.sheets)) {
      sheets.push(name);
      expect(data).toHaveLength(3 * width * height);
    }
  }
  const { retrieval, counts, relations, aliases, rewards, edges, samples } = figures as EvaluationFigures;
  expect(Object.keys(figures)).toEqual([...EVALUATION_PARTS]);
  expect(sheets).toEqual([
    "plain",
    "coloured",
    "counts",
    "relations",
    "aliases",
    "sentences",
    "rewards",
    "reward-pictures",
    "samples",
  ]);
  // Nothing but backgrounds: they are right, and there is nothing to count or to find.
  expect(retrieval.coloured).toMatchObject({ pictures: 4, background: 1 });
  expect(retrieval.plain).toMatchObject({ pictures: 4, background: 1, backgroundDistance: 0 });
  expect(counts).toMatchObject({ pictures: 20, right: 0, counted: 0, found: { 1: { 0: 4 }, 5: { 0: 4 } } });
  expect(relations).toMatchObject({ pictures: 20, right: 0, both: 0, relations: { above: { pictures: 4 } } });
  expect(relations.wrong[0]).toMatch(/ → no two objects$/);
  expect(aliases.aliases.pictures).toBe(1);
  expect(aliases.sentences.pictures).toBe(4);
  expect(rewards.colorfulness).toMatchObject({ rises: true, monotone: true });
  // Nothing but backgrounds has no edges; the true pictures have.
  expect(edges.drawn).toMatchObject({ pictures: 4, coherence: Number.NaN, sharpness: 0 });
  expect(edges.renders.pictures).toBe(4);
  expect(edges.renders.coherence).toBeGreaterThan(0.3);
  expect(Math.abs(edges.renders.borders[8] - 1)).toBeLessThan(0.5);
  expect(samples.prompts).toHaveLength(4);
  // 2 prompts at 4 targets of 2 rewards and once at 1.
  expect(progress).toEqual([8 + 20 + 20 + 5 + 18 + 4 + 4, 8 + 20 + 20 + 5 + 18 + 4 + 4]);
  expect(drawn).toHaveLength(progress[1]!);
  expect(drawn.some((prompt) => /grapes/.test(prompt) && /(two|three|four|five) /.test(prompt))).toBe(false);
});

it("refuses names that the classifier does not know, before anything is drawn", async () => {
  const evaluation = evaluateEmoji(pipeline, classifier, { labels: ["fox", "green cow"], parts: ["counts"] });
  await expect(evaluation.next()).rejects.toThrow(/green cow/);
});
