import { describe, expect, it } from "vitest";
import { NumpyGenerator } from "./numpy.js";

describe("numpy.random.default_rng", () => {
  it.each([
    [0, ["11749869230777074271", "4976686463289251617", "755828109848996024"]],
    [43, ["12032797558513133635", "807512191912379574", "369480662970811903"]],
    [4294967295, ["4647538520743280031", "4041050679407036418", "5299467714154781845"]],
  ])("with seed %i gives numpy's 64-bit numbers", (seed, numbers) => {
    const random = new NumpyGenerator(seed);
    expect(numbers.map(() => String(random.next64()))).toEqual(numbers);
  });

  it("chooses as numpy does, one draw after another", () => {
    const random = new NumpyGenerator(43);
    expect(random.choose(80, 2)).toEqual([52, 39]);
    expect(random.integer(0, 79)).toBe(3);
    expect(random.integer(2, 4)).toBe(3);
    expect(random.choose(79, 2).map((index) => index + 1)).toEqual([2, 22]);
    expect(random.integer(0, 3)).toBe(1);
    const all = random.choose(80, 80);
    expect(all.slice(0, 10)).toEqual([60, 46, 16, 31, 10, 59, 2, 23, 26, 36]);
    expect(new Set(all).size).toBe(80);
    expect(random.integer(0, 1)).toBe(1);
    expect(random.integer(5, 5)).toBe(5);
  });

  it("draws again where a number would make a choice likelier than others, as numpy does", () => {
    // Of 2³¹ + 1 choices, every second number is one too many.
    const random = new NumpyGenerator(43);
    expect(Array.from({ length: 8 }, () => random.integer(0, 2 ** 31))).toEqual([
      1400802000, 94006791, 593941932, 1802195298, 997469946, 1614461610, 816028759, 588007143,
    ]);
    expect(random.integer(0, 79)).toBe(33);
  });
});
