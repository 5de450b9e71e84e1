import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InvalidInputError } from "../../errors.js";
import { groupPictures, mergeOptions, planPictures, randomSeed } from "./draw-pictures.js";
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
    expect(() => planPictures([request("a")], { seed: Number.MAX_SAFE_INTEGER })).toThrow(InvalidInputError);
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

it("calls hold each picture once, share their settings, and keep the order within", () => {
  const option = fc.record({ steps: fc.constantFrom(1, 2), shift: fc.constantFrom(1, 2) }, { requiredKeys: [] });
  fc.assert(
    fc.property(fc.array(option, { maxLength: 40 }), fc.integer({ min: 1, max: 7 }), (options, size) => {
      const pictures = planPictures(
        options.map((own, i) => request(`p${i}`, { options: { ...own, rewardTargets: { x: i } } })),
        { seed: 3 },
      );
      const calls = groupPictures(pictures, size);
      const places = calls.flatMap((call) => call.pictures.map(({ index }) => index));
      expect([...places].sort((a, b) => a - b)).toEqual(pictures.map(({ index }) => index));
      for (const call of calls) {
        expect(call.pictures.length).toBeLessThanOrEqual(size);
        for (const [i, { index, seed, prompt, options }] of call.pictures.entries()) {
          expect(call.options.steps).toBe(options.steps);
          expect(call.options.shift).toBe(options.shift);
          expect([call.prompts[i], (call.options.seed as number[])[i]]).toEqual([prompt, seed]);
          expect((call.options.rewardTargets as { x: number }[])[i]).toEqual({ x: index });
          if (i > 0) expect(index).toBeGreaterThan(call.pictures[i - 1]!.index);
        }
      }
      const kinds = new Set(options.map(({ steps, shift }) => `${steps} ${shift}`)).size;
      if (size > options.length) expect(calls.length).toBe(kinds);
    }),
  );
});
