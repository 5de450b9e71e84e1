import { describe, expect, it } from "vitest";
import type { RgbImage } from "../../pictures/rgb.js";
import { type ScoredGroup, summarise } from "./best-of.js";
import type { EmojiClassifier } from "./classifier.js";
import { toBatch } from "./picture-batch.js";

const image = (value: number): RgbImage => ({ width: 2, height: 2, data: new Uint8Array(12).fill(value) });

/** A classifier that recognises bright pictures, the surer the brighter. */
const judge = {
  judge: (pictures: ReturnType<typeof toBatch>) =>
    (pictures.mean([1, 2, 3]).toList() as number[]).map((level) => ({
      probability: (level + 1) / 2,
      first: level > 0,
    })),
} as unknown as EmojiClassifier;
const group = (levels: number[], scores: number[]): ScoredGroup => ({ label: "a", images: levels.map(image), scores });

describe("summarise", () => {
  it("counts the first, the best by score and any, and orders pairs within a prompt", () => {
    const figures = summarise(
      [
        group([10, 200, 20, 210], [1, 3, 2, 2.5]), // the best is bright, the first is not
        group([220, 30, 40, 50], [1, 4, 2, 3]), // the first is bright, the best is not
        group([1, 2, 3, 4], [4, 3, 2, 1]), // none is
      ],
      judge,
    );
    expect(figures).toMatchObject({ prompts: 3, pictures: 12, first: 1 / 3, best: 1 / 3, any: 2 / 3, each: 3 / 12 });
    // Prompt 1: both bright ones beat both dark ones; prompt 2: the bright one loses to all three.
    expect(figures.pairsInOrder).toBeCloseTo(4 / 7, 12);
  });

  it("gives a scorer that agrees with the classifier full marks", () => {
    const levels = [10, 200, 90, 210];
    const figures = summarise([group(levels, levels), group([1, 250, 3, 4], [1, 250, 3, 4])], judge);
    expect(figures).toMatchObject({ best: 1, any: 1, pairsInOrder: 1 });
    expect(figures.rankCorrelation).toBeCloseTo(1, 12);
  });
});

describe("toBatch", () => {
  it("puts bytes at their places in [-1, 1]", () => {
    const data = Uint8Array.from({ length: 2 * 3 * 3 }, (_, i) => i * 15);
    using batch = toBatch([{ width: 3, height: 2, data }]);
    expect(batch.shape).toEqual([1, 3, 2, 3]);
    const values = batch.toList() as number[][][][];
    for (let y = 0; y < 2; y++)
      for (let x = 0; x < 3; x++)
        for (let c = 0; c < 3; c++)
          expect(values[0]![c]![y]![x]).toBeCloseTo(data[(y * 3 + x) * 3 + c]! / 127.5 - 1, 6);
  });
});
