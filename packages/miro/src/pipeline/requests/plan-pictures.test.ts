import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { groupPictures, mergeOptions, planPictures, randomSeed } from "./plan-pictures.js";
import type { PromptRequest } from "./prompt-file.js";

const request = (prompt: string, more: Partial<PromptRequest> = {}): PromptRequest => ({
  prompt,
  options: {},
  ...more,
});

describe("planPictures", () => {
  it("gives seeds as one call of generate would, and a line's own", () => {
    const requests = [
      request("a", { options: { imagesPerPrompt: 2 } }),
      request("b", { seed: 100 }),
      request("c", { options: { imagesPerPrompt: 2 } }),
    ];
    expect(planPictures(requests, { seed: 7 }).map(({ prompt, seed, index }) => [prompt, seed, index])).toEqual([
      ["a", 7, 0],
      ["a", 8, 1],
      ["b", 100, 2],
      ["c", 10, 3],
      ["c", 11, 4],
    ]);
    expect(planPictures(requests, { seed: 7, candidates: 4 }).map(({ seed }) => seed)).toEqual([7, 11, 100, 19, 23]);
  });

  it("without seeds where the noise is given, and refuses a line's", () => {
    expect(planPictures([request("a")], { seed: null })[0]!.seed).toBeNull();
    expect(() => planPictures([request("a", { seed: 1, where: "p.csv:2" })], { seed: null })).toThrow(
      /^p\.csv:2: a seed/,
    );
    const largest = { seed: Number.MAX_SAFE_INTEGER };
    expect(planPictures([request("a")], largest)[0]).toMatchObject(largest);
    for (const more of [{ candidates: 2 }, { options: { imagesPerPrompt: 2 } }])
      expect(() => planPictures([request("a")], { ...largest, ...more })).toThrow(
        /^seed: the seed 9007199254740\d+ is/,
      );
    const variations = { options: { variationSeed: Number.MAX_SAFE_INTEGER }, seed: 0 };
    expect(() => planPictures([request("a"), request("b")], variations)).toThrow(/^variationSeed: the seed 9007/);
  });

  it("random seeds are integers below 2^32", () => {
    const [picture] = planPictures([request("a", { seed: "random" })], { seed: 0 });
    for (const seed of [picture!.seed!, randomSeed()])
      expect(Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32).toBe(true);
  });
});

it("a line's options go before the command's, rewards one by one", () => {
  expect(
    mergeOptions({ steps: 5, shift: 2, rewardTargets: { a: 1, b: 1 } }, { steps: 9, rewardTargets: { b: 0 } }),
  ).toEqual({ steps: 9, shift: 2, rewardTargets: { a: 1, b: 0 } });
});

it("groups hold each picture once, share their settings, and keep the order within", () => {
  const option = fc.record({ steps: fc.constantFrom(1, 2), shift: fc.constantFrom(1, 2) }, { requiredKeys: [] });
  fc.assert(
    fc.property(fc.array(option, { maxLength: 40 }), fc.integer({ min: 1, max: 3 }), (options, candidates) => {
      const pictures = planPictures(
        options.map((own, i) => request(`p${i}`, { options: { ...own, rewardTargets: { x: i } } })),
        { seed: 3, candidates },
      );
      const groups = groupPictures(pictures, candidates);
      const places = groups.flatMap((group) => group.pictures.map(({ index }) => index));
      expect([...places].sort((a, b) => a - b)).toEqual(pictures.map(({ index }) => index));
      for (const group of groups) {
        expect(group.options.imagesPerPrompt).toBe(candidates);
        for (const [i, { index, seed, prompt, options }] of group.pictures.entries()) {
          expect(group.options.steps).toBe(options.steps);
          expect(group.options.shift).toBe(options.shift);
          expect(group.prompts[i]).toBe(prompt);
          for (let c = 0; c < candidates; c++) {
            expect((group.options.seed as number[])[i * candidates + c]).toBe(seed! + c);
            expect((group.options.rewardTargets as { x: number }[])[i * candidates + c]).toEqual({ x: index });
          }
          if (i > 0) expect(index).toBeGreaterThan(group.pictures[i - 1]!.index);
        }
      }
      const kinds = new Set(options.map(({ steps, shift }) => `${steps} ${shift}`)).size;
      expect(groups.length).toBe(kinds);
    }),
  );
});

it("a wrong option is refused with the line that gives it", () => {
  expect(() => planPictures([request("a", { options: { steps: 0 }, where: "p.csv:2" })], { seed: 0 })).toThrow(
    /^p\.csv:2: steps: expected an integer of at least 1, received 0$/,
  );
  for (const [name, list] of Object.entries({
    variationSeed: [4, 5],
    negativePrompt: ["a"],
    rewardTargets: [{}, {}],
  })) {
    const options = { [name]: list, imagesPerPrompt: 2 };
    expect(() => planPictures([request("a", { options })], { seed: 0 })).toThrow(new RegExp(`^${name}\\S*: expected`));
  }
  expect(() => planPictures([request("a")], { options: { imagesPerPrompt: 0 }, seed: 0 })).toThrow(
    /^imagesPerPrompt: /,
  );
});
