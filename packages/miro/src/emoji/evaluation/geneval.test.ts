import { describe, expect, it } from "vitest";
import { TASKS } from "../../evaluation/geneval/metadata.js";
import { judge, rulesSchema } from "../../evaluation/geneval/rules.js";
import { groupBy } from "../../group-by.js";
import { parseOptions } from "../../options.js";
import { bundledFolder } from "../../pipeline/loading/bundled.js";
import { toRgb8 } from "../scenes/render.js";
import { EmojiScenes } from "../scenes/scenes.js";
import { loadVocabulary } from "../scenes/vocabulary.js";
import { EmojiDetector, emojiPrompts } from "./geneval.js";

const detector = EmojiDetector.load(bundledFolder("emoji-classifier")!, "cpu");
const rules = parseOptions(rulesSchema, {});

it("the prompts ask for what the detector knows, in GenEval's tasks", () => {
  const { prompts } = emojiPrompts();
  expect(new Set(prompts.map(({ tag }) => tag))).toEqual(new Set(TASKS.filter((task) => !task.startsWith("color"))));
  expect(new Set(prompts.map(({ prompt }) => prompt)).size).toBe(prompts.length);
  for (const { include } of prompts) for (const { class: name } of include) expect(detector.classes).toContain(name);
  expect(emojiPrompts()).toEqual(emojiPrompts());
});

describe("the detector of emoji on true renders", () => {
  it("finds as many as there are, by GenEval's rules, and not one more of something else", async () => {
    const size = 128;
    const scenes = await EmojiScenes.load({
      vocabulary: loadVocabulary("everyday").map(({ label }) => label),
      size,
      seed: 3,
      kinds: { count: 1 },
      tint: 0,
      degraded: 0,
      wrongCaption: 0,
      aliasShare: 0,
    });
    let right = 0;
    let other = 0;
    for (let i = 0; i < 10; i++) {
      const scene = scenes.describe(i);
      const pixels = new Float32Array(3 * size * size);
      scenes.render(scene, pixels);
      const image = { width: size, height: size, data: toRgb8(pixels, size) };
      const [found] = await detector.detect([image], { minScore: 0.3 });
      const byClass = groupBy(found!, ({ classIndex }) => detector.classes[classIndex]!);
      const ask = (name: string) => {
        const [include, exclude] = [0, 1].map((more) => [{ class: name, count: scene.count + more }]);
        return judge({ tag: "counting", include: include!, exclude: exclude!, prompt: "" }, byClass, () => [], rules);
      };
      if (ask(scene.entries[0]!.label).correct) right++;
      if (ask(scene.entries[0]!.label === "fox" ? "owl" : "fox").correct) other++;
      const only = await detector.detect([image], { classes: [found![0]!.classIndex] });
      expect(only[0]).toEqual(found!.filter(({ classIndex }) => classIndex === found![0]!.classIndex));
    }
    expect(right).toBeGreaterThanOrEqual(8);
    expect(other).toBeLessThanOrEqual(1);
  });

  it("finds what stands apart piece by piece, whatever the classifier makes of parts and pairs of it", async () => {
    const [side, reach] = [128, 20];
    for (const middles of [
      [[64, 64]],
      [
        [36, 64],
        [92, 64],
      ],
      [
        [36, 36],
        [92, 36],
        [64, 92],
      ],
      [
        [36, 36],
        [92, 36],
        [36, 92],
        [92, 92],
      ],
    ] as [number, number][][])
      for (const isRound of [true, false]) {
        const data = new Uint8Array(3 * side * side).fill(255);
        for (let y = 0; y < side; y++)
          for (let x = 0; x < side; x++) {
            const off = (x0: number, y0: number) => [Math.abs(x - x0), Math.abs(y - y0)] as const;
            const far = (at: [number, number]) => (isRound ? Math.hypot(...off(...at)) : Math.max(...off(...at)));
            if (middles.some((at) => far(at) < reach)) data.set([240, 120, 20], 3 * (y * side + x));
          }
        const [found] = await detector.detect([{ width: side, height: side, data }]);
        const boxes = new Set(found!.map(({ box }) => String(box)));
        const [before, behind] = [reach - 1, reach];
        expect(boxes).toEqual(
          new Set(middles.map(([x, y]) => String([x - before, y - before, x + behind, y + behind]))),
        );
      }
  });

  it("finds nothing in an empty picture", async () => {
    const empty = { width: 64, height: 64, data: new Uint8Array(3 * 64 * 64).fill(200) };
    expect(await detector.detect([empty])).toEqual([[]]);
  });
});
