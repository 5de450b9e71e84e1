// Every published scorer, on the committed recording, is aborted at places where it looks at the signal: while its
// weights are loaded, and between its layers.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { memory } from "@miro-t2i/torch";
import { beforeAll, describe, expect, it } from "vitest";
import { decodeImage } from "../../packages/miro/src/pictures/decode.js";
import type { RgbImage } from "../../packages/miro/src/pictures/rgb.js";
import { countedSignal } from "../../packages/miro/src/pipeline/loading/testing/counted-signal.js";
import { loadScorer } from "../../packages/miro/src/rewards/registry.js";
import { checkedScorer, type LoadedScorer } from "../../packages/miro/src/rewards/scorer.js";
import { loadVqaScorer } from "../../packages/miro/src/rewards/vqa-scorer.js";
import { scorerFolder } from "../reference/fixture.js";

const folder = scorerFolder();
const home = (name: string) => join(folder, name);
const options = {
  dtype: "float32",
  weights: {
    clip_openai: home("clip_openai"),
    aesthetic_score: home("aesthetic"),
    pick_a_score_score: home("pick_score"),
    hpsv2_score: home("hpsv2"),
    image_reward_score: home("image_reward"),
    clip_score: home("clip_jina"),
    vqa_score: home("vqa"),
  },
} as const;

describe.each([
  // The least number of layers: of the towers for one batch.
  ["clip_openai", 4],
  ["aesthetic_score", 2],
  ["pick_a_score_score", 4],
  ["hpsv2_score", 4],
  ["image_reward_score", 4],
  ["clip_score", 4],
  ["vqa_score", 5],
  ["vqa_score with layers from the disk", 5],
] as const)("a call of %s", (name, layers) => {
  let images: RgbImage[];
  const captions = ["a photo of a red bench", "", "two dogs on a sofa"];
  beforeAll(async () => {
    const files = ["square", "tall", "wide"].map((one) => join(folder, "pictures", `${one}.png`));
    images = await Promise.all(files.map((file) => decodeImage(readFileSync(file))));
  });
  const load = async (signal?: AbortSignal): Promise<LoadedScorer> => {
    if (name !== "vqa_score with layers from the disk") return loadScorer(name, { ...options, signal });
    const told: string[] = [];
    // Enough for one layer and what a batch needs, too little for all.
    const onMessage = (text: string) => void told.push(text);
    const model = await loadVqaScorer({ ...options, signal, onMessage }, 9.25e6);
    expect(told).toEqual([expect.stringMatching(/layers are read from disk/)]);
    return checkedScorer({ key: "vqa_score", usesText: true }, model);
  };

  it("can be given up while the weights are loaded, and leaves nothing behind", async () => {
    const before = memory.stats().liveTensors;
    const whole = countedSignal(Number.POSITIVE_INFINITY);
    (await load(whole.signal)).dispose();
    // At least as often as there are tensors, of which each of these scorers has dozens.
    expect(whole.looks()).toBeGreaterThan(24);
    const places = [0.25, 0.5, 0.75, 1].map((part) => Math.floor(part * whole.looks()));
    for (const at of [1, 2, 3, ...places]) {
      const { signal, looks } = countedSignal(at);
      await expect(load(signal)).rejects.toThrow("enough");
      expect(looks()).toBe(at);
      expect(memory.stats().liveTensors).toBe(before);
    }
  });

  it("ends at any of its layers when it is aborted, leaves nothing behind, and goes on the next time", async () => {
    const before = memory.stats().liveTensors;
    const whole = countedSignal(Number.POSITIVE_INFINITY);
    const expected = await using(load, (scorer) => scorer.score(images, captions, { signal: whole.signal }));
    expect(whole.looks()).toBeGreaterThan(layers);
    await using(load, async (scorer) => {
      for (let at = 1; at <= whole.looks(); at++) {
        const { signal, looks } = countedSignal(at);
        // What was encoded before is kept, so that later places come within reach.
        const error = await scorer.score(images, captions, { signal }).then(
          () => null,
          (reason: Error) => reason,
        );
        if (error === null) break;
        expect(error.message).toBe("enough");
        expect(looks()).toBe(at);
      }
      expect(await scorer.score(images, captions)).toEqual(expected);
    });
    expect(memory.stats().liveTensors).toBe(before);
  });
});

it("of two scorers that share a tower, one goes on when the other is given up while it loads", async () => {
  const before = memory.stats().liveTensors;
  const { signal } = countedSignal(20);
  const first = loadScorer("clip_openai", { ...options, signal });
  const second = loadScorer("aesthetic_score", options);
  await expect(first).rejects.toThrow("enough");
  (await second).dispose();
  expect(memory.stats().liveTensors).toBe(before);
});

async function using<T>(load: () => Promise<LoadedScorer>, use: (scorer: LoadedScorer) => Promise<T>): Promise<T> {
  const scorer = await load();
  try {
    return await use(scorer);
  } finally {
    scorer.dispose();
  }
}
