import { appendFileSync, existsSync, readFileSync, rmSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { copyPublished, PUBLISHED, recorded } from "../data/dataset/testing/published.js";
import { runCaptured } from "./testing/run-captured.js";

let copy: ReturnType<typeof copyPublished>;
beforeEach(() => {
  copy = copyPublished();
});
afterEach(() => copy.remove());

const index = (...args: string[]) =>
  runCaptured("index", ...["cc12m", "laion"].map((name) => join(copy.path, name)), ...args);

describe("miro index", () => {
  it("writes what Python's wids writes: shards in order with their numbers of samples", async () => {
    const { code, stdout } = await index("--json");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      folders: [
        { shards: 2, samples: 24, problems: [] },
        { shards: 1, samples: 8 },
      ],
      bins: null,
    });
    for (const root of ["cc12m", "laion"]) {
      const mine = JSON.parse(readFileSync(join(copy.path, root, "wids-index.json"), "utf8"));
      const theirs = JSON.parse(readFileSync(join(PUBLISHED, "recorded", `index-${root}.json`), "utf8"));
      const named = (list: { url: string; nsamples: number }[]) =>
        list.map(({ url, nsamples }) => [url.split("/").at(-1), nsamples]);
      expect(mine.wids_version).toBe(theirs.wids_version);
      expect(named(mine.shardlist)).toEqual(named(theirs.shardlist));
    }
    expect((await index("--absolute")).code).toBe(0);
    const absolute = JSON.parse(readFileSync(join(copy.path, "laion", "wids-index.json"), "utf8"));
    expect(absolute.shardlist[0].url).toBe(join(copy.path, "laion", "00002.tar"));
  });

  it("keeps the bin edges that the published code computes, under its name and to the byte", async () => {
    const { scores } = recorded();
    const { code, stdout } = await index(
      "--bins",
      "--num-bins",
      "8",
      "--distinct",
      "--score-mode",
      "original",
      "--json",
    );
    expect(code).toBe(0);
    const { bins } = JSON.parse(stdout);
    expect(Object.keys(bins.edges)).toEqual(scores);
    expect(bins.scores.vqa_score).toMatchObject({ count: 31, missing: 1 });
    const name = bins.file.split("/").at(-1);
    expect(readFileSync(bins.file, "utf8")).toBe(readFileSync(join(PUBLISHED, "recorded", name), "utf8"));
    const again = JSON.parse(
      (await index("--bins", "--num-bins", "8", "--distinct", "--score-mode", "original", "--json")).stdout,
    );
    expect(again.bins).toEqual({ ...bins, scores: null });
  });

  it("counts what passes a filter and keeps it under the published name", async () => {
    const { stdout } = await index(
      "--sizes",
      "--clip-filter-threshold",
      "0.3",
      "--aesthetic-threshold",
      "0.5",
      "--json",
    );
    const { folders } = JSON.parse(stdout);
    const { passing } = recorded().batches.strict!; // sample 26 lacks a caption, which the filter does not look at
    expect(folders[0].passing).toBe(passing.filter((sample) => sample < 24).length);
    expect(folders[0].sizeFile).toBe(join(copy.path, "cc12m", "total_size_256_0_3_0_5.json"));
    expect(existsSync(join(PUBLISHED, "recorded", "total_size_256_0_3_0_5.json"))).toBe(true);
    expect(JSON.parse(readFileSync(folders[0].sizeFile, "utf8"))).toEqual({ total_size: folders[0].passing });
    expect(JSON.parse((await index("--sizes", "--json")).stdout).folders).toMatchObject([
      { passing: 23, sizeFile: join(copy.path, "cc12m", "total_size_256_0_0_0_0.json") },
      { passing: 8 },
    ]);
  });

  it("prints a line for each folder and score", async () => {
    const { stdout } = await index("--bins", "--scores", "clip_score, vqa_score", "--num-bins", "4");
    expect(stdout).toMatch(
      /cc12m\/wids-index\.json: 2 shards, 24 samples\n.*laion\/wids-index\.json: 1 shard, 8 samples\n/,
    );
    expect(stdout).toMatch(/clip_score +4 bins {2}inner edges {3}0\.\d{4} … {3}0\.\d{4} {2}mean .* missing 0\n/);
    expect(stdout).toMatch(/coherence_bins_4_bins_clip_score-vqa_score_synthetic_prob_0\.0\.json\n$/);
  });

  it("says which shards no longer fit their index, exit code 1", async () => {
    await index();
    expect((await index("--check")).code).toBe(0);
    appendFileSync(join(copy.path, "laion", "00002.tar"), Buffer.alloc(512));
    const { code, stderr } = await index("--check");
    expect(code).toBe(1);
    expect(stderr).toMatch(/00002\.tar: the shard has changed since it was indexed/);
  });

  it("refuses unknown scores and wrong options in one line, exit code 2", async () => {
    const refused = async (args: string[], message: RegExp) => {
      const { code, stderr } = await index(...args);
      expect([code, stderr.trim().split("\n").length]).toEqual([2, 1]);
      expect(stderr).toMatch(message);
    };
    await refused(["--bins", "--scores", "beauty_score"], /beauty_score: no bins can be made, no sample has one/);
    await refused(["--num-bins", "1"], /--num-bins: expected an integer from 2 to 65536, received 1/);
    await refused(
      ["--strategy", "median"],
      /--strategy: expected one of uniform, quantile, refined_quantile, received "median"/,
    );
  });

  it("leaves out a shard that was cut where it is told to", async () => {
    truncateSync(join(copy.path, "cc12m", "00001.tar"), 100_000);
    const { stderr, stdout, code } = await index("--skip-broken-shards", "--json");
    expect(code).toBe(0);
    expect(stderr).toMatch(/warning: .*00001\.tar, .*byte \d+: .* \(\w+\)/);
    expect(JSON.parse(stdout).folders).toMatchObject([
      { shards: 1, samples: 13 },
      { shards: 1, samples: 8 },
    ]);
    const info = async (...args: string[]) => (await runCaptured("info", join(copy.path, "cc12m"), ...args)).code;
    rmSync(join(copy.path, "cc12m", "wids-index.json"));
    expect([await info(), await info("--skip-broken-shards")]).toEqual([1, 0]);
  });

  it("names a damaged shard and ends with exit code 1", async () => {
    truncateSync(join(copy.path, "laion", "00002.tar"), 100_000);
    const { stderr, code } = await index();
    expect(code).toBe(1);
    expect(stderr).toMatch(/warning: .*00002\.tar, .*byte \d+: .* \(\w+\)/);
    expect(stderr).toMatch(/error: 1 shard is damaged or unfinished; only what could be read of them was indexed/);
  });

  it("names a folder without shards, exit code 1", async () => {
    rmSync(join(copy.path, "laion", "00002.tar"));
    const { stderr, code } = await index();
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/laion: no \*\.tar in this folder .*; miro preprocess makes shards/),
    ]);
  });
});
