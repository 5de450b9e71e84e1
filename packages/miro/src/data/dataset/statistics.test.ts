import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { parseMetadata } from "../shards/metadata.js";
import { ShardTable } from "../shards/shard-table.js";
import { type BinIdentity, binCacheName, readBinCache, writeBinCache } from "./bin-cache.js";
import { computeBins } from "./bins.js";
import { gatherStatistics, ScoreSummary } from "./statistics.js";
import { COUNTS, copyPublished, edgesAsRecorded, PUBLISHED, recorded, SHARDS } from "./testing/published.js";

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
describe("metadata", () => {
  const bytes = (text: string) => Buffer.from(text);

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

describe("statistics", () => {
  const root = published();
  const tables = SHARDS.map((name) => ShardTable.load(join(root, name)));
  const shards = tables.map((table) => ({ count: table.count, table: () => table }));
  const options = {
    scores,
    syntheticProb: 0,
    syntheticText: "synthetic_flan_t5_xl_embeddings.npy",
    scoreMode: "paired",
    maxSamples: 100_000,
    seed: 42,
  } as const;

  it.each(["quantile", "refined", "uniform"])("give the recorded bin edges for %s", async (name) => {
    const { values } = await gatherStatistics(shards, options);
    const { options: o, bins } = batches[name]!;
    for (const score of scores) {
      const edges = computeBins(values.get(score)!, {
        numBins: o.num_bins,
        strategy: o.bin_strategy ?? "quantile",
        refineLastNBins: o.refine_last_n_bins ?? 0,
        refineFactor: o.refine_factor ?? 1,
        distinct: true,
      });
      expect(edgesAsRecorded(edges, bins[score]!)).toEqual(bins[score]);
    }
  });

  it("count every sample and leave out what is missing", async () => {
    const { samples, summaries } = await gatherStatistics(shards, options);
    expect(samples).toBe(32);
    expect(summaries.get("vqa_score")).toMatchObject({ count: 31, missing: 1 });
    expect(summaries.get("synthetic_vqa_score")).toMatchObject({ count: 30, missing: 2 });
    expect(summaries.get("synthetic_hpsv2_score")).toMatchObject({ count: 30, missing: 2 });
  });

  it("sample as many samples as asked for, without regard to how they are divided into shards", async () => {
    const drawn = (await gatherStatistics(shards, { ...options, scores: ["clip_score"], maxSamples: 10 })).values;
    const whole = (await gatherStatistics(shards, { ...options, scores: ["clip_score"] })).values.get("clip_score")!;
    // CPython 3.11: sorted(random.Random(42).sample(range(32), 10))
    const published = [0, 3, 4, 7, 8, 21, 23, 27, 29, 31];
    expect([...drawn.get("clip_score")!]).toEqual(published.map((i) => whole[i]));
  });

  it("take synthetic scores with their probability, all of a sample's or none", async () => {
    const values = async (syntheticProb: number, scoreMode: "paired" | "original" = "paired") =>
      (await gatherStatistics(shards, { ...options, syntheticProb, scoreMode })).values;
    const clip = (await values(1)).get("clip_score")!;
    const stored = (shard: number, sample: number, name: string) => Math.fround(tables[shard]!.value(sample, name));
    expect(clip[0]).toBe(stored(0, 0, "synthetic_clip_score"));
    expect(clip[7]).toBe(stored(0, 7, "clip_score")); // its synthetic_vqa_score is NaN
    expect(clip[13]).toBe(stored(1, 0, "clip_score")); // lacks synthetic_hpsv2_score
    expect(clip[14]).toBe(stored(1, 1, "synthetic_clip_score"));
    expect(clip[22]).toBe(stored(1, 9, "clip_score")); // has no synthetic caption
    expect(await values(1, "original")).toEqual(await values(0));
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
    expect(readBinCache(folder, identity(name))).toEqual({ edges: edgesOf(name), file: path, foreign: false });
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

  it("serves its scores in any order, and gives them in the order that is asked for", () => {
    const folder = published();
    const mine = identity("quantile");
    const file = writeBinCache(folder, mine, edgesOf("quantile"));
    const turned = [...mine.scores].reverse();
    const kept = readBinCache(folder, { ...mine, scores: turned });
    expect(kept).toEqual({ edges: edgesOf("quantile"), file, foreign: false });
    expect([...kept!.edges.keys()]).toEqual(turned);
  });

  it("of the published program is taken as it is, and of other scores is not", () => {
    const folder = join(PUBLISHED, "recorded");
    expect(readBinCache(folder, identity("main"))).toMatchObject({ edges: edgesOf("main"), foreign: true });
    expect(readBinCache(folder, { ...identity("main"), scores: ["clip_score"] })).toBeNull();
  });

  it("that was exchanged behind its identity is not used; a senseless one is an error", () => {
    const folder = published();
    const path = writeBinCache(folder, identity("quantile"), edgesOf("quantile"));
    writeFileSync(path, readFileSync(path, "utf8").replace("1.0", "1.5"));
    expect(readBinCache(folder, identity("quantile"))).toBeNull();
    const foreign = published();
    writeFileSync(join(foreign, binCacheName(identity("quantile"))), '{"clip_score": 1}');
    expect(readBinCache(foreign, identity("quantile"))).toBeNull();
    writeFileSync(
      join(foreign, binCacheName(identity("quantile"))),
      JSON.stringify(Object.fromEntries(scores.map((score) => [score, [0, 0.5, 0.4]]))),
    );
    expect(() => readBinCache(foreign, identity("quantile"))).toThrow(
      /clip_score: the edges do not ascend; remove the file/,
    );
  });
});
