import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type BIN_STRATEGIES, binLevels, binValue, computeBins, nominalBins } from "./bins.js";
import { edgesAsRecorded } from "./testing/published.js";

const sixteenths = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => (from + i) / 16);
const repeated = (values: number[], times: (i: number) => number) =>
  values.flatMap((v, i) => Array<number>(times(i)).fill(v));

describe("bin edges", () => {
  it("are quantiles of the distinct values, whatever their multiplicity, as published", () => {
    for (const times of [() => 1, (i: number) => 1 + i * i]) {
      const edges = computeBins(repeated(sixteenths(1, 9), times), { numBins: 4, distinct: true });
      expect([...edges!]).toEqual([0, 3 / 16, 5 / 16, 7 / 16, 1]);
    }
  });

  it("divide the last bins further", () => {
    const options = {
      numBins: 4,
      strategy: "refined_quantile",
      refineLastNBins: 1,
      refineFactor: 2,
      distinct: true,
    } as const;
    expect(nominalBins(options)).toBe(5);
    expect([...computeBins(sixteenths(1, 9), options)!]).toEqual([0, 3 / 16, 5 / 16, 7 / 16, 8 / 16, 1]);
  });

  it.each(["uniform", "quantile"] as const)("lie evenly between the extremes with %s and few values", (strategy) => {
    const edges = computeBins([1 / 4, 3 / 4], { numBins: 4, strategy, distinct: true });
    expect([...edges!]).toEqual([0, 3 / 8, 1 / 2, 5 / 8, 1]);
  });

  it("are sorted after the outer ones are forced, as published", () => {
    expect([...computeBins(sixteenths(-4, 4), { numBins: 4, distinct: true })!]).toEqual([-2 / 16, 0, 2 / 16, 1]);
  });

  it("reach as far as the values by default", () => {
    expect([...computeBins(sixteenths(-4, 4), { numBins: 4 })!]).toEqual([-4 / 16, -2 / 16, 0, 2 / 16, 1]);
    expect([...computeBins([0.5, 0.75, 1, 1.25, 1.5], { numBins: 4 })!]).toEqual([0, 0.75, 1, 1.25, 1.5]);
  });

  it("leave out what is not finite", () => {
    const values = [Number.NaN, ...sixteenths(1, 9), Infinity, -Infinity];
    expect(computeBins(values, { numBins: 4 })).toEqual(computeBins(sixteenths(1, 9), { numBins: 4 }));
    expect(computeBins([Number.NaN], { numBins: 4 })).toBeNull();
    expect(computeBins([], { numBins: 4, distinct: true })).toBeNull();
  });

  it("fill the bins evenly by default, also where values repeat", () => {
    const value = fc.tuple(fc.integer({ min: 0, max: 400 }), fc.double({ min: 0, max: 1, noNaN: true }));
    fc.assert(
      fc.property(fc.array(value, { minLength: 300, maxLength: 900 }), (pairs) => {
        const values = Float32Array.from(pairs, ([lattice, skew]) => (lattice / 400) * skew);
        fc.pre(new Set(values).size > 1);
        const numBins = 8;
        const edges = computeBins(values, { numBins })!;
        const levels = binLevels(edges);
        const counts = [...levels].map((level) => values.filter((v) => binValue(v, edges) === level).length);
        expect(counts.reduce((a, b) => a + b)).toBe(values.length);
        // All equal values share a bin, and a bin can have such values at both of its edges.
        const repeats = [...new Set(values)].map((v) => values.filter((w) => w === v).length).sort((a, b) => b - a);
        const atTheEdges = repeats[0]! + repeats[1]!;
        for (const count of counts) expect(count).toBeLessThanOrEqual(values.length / numBins + atTheEdges + 1);
        expect(counts.at(-1)).toBeGreaterThan(0);
        expect([...edges]).toEqual([...edges].sort((a, b) => a - b));
      }),
      { numRuns: 30 },
    );
  });

  it("give the best samples the highest level where many are equal", () => {
    const edges = computeBins(
      repeated(sixteenths(1, 9), (i) => (i === 8 ? 30 : 1)),
      { numBins: 4 },
    )!;
    expect(binValue(9 / 16, edges)).toBe(1);
    expect(binValue(8 / 16, edges)).toBeLessThan(1);
  });

  it("are evenly spaced where nearly all values are the smallest, so that quantiles tell nothing apart", () => {
    expect([...computeBins([...Array(100).fill(0), 0.25, 1], { numBins: 2 })!]).toEqual([0, 0.5, 1]);
  });

  it("are refused for impossible options", () => {
    expect(() => computeBins([1, 2], { numBins: 1 })).toThrow(
      "numBins: expected an integer from 2 to 65536, received 1",
    );
    expect(() => computeBins([1, 2], { strategy: "median" as "uniform" })).toThrow(
      /^strategy: expected one of uniform/,
    );
    expect(() => computeBins([1, 2], { numBins: 4, refineLastNBins: 4 })).toThrow(/^refineLastNBins: expected/);
  });
});

