import { existsSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { type BinIdentity, binCacheName, readBinCache, writeBinCache } from "./bin-cache.js";
import { computeBins } from "./bins.js";
import { parseMetadata } from "./metadata.js";
import { FLAG, scoreTable, scoreTablePath } from "./score-table.js";
import { gatherStatistics, ScoreSummary } from "./statistics.js";
import { COUNTS, copyPublished, PUBLISHED, recorded, SHARDS } from "./testing/published.js";

const copies: { remove(): void }[] = [];
afterAll(() => {
  for (const copy of copies) copy.remove();
});
function published(): string {
  const copy = copyPublished();
  copies.push(copy);
  return copy.path;
}
const { scores, batches } = recorded();
const bytes = (text: string) => Buffer.from(text);

describe("metadata", () => {
  it("may hold Python's bare words, and strings that look like them", () => {
    const text = '{"a": NaN, "b": [-Infinity, 1], "c": "NaN \\" Infinity", "d": 0.5}';
    expect(parseMetadata(bytes(text))).toEqual({ a: null, b: [null, 1], c: 'NaN " Infinity', d: 0.5 });
  });

  it.each(["", "[1]", "null", "{'a': 1}", '{"a": NaNo}', '{"a": 1'])("%j is refused", (text) => {
    expect(() => parseMetadata(bytes(text))).toThrow(SyntaxError);
  });

  it("that is not UTF-8 is refused", () => {
    expect(() => parseMetadata(Buffer.from([0x7b, 0xff, 0x7d]))).toThrow("not UTF-8");
  });
});

describe("the score table of a shard", () => {
  it("holds what the metadata say", () => {
    const table = scoreTable(join(published(), SHARDS[0]!));
    expect(table.count).toBe(13);
    expect([...table.scores.keys()].sort()).toEqual([...scores, ...scores.map((name) => `synthetic_${name}`)].sort());
    expect(table.width[5]).toBe(200);
    expect(table.width[11]).toBeNaN();
    expect(table.scores.get("vqa_score")![3]).toBeNaN();
    expect(table.scores.get("synthetic_vqa_score")![7]).toBeNaN();
    expect(table.scores.get("vqa_score")![7]).toBeGreaterThan(0);
    expect([...table.flags]).toEqual(Array(13).fill(FLAG.METADATA + FLAG.IMAGE + FLAG.CAPTION));
    expect(scoreTable(join(published(), SHARDS[2]!)).flags[26 - 24]).toBe(FLAG.METADATA + FLAG.IMAGE);
  });

  it("is kept, and made anew when the archive has changed or the file is damaged", () => {
    const shard = join(published(), SHARDS[1]!);
    const first = scoreTable(shard);
    const path = scoreTablePath(shard);
    const kept = readFileSync(path);
    expect(scoreTable(shard)).toEqual(first);
    writeFileSync(path, kept.subarray(0, kept.length - 8));
    expect(scoreTable(shard)).toEqual(first);
    expect(readFileSync(path)).toEqual(kept);
    utimesSync(shard, 1e9, 1e9);
    expect(scoreTable(shard)).toEqual(first);
    expect(readFileSync(path)).not.toEqual(kept);
  });
});

describe("statistics", () => {
  const root = published();
  const table = (shard: number) => scoreTable(join(root, SHARDS[shard]!));
  const options = { scores, syntheticProb: 0, scoreMode: "paired", maxSamples: 100_000, seed: 42 } as const;

  it.each(["quantile", "refined", "uniform"])("give the recorded bin edges for %s", (name) => {
    const { values } = gatherStatistics(COUNTS, table, options);
    const { options: o, bins } = batches[name]!;
    for (const score of scores) {
      const edges = computeBins(values.get(score)!, {
        numBins: o.num_bins,
        strategy: o.bin_strategy ?? "quantile",
        refineLastNBins: o.refine_last_n_bins ?? 0,
        refineFactor: o.refine_factor ?? 1,
        distinct: true,
      });
      expect([...edges!]).toEqual(bins[score]);
    }
  });

  it("count every sample and leave out what is missing", () => {
    const { samples, summaries } = gatherStatistics(COUNTS, table, options);
    expect(samples).toBe(32);
    expect(summaries.get("vqa_score")).toMatchObject({ count: 31, missing: 1 });
    expect(summaries.get("synthetic_vqa_score")).toMatchObject({ count: 30, missing: 2 });
    expect(summaries.get("synthetic_hpsv2_score")).toMatchObject({ count: 30, missing: 2 });
  });

  it("sample as many samples as asked for, without regard to how they are divided into shards", () => {
    const drawn = gatherStatistics(COUNTS, table, { ...options, scores: ["clip_score"], maxSamples: 10 }).values;
    const whole = gatherStatistics(COUNTS, table, { ...options, scores: ["clip_score"] }).values.get("clip_score")!;
    // CPython 3.11: sorted(random.Random(42).sample(range(32), 10))
    const published = [0, 3, 4, 7, 8, 21, 23, 27, 29, 31];
    expect([...drawn.get("clip_score")!]).toEqual(published.map((i) => whole[i]));
  });

  it("take synthetic scores with their probability, all of a sample's or none", () => {
    const values = (syntheticProb: number, scoreMode: "paired" | "original" = "paired") =>
      gatherStatistics(COUNTS, table, { ...options, syntheticProb, scoreMode }).values;
    const first = (shard: number, name: string) => Math.fround(table(shard).scores.get(name)![0]!);
    expect(values(1).get("clip_score")![0]).toBe(first(0, "synthetic_clip_score"));
    expect(values(1).get("clip_score")![13]).toBe(Math.fround(table(1).scores.get("clip_score")![0]!)); // lacks synthetic_hpsv2_score
    expect(values(1).get("clip_score")![14]).toBe(Math.fround(table(1).scores.get("synthetic_clip_score")![1]!));
    expect(values(1, "original")).toEqual(values(0));
  });

  it("agree with mean and deviation by their definitions", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -1e3, max: 1e3, noNaN: true }), { minLength: 2, maxLength: 200 }),
        (values) => {
          const summary = new ScoreSummary();
          for (const value of [...values, Number.NaN, Infinity]) summary.add(value);
          const mean = values.reduce((a, b) => a + b) / values.length;
          const variance = values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (values.length - 1);
          expect(summary.mean).toBeCloseTo(mean, 8);
          expect(summary.std).toBeCloseTo(Math.sqrt(variance), 8);
          expect([summary.count, summary.missing]).toEqual([values.length, 2]);
          expect([summary.min, summary.max]).toEqual([Math.min(...values), Math.max(...values)]);
        },
      ),
    );
  });
});

