import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InvalidInputError } from "../../errors.js";
import { axisNames, parseAxis } from "./axis.js";

const values = (text: string) => parseAxis(text, "--x", ["a fox", "a cat"]).points.map(({ value }) => value);

describe("parseAxis", () => {
  it("includes both ends of a range and leaves no binary dust in between", () => {
    expect(values("reward.sharpness=0:1:0.1")).toEqual([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]);
    expect(values("seed=0:3")).toEqual([0, 1, 2, 3]);
    expect(values("guidance=0,0.5:1.5:0.5,7")).toEqual([0, 0.5, 1, 1.5, 7]);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 50 }), fc.integer({ min: 0, max: 40 }), (first, count) => {
        const range = values(`seed=${first}:${first + count}`);
        expect(range).toEqual(Array.from({ length: count + 1 }, (_, i) => first + i));
      }),
    );
  });

  it("trades one reward off against another through the negative targets", () => {
    const { points } = parseAxis("tradeoff.sharpness.clip_score=0:1:0.25", "--x", []);
    for (const { value, change } of points) {
      expect(change.negativeRewardTargets).toEqual({ sharpness: value, clip_score: 1 - Number(value) });
    }
    // 1 − 0.9 as people write it.
    const { points: tenths } = parseAxis("tradeoff.a.b=0.1:0.9:0.4", "--x", []);
    expect(tenths.map(({ change }) => change.negativeRewardTargets)).toEqual([
      { a: 0.1, b: 0.9 },
      { a: 0.5, b: 0.5 },
      { a: 0.9, b: 0.1 },
    ]);
    expect(points.map(({ label }) => label)).toEqual(["0 : 1", "0.25 : 0.75", "0.5 : 0.5", "0.75 : 0.25", "1 : 0"]);
  });

  it("calls guidance of zero what it is, and the variant `main` the checkpoint itself", () => {
    expect(parseAxis("guidance=0,7", "--x", []).points.map(({ label }) => label)).toEqual(["unguided", "7"]);
    expect(parseAxis("variant=main,no_clip", "--x", []).points.map(({ change }) => change.variant)).toEqual([
      "",
      "no_clip",
    ]);
  });

  it("says nothing of a reward where its target is none", () => {
    const { points } = parseAxis("reward.sharpness=0,none,1", "--x", []);
    expect(points.map(({ change }) => change.rewardTargets)).toEqual([
      { sharpness: 0 },
      { sharpness: null },
      { sharpness: 1 },
    ]);
    expect(points[1]).toMatchObject({ label: "none", value: "none" });
    expect(() => parseAxis("guidance=none", "--x", [])).toThrow(/--x guidance: expected numbers/);
  });

  it.each(["reward.__proto__=0", "negative.constructor=1", "tradeoff.a.prototype=0:1:0.5"])(
    "refuses a key that every object has: %s",
    (text) => {
      expect(() => parseAxis(text, "--x", [])).toThrow(/^--x .*: the key "\w+" is not allowed/);
    },
  );

  it("takes the values of the axis `prompt` from the call", () => {
    expect(values("prompt")).toEqual(["a fox", "a cat"]);
  });

  it.each([
    ["an unknown axis", "colour=1,2", new RegExp(axisNames()[0]!.replace(".", "\\."))],
    ["an axis without values", "steps=", /--x: expected steps=VALUES/],
    ["a reward without its name", "reward=1", /one of the axes/],
    ["a trade-off of one reward", "tradeoff.sharpness.sharpness=0", /one of the axes/],
    ["a trade-off beyond its ends", "tradeoff.a.b=0:2", /numbers from 0 to 1/],
    ["fractions of steps", "steps=2.5", /an integer of at least 1/],
    ["a negative seed", "seed=-1", /integers of at least 0/],
    ["an unknown sampler", "sampler=euler,magic", /one of euler/],
    ["a range that runs backwards", "seed=3:0", /FIRST ≤ LAST/],
    ["a range that never ends", "guidance=0:1:0", /positive STEP/],
    ["a range of more than can be looked at", "seed=0:1000000000000", /at most 64/],
    ["no numbers", "guidance=a", /numbers separated by commas/],
    ["values for the prompts", "prompt=a fox", /prompt alone/],
    ["prompts where there are none", "prompt", /at least one value/],
  ])("refuses %s", (_, text, message) => {
    const attempt = () => parseAxis(text, "--x", []);
    expect(attempt).toThrow(InvalidInputError);
    expect(attempt).toThrow(message);
  });
});