/** What record_shards.py made its values of. */
const MADE: Record<string, number[]> = {
  lattice: Array.from({ length: 4000 }, (_, i) => Math.round(150 + ((i * i) % 211)) / 1000),
  skewed: Array.from({ length: 5000 }, (_, i) => (((i * 7919) % 10007) / 10007) ** 4),
  wide: Array.from({ length: 3000 }, (_, i) => (((i * 104729) % 9973) / 9973) * 3 - 1),
  few: [0.25, 0.5, 0.5, 0.75],
  constant: Array<number>(10).fill(0.5),
};

interface RecordedEdges {
  values: string;
  strategy: (typeof BIN_STRATEGIES)[number];
  num_bins: number;
  refine_last_n_bins: number;
  refine_factor: number;
  edges: number[] | null;
}

describe("published bin edges", () => {
  const path = "../../../../../tests/reference/fixtures/shards/recorded/recorded.json";
  const { bins } = JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8"));

  it.each(bins as RecordedEdges[])(
    "of $values values, $strategy $num_bins/$refine_last_n_bins/$refine_factor, come out to the bit",
    (recorded) => {
      const {
        num_bins: numBins,
        strategy,
        refine_last_n_bins: refineLastNBins,
        refine_factor: refineFactor,
      } = recorded;
      const edges = computeBins(MADE[recorded.values]!, {
        numBins,
        strategy,
        refineLastNBins,
        refineFactor,
        distinct: true,
      });
      expect(edgesAsRecorded(edges, recorded.edges)).toEqual(recorded.edges);
    },
  );
});

describe("the level of a value", () => {
  const edges = Float32Array.of(0, 3 / 16, 5 / 16, 7 / 16, 1);
  const table: [number, number][] = [
    [-1, 0],
    [0, 0],
    [3 / 16, 0],
    [4 / 16, 1 / 3],
    [5 / 16, 1 / 3],
    [6 / 16, 2 / 3],
    [7 / 16, 2 / 3],
    [8 / 16, 1],
    [1, 1],
  ];

  it("is the rank of its bin", () => {
    for (const [value, level] of table) expect(binValue(value, edges)).toBe(Math.fround(level));
    expect(binValue(2, edges)).toBe(1);
    for (const unknown of [Number.NaN, Infinity, -Infinity]) expect(binValue(unknown, edges)).toBeNaN();
  });

  it("leaves [0, 1] in the published mapping", () => {
    for (const [value, level] of table) expect(binValue(value, edges, { upstreamBins: 4 })).toBe(Math.fround(level));
    expect(binValue(2, edges, { upstreamBins: 4 })).toBe(Math.fround(4 / 3));
    expect(binValue(Number.NaN, edges, { upstreamBins: 4 })).toBe(Math.fround(4 / 3));
  });

  it("reaches 1 also where edges fell together, unlike the published mapping", () => {
    const fewer = Float32Array.of(-2 / 16, 0, 2 / 16, 1);
    expect(binValue(0.9, fewer)).toBe(1);
    expect(binValue(0.9, fewer, { upstreamBins: 4 })).toBe(Math.fround(2 / 3));
  });

  it("is one of the levels, and no lower for a higher value", () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.float({ noNaN: true, min: -2, max: 3 }), { minLength: 3, maxLength: 70 }),
        fc.array(fc.float({ noNaN: true, noDefaultInfinity: true, min: -4, max: 4 }), { minLength: 2 }),
        (points, values) => {
          const edges = Float32Array.from(new Set(points.map((p) => p + 0))).sort();
          fc.pre(edges.length >= 3);
          const levels = new Set(binLevels(edges));
          const ascending = values.sort((a, b) => a - b).map((v) => binValue(v, edges));
          for (const level of ascending) expect(levels.has(level)).toBe(true);
          for (let i = 1; i < ascending.length; i++) expect(ascending[i]).toBeGreaterThanOrEqual(ascending[i - 1]!);
        },
      ),
    );
  });
});