describe("the file of bin edges", () => {
  const edgesOf = (name: string) =>
    new Map(Object.entries(batches[name]!.bins).map(([score, edges]) => [score, Float32Array.from(edges)]));
  const identity = (name: string): BinIdentity => {
    const { options: o } = batches[name]!;
    return {
      scores,
      syntheticProb: o.synthetic_embedding_prob ?? 0,
      scoreMode: "original",
      bins: {
        numBins: o.num_bins,
        strategy: o.bin_strategy ?? "quantile",
        refineLastNBins: o.refine_last_n_bins ?? 0,
        refineFactor: o.refine_factor ?? 1,
        distinct: true,
      },
      maxSamples: 100_000,
      seed: 42,
      shards: SHARDS.map((name, i) => ({ name, samples: COUNTS[i]!, sizeBytes: 1, mtimeUs: 2 })),
    };
  };

  it.each(["quantile", "refined", "uniform", "main"])("of %s has the published name and bytes", (name) => {
    const folder = published();
    const path = writeBinCache(folder, identity(name), edgesOf(name));
    expect(existsSync(join(PUBLISHED, "recorded", binCacheName(identity(name))))).toBe(true);
    expect(readFileSync(path, "utf8")).toBe(
      readFileSync(join(PUBLISHED, "recorded", binCacheName(identity(name))), "utf8"),
    );
    expect(readBinCache(folder, identity(name))).toEqual({ edges: edgesOf(name), foreign: false });
  });

  it("belongs to its data and options", () => {
    const folder = published();
    const mine = identity("quantile");
    writeBinCache(folder, mine, edgesOf("quantile"));
    const others: Partial<BinIdentity>[] = [
      { seed: 43 },
      { scoreMode: "paired" },
      { maxSamples: 10 },
      { bins: { ...mine.bins, distinct: false } },
      { shards: mine.shards.slice(1) },
      { shards: mine.shards.map((shard) => ({ ...shard, mtimeUs: 3 })) },
    ];
    for (const other of others) expect(readBinCache(folder, { ...mine, ...other })).toBeNull();
  });

  it("of the published program is taken as it is, and of other scores is not", () => {
    const folder = join(PUBLISHED, "recorded");
    expect(readBinCache(folder, identity("main"))).toEqual({ edges: edgesOf("main"), foreign: true });
    expect(readBinCache(folder, { ...identity("main"), scores: ["clip_score"] })).toBeNull();
  });

  it("that was exchanged behind its identity is not used; a senseless one is an error", () => {
    const folder = published();
    const path = writeBinCache(folder, identity("quantile"), edgesOf("quantile"));
    writeFileSync(path, readFileSync(path, "utf8").replace("1.0", "1.5"));
    expect(readBinCache(folder, identity("quantile"))).toBeNull();
    const foreign = published();
    writeFileSync(
      join(foreign, readdirSync(folder).find((name) => name === binCacheName(identity("quantile")))!),
      '{"clip_score": 1}',
    );
    expect(readBinCache(foreign, { ...identity("quantile"), scores })).toBeNull();
    writeFileSync(
      join(foreign, binCacheName(identity("quantile"))),
      JSON.stringify(Object.fromEntries(scores.map((score) => [score, [0, 0.5, 0.4]]))),
    );
    expect(() => readBinCache(foreign, identity("quantile"))).toThrow(
      /clip_score: the edges do not ascend; remove the file/,
    );
  });
});
