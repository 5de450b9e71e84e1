import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { areaUnderCurve, rankCorrelation } from "./statistics.js";

describe("areaUnderCurve", () => {
  it("is the share of pairs in order, ties counting half", () => {
    const positives = [3, 1, 2, 2, 5, -1];
    const negatives = [2, 0, 4, 2, 1];
    let wins = 0;
    for (const p of positives) for (const n of negatives) wins += p > n ? 1 : p === n ? 0.5 : 0;
    expect(areaUnderCurve(positives, negatives)).toBeCloseTo(wins / 30, 12);
  });
});

describe("rankCorrelation", () => {
  it("is 1 − 6 Σd² / n(n² − 1) without ties, and unchanged by anything that keeps the order", () => {
    const distinct = fc.uniqueArray(fc.integer({ min: -1000, max: 1000 }), { minLength: 3, maxLength: 20 });
    fc.assert(
      fc.property(distinct, fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true })), (a, stream) => {
        const b = a.map((_, i) => ({ i, key: stream.next().value! }));
        const permuted = b.sort((x, y) => x.key - y.key || x.i - y.i).map(({ i }) => i);
        const rank = (values: number[], i: number) => values.filter((value) => value < values[i]!).length;
        const n = a.length;
        const squares = a.reduce((sum, _, i) => sum + (rank(a, i) - rank(permuted, i)) ** 2, 0);
        const expected = 1 - (6 * squares) / (n * (n * n - 1));
        expect(rankCorrelation(a, permuted)).toBeCloseTo(expected, 10);
        expect(rankCorrelation(a.map(Math.atan), permuted)).toBeCloseTo(expected, 10);
      }),
    );
  });

  it("gives equal values the mean of their ranks", () => {
    // Ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3: Pearson's correlation of these.
    expect(rankCorrelation([1, 2, 2, 3], [10, 20, 30, 40])).toBeCloseTo(4.5 / Math.sqrt(4.5 * 5), 12);
    expect(rankCorrelation([1, 1], [1, 2])).toBeNaN();
  });
});
