import { manualSeed, randn, scope } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import type { RgbImage } from "../../pictures/rgb.js";
import { COLOUR_NAMES, NAMED_COLOURS } from "../scenes/captions.js";
import { toRgb8 } from "../scenes/render.js";
import { EmojiScenes } from "../scenes/scenes.js";
import { backgroundColour, nearestColour } from "./backgrounds.js";
import { EmojiClassifier } from "./classifier.js";
import { askedByAlias, askedInSentences, judge, summariseRetrieval } from "./retrieval.js";

const size = 64;
const scenes = await EmojiScenes.load({ size, kinds: { one: 1 }, tint: 0, degraded: 0, backgrounds: { named: 1 } });
const { pixels, scenes: described } = scenes.batch(0, 12);
const image = (values: Float32Array): RgbImage => ({ width: size, height: size, data: toRgb8(values, size) });
const pictures = described.map((_, i) => pixels.slice(i * 3 * size * size, (i + 1) * 3 * size * size));
describe("backgrounds", () => {
  it("are found as the scene was drawn", () => {
    described.forEach(({ background }, i) => {
      const found = nearestColour(backgroundColour(image(pictures[i]!)));
      expect(found).toBe(background.kind === "named" ? background.colour : "white");
    });
    for (const name of COLOUR_NAMES) expect(nearestColour(NAMED_COLOURS[name])).toBe(name);
    expect(nearestColour([252, 254, 255])).toBe("white");
  });
});

describe("retrieval", () => {
  it("counts first and fifth places, by groups too, and names confusions", () => {
    const labels = ["fox", "carrot", "house", "key", "lion", "pizza"];
    const ranks = [
      [0, 1, 2, 3, 4],
      [1, 0, 2, 3, 4],
      [5, 1, 2, 3, 4],
    ];
    const judged = ranks.map((rank, i) => {
      const { background } = described[i]!;
      const colour = background.kind === "named" ? background.colour : ("white" as const);
      const classifier = { config: { labels }, classify: () => [rank] } as unknown as EmojiClassifier;
      return judge(image(pictures[i]!), { prompt: "", label: i === 2 ? "carrot" : "fox", colour }, classifier);
    });
    const result = summariseRetrieval(judged);
    expect(result).toMatchObject({
      pictures: 3,
      top1: 1 / 3,
      top5: 1,
      background: 1,
      groups: {
        "animals and nature": { pictures: 2, top1: 1 / 2, top5: 1 },
        food: { pictures: 1, top1: 0, top5: 1 },
        everyday: { pictures: 3, top1: 1 / 3, top5: 1 },
      },
      confusions: ["fox → carrot", "carrot → pizza"],
    });
    expect(result.backgroundDistance).toBeLessThan(20);
  });

  it("asks in other words for the same things", () => {
    const labels = ["red apple", "fox", "french fries", "grapes"];
    const aliases = askedByAlias(labels, 0);
    expect(aliases.map(({ label }) => label)).toEqual(["red apple", "french fries"]);
    expect(aliases.map(({ prompt }) => prompt)).toEqual(["an apple", "fries"]);
    for (const [i, { prompt, label, colour }] of askedInSentences(labels, 0).entries()) {
      expect(label).toBe(labels[i]);
      expect(prompt).toContain(label);
      expect(prompt).toContain(`${colour} background`);
    }
  });
});

describe("EmojiClassifier", () => {
  it("gives five different classes, most likely first, for pictures of any size", () => {
    scope(() => {
      manualSeed(0);
      const classifier = new EmojiClassifier({ labels: Array.from({ length: 9 }, (_, i) => `${i}`) });
      const x = randn([3, 3, 96, 96]);
      const classes = classifier.classify(x);
      expect(classes).toHaveLength(3);
      for (const row of classes) expect(new Set(row).size).toBe(5);
    });
  });
});
