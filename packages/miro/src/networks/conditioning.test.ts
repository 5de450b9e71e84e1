import { manualSeed, noGrad, ones, randn, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { beforeEach, describe, expect, it } from "vitest";
import { keyMask, narrowConditioning, rewardKeepMask, rewardMatrix, trimText } from "./conditioning.js";

const evaluate = (test: () => void) => () => scope(() => noGrad(test));
const values = (t: Tensor) => (t.toList() as number[][]).map((row) => row.map(Number));

beforeEach(() => {
  manualSeed(1);
});

describe("trimText", () => {
  it(
    "keeps the tokens up to the longest text, and a mask only where some are padding",
    evaluate(() => {
      const text = randn([2, 5, 3]);
      const mask = tensor([
        [true, true, false, false, false],
        [true, true, true, false, false],
      ]);
      const cut = trimText(text, mask);
      expect(cut.text.shape).toEqual([2, 3, 3]);
      expect(values(cut.mask!)).toEqual([
        [1, 1, 0],
        [1, 1, 1],
      ]);
      expect(trimText(text, ones([2, 5], { dtype: "bool" })).mask).toBeNull();
      expect(values(keyMask(cut.mask!, 2).select(1, 0).select(1, 0))).toEqual([
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
      ]);
    }),
  );
});

describe("rewardMatrix", () => {
  it(
    "has a column for each key in order; what is missing is NaN, or an error where it is needed",
    evaluate(() => {
      const rewards = { b: tensor([1, 2]), a: tensor([3, 4]), other: tensor([5, 6]) };
      const like = randn([2, 1]);
      expect(values(rewardMatrix(rewards, ["a", "b", "c"], like, false))).toEqual([
        [3, 1, Number.NaN],
        [4, 2, Number.NaN],
      ]);
      expect(() => rewardMatrix(rewards, ["a", "c"], like, true)).toThrow(
        "rewards: training needs every reward, missing c",
      );
    }),
  );
});

describe("narrowConditioning", () => {
  it(
    "cuts every tensor to the samples",
    evaluate(() => {
      const kv = { keys: randn([4, 3, 2, 2]), values: randn([4, 3, 2, 2]) };
      const whole = { tokens: randn([4, 3, 4]), keyValues: [kv], mask: ones([4, 1, 1, 4], { dtype: "bool" }) };
      const part = narrowConditioning(whole, 1, 2);
      expect(part.tokens!.toList()).toEqual(whole.tokens.narrow(0, 1, 2).toList());
      expect(part.keyValues[0]!.values.toList()).toEqual(kv.values.narrow(0, 1, 2).toList());
      expect(part.mask!.shape).toEqual([2, 1, 1, 4]);
      expect(narrowConditioning({ ...whole, tokens: null, mask: null }, 0, 1)).toMatchObject({
        tokens: null,
        mask: null,
      });
    }),
  );
});

describe("rewardKeepMask", () => {
  const counts = (mask: Tensor) => mask.sum(1).toList() as number[];
  const share = (values: number[], wanted: number) => values.filter((value) => value === wanted).length / values.length;

  it(
    "binomial keeps each with probability 1 - p, and one where none is left",
    evaluate(() => {
      const [n, K, p] = [20_000, 3, 0.8];
      const mask = rewardKeepMask(n, K, "binomial", p, "cpu");
      const kept = counts(mask);
      expect(Math.min(...kept)).toBe(1);
      expect(share(kept, 3)).toBeCloseTo(0.2 ** 3, 2);
      expect(share(kept, 2)).toBeCloseTo(3 * 0.2 ** 2 * 0.8, 2);
      for (const column of mask.mean(0).toList() as number[]) expect(column).toBeCloseTo(0.2 + 0.8 ** 3 / 3, 1.5);
      expect(counts(rewardKeepMask(100, 1, "binomial", 0.99, "cpu"))).toEqual(new Array(100).fill(1));
    }),
  );

  it(
    "uniform hides 0 … K-1, equally often",
    evaluate(() => {
      const kept = counts(rewardKeepMask(20_000, 4, "uniform", 0, "cpu"));
      for (const wanted of [1, 2, 3, 4]) expect(share(kept, wanted)).toBeCloseTo(0.25, 1.5);
      expect(share(kept, 0)).toBe(0);
    }),
  );

  it("none keeps all", () => expect(counts(rewardKeepMask(5, 2, "none", 0.9, "cpu"))).toEqual([2, 2, 2, 2, 2]));
});
