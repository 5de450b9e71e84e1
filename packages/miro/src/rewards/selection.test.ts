import { describe, expect, it } from "vitest";
import { parseSelection, selectionText, selectionTotals } from "./selection.js";

describe("a selection", () => {
  it("is written as it is read", () => {
    const parts = parseSelection("sharpness = 1, colorfulness=-0.5,clip_openai=0");
    expect(parts).toEqual([
      { key: "sharpness", weight: 1 },
      { key: "colorfulness", weight: -0.5 },
      { key: "clip_openai", weight: 0 },
    ]);
    expect(selectionText(parts)).toBe("sharpness,colorfulness=-0.5,clip_openai=0");
    expect(parseSelection(selectionText(parts))).toEqual(parts);
  });

  it.each([
    ["", /expected scorers, each alone or with its weight .*received ""/],
    ["sharpness=", /received "sharpness="/],
    ["sharpness=much", /received "sharpness=much"/],
    ["sharpness=Infinity", /received "sharpness=Infinity"/],
    ["sharpness,,", /received ""/],
    ["beauty", /"beauty" is not known; there are/],
    ["sharpness,sharpness=2", /each scorer once, received sharpness twice/],
    ["sharpness=0", /a weight that is not 0/],
  ])("%j is refused", (text, error) => {
    expect(() => parseSelection(text)).toThrow(error);
  });
});

describe("the total of several scorers", () => {
  const small = [1, 2, 3, 10];
  const large = [400, 300, 100, 200];

  it("does not depend on a scorer's units, and follows the weights", () => {
    const totals = selectionTotals([small, large], [1, 0.5]);
    const other = selectionTotals([small.map((x) => 100 * x - 7), large.map((x) => x / 1000 + 2)], [1, 0.5]);
    other.forEach((total, i) => {
      expect(total).toBeCloseTo(totals[i]!, 12);
    });
    // By hand: mean 4, std √12.5; mean 250, std √12500.
    expect(totals[0]).toBeCloseTo(-3 / Math.sqrt(12.5) + 0.5 * (150 / Math.sqrt(12_500)), 12);
    expect(totals.indexOf(Math.max(...totals))).toBe(3);
    const second = selectionTotals([small, large], [0.1, 1]);
    expect(second.indexOf(Math.max(...second))).toBe(0);
  });

  it("is the score itself where one counts alone, and leaves out what is the same for all", () => {
    expect(selectionTotals([large, small], [0, 1])).toEqual(small);
    expect(selectionTotals([small], [-1])).toEqual([-1, -2, -3, -10]);
    const [with_, without] = [
      selectionTotals([[5, 5, 5, 5], small, large], [3, 1, 1]),
      selectionTotals([small, large], [1, 1]),
    ];
    expect(with_).toEqual(without);
    expect(selectionTotals([[0.1, 0.1, 0.1]], [1])).toEqual([0.1, 0.1, 0.1]);
  });
});
