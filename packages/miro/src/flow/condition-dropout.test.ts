import { Generator, ones, rand, randn, scope, type Tensor, zeros } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { dropConditions } from "./condition-dropout.js";
import type { Draw } from "./draws.js";

const B = 3;
const none = { condDropRate: 0, textDropRate: 0, rewardDropRate: 0 };

function conditions(generator = new Generator().manualSeed(5)) {
  return {
    textEmbeddings: randn([B, 5, 6], { generator }),
    textMask: ones([B, 5], { dtype: "bool" }),
    rewards: { clip_score: rand([B], { generator }), sharpness: rand([B], { generator }) },
  };
}

function rows(...values: number[]): Tensor {
  const out = zeros([values.length]);
  values.forEach((value, i) => void out.narrow(0, i, 1).fill_(value));
  return out;
}

const plain = (c: ReturnType<typeof conditions>) =>
  JSON.stringify([c.textEmbeddings.toList(), c.textMask.toList(), c.rewards.clip_score.toList()]);

describe("dropping conditions", () => {
  it("takes text and rewards by the draw, and leaves what is given alone", () => {
    scope(() => {
      const given = conditions();
      const before = plain(given);
      const draw: Draw = (purpose, _kind, shape) => (purpose === "textDrop" ? rows(0.05, 0.2, 0.9) : zeros(shape));
      const rates = { ...none, condDropRate: 0.1, textDropRate: 0.2 };
      const left = dropConditions(given, ones([2, 6]).mul(7), rates, draw);
      expect((left.textMask.toList() as unknown[][]).map((row) => row.map(Number))).toEqual([
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1],
      ]);
      expect(left.textEmbeddings.select(0, 0).narrow(0, 0, 2).eq(7).all().item()).toBeTruthy();
      expect(left.textEmbeddings.select(0, 2).eq(given.textEmbeddings.select(0, 2)).all().item()).toBeTruthy();
      const rewards = left.rewards.sharpness!.toList() as number[];
      expect(rewards[0]).toBeNaN();
      expect(rewards.slice(1)).toEqual((given.rewards.sharpness.toList() as number[]).slice(1));
      expect(plain(given)).toBe(before);
    });
  });

  it.each([1, 5])(
    "shows the first token alone of an empty prompt of %i tokens, and has its states everywhere",
    (tokens) => {
      scope(() => {
        const draw: Draw = (_purpose, _kind, shape) => zeros(shape);
        const left = dropConditions(conditions(), ones([tokens, 6]).mul(7), { ...none, condDropRate: 1 }, draw);
        expect(left.textEmbeddings.eq(7).all().item()).toBeTruthy();
        expect((left.textMask.toList() as unknown[][]).map((row) => row.map(Number))).toEqual(
          Array(B).fill([1, 0, 0, 0, 0]),
        );
      });
    },
  );

  it("takes single rewards", () => {
    scope(() => {
      const draw: Draw = (purpose, _kind, shape) => {
        const u = ones(shape);
        if (purpose === "rewardDrop") u.narrow(0, 1, 1).narrow(1, 0, 1).zero_();
        return u;
      };
      const { rewards } = dropConditions(conditions(), ones([1, 6]), { ...none, rewardDropRate: 0.5 }, draw);
      expect(Object.values(rewards).map((r) => (r.toList() as number[]).map(Number.isFinite))).toEqual([
        [true, false, true],
        [true, true, true],
      ]);
    });
  });

  it("draws nothing at rates of 0, and refuses an empty prompt longer than the text", () => {
    scope(() => {
      const given = conditions();
      const never: Draw = () => {
        throw new Error("drawn");
      };
      expect(dropConditions(given, ones([1, 6]), none, never)).toEqual(given);
      const draw: Draw = (_purpose, _kind, shape) => zeros(shape);
      expect(() => dropConditions(given, ones([6, 6]), { ...none, condDropRate: 1 }, draw)).toThrow(
        "uncondEmbedding: expected at most 5 tokens, as many as the batch's text has, received 6",
      );
    });
  });
});
