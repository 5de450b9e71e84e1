import { manualSeed, randn, scope } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { COLOUR_NAMES, NAMED_COLOURS } from "../data/emoji/captions.js";
import { EmojiScenes, toRgb8 } from "../data/emoji/index.js";
import type { RgbImage } from "../pipeline/pictures/images.js";
import { backgroundColour, nearestColour } from "./backgrounds.js";
import { EmojiClassifier } from "./emoji-classifier.js";
import { score } from "./emoji-retrieval.js";

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

describe("score", () => {
  it("counts first and fifth places and names confusions", () => {
    const labels = ["a", "b", "c", "d", "e", "f"];
    const ranks = [
      [0, 1, 2, 3, 4],
      [1, 0, 2, 3, 4],
      [5, 1, 2, 3, 4],
    ];
    const judge = { config: { labels }, classify: () => ranks } as unknown as EmojiClassifier;
    const asked = ranks.map((_, i) => {
      const { background } = described[i]!;
      return { prompt: "", label: "a", colour: background.kind === "named" ? background.colour : ("white" as const) };
    });
    const result = score(pictures.slice(0, 3).map(image), asked, judge);
    expect(result).toMatchObject({
      pictures: 3,
      top1: 1 / 3,
      top5: 2 / 3,
      background: 1,
      confusions: ["a → b", "a → f"],
    });
    expect(result.backgroundDistance).toBeLessThan(20);
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
