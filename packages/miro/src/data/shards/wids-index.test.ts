import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { PUBLISHED } from "../dataset/testing/published.js";
import { writeShard } from "./testing/make-shards.js";
import { checkWidsIndex, readWidsIndex, WIDS_INDEX_NAME, writeWidsIndex } from "./wids-index.js";

let folder: string;
let index: string;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "wids-"));
  index = join(folder, WIDS_INDEX_NAME);
  for (const [i, count] of [3, 2].entries()) await writeShard(join(folder, `${i}.tar`), 10 * i, count);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));
const shards = () => [0, 1].map((i) => join(folder, `${i}.tar`));
const written = (value: unknown): void => writeFileSync(index, JSON.stringify(value));

describe("an index", () => {
  test("has the form that wids reads, with paths relative to it", async () => {
    await writeWidsIndex(index, { shards: shards() });
    expect(JSON.parse(readFileSync(index, "utf8"))).toEqual({
      wids_version: 1,
      shardlist: [
        { url: "0.tar", nsamples: 3 },
        { url: "1.tar", nsamples: 2 },
      ],
    });
    expect(readWidsIndex(index).shards).toEqual([
      { path: join(folder, "0.tar"), nsamples: 3 },
      { path: join(folder, "1.tar"), nsamples: 2 },
    ]);
  });

  test("of broken shards alone is not written in the place of one that is there", async () => {
    await writeWidsIndex(index, { shards: shards() });
    const before = readFileSync(index, "utf8");
    for (const shard of shards()) writeFileSync(shard, "cut");
    await expect(writeWidsIndex(index, { shards: shards(), skipBrokenShards: true })).rejects.toThrow(
      /0\.tar, byte 0: every shard was cut or cannot be read: /,
    );
    expect(readFileSync(index, "utf8")).toBe(before);
  });

  test("names shards absolutely on demand", async () => {
    await writeWidsIndex(index, { shards: shards(), paths: "absolute" });
    expect(JSON.parse(readFileSync(index, "utf8")).shardlist[0].url).toBe(join(folder, "0.tar"));
  });

  test("that no longer fits its shards is noticed", async () => {
    await writeWidsIndex(index, { shards: shards() });
    expect(checkWidsIndex(index)).toEqual([]);
    await writeShard(join(folder, "0.tar"), 0, 4);
    rmSync(join(folder, "1.tar"));
    expect(checkWidsIndex(index).map(({ rule, path }) => [rule, path])).toEqual([
      ["Changed", join(folder, "0.tar")],
      ["Unreadable", join(folder, "1.tar")],
    ]);
  });

  test("as the published code recorded it is read, its paths being those of another working directory", () => {
    const recorded = JSON.parse(readFileSync(join(PUBLISHED, "recorded", "index-cc12m.json"), "utf8"));
    written(recorded);
    expect(readWidsIndex(index).shards.map(({ nsamples }) => nsamples)).toEqual([13, 11]);
    written({ wids_version: 1, shardlist: [{ url: "elsewhere/0.tar", nsamples: 3 }] });
    expect(readWidsIndex(index).shards[0]!.path).toBe(join(folder, "0.tar"));
    const fromHere = relative(process.cwd(), join(folder, "0.tar"));
    written({ wids_version: 1, shardlist: [{ url: fromHere, nsamples: 3 }] });
    expect(readWidsIndex(index).shards[0]!.path).toBe(join(folder, "0.tar"));
  });

  test("of the fuller form: data sets, their own base, weights, and references to other indexes", () => {
    mkdirSync(join(folder, "sub"));
    const other = join(folder, "sub", "other.json");
    writeFileSync(other, JSON.stringify({ wids_version: 1, shardlist: [{ url: "b.tar", nsamples: 7 }] }));
    written({
      wids_version: 1,
      name: "all",
      shardlist: [{ url: "0.tar", nsamples: 3 }],
      datasets: [
        { name: "a", weight: 2, base: "sub", shardlist: [{ url: "a.tar", nsamples: 5 }] },
        { name: "b", weight: 0.5, source_url: "sub/other.json" },
      ],
    });
    expect(readWidsIndex(index)).toEqual({
      name: "all",
      shards: [
        { path: join(folder, "0.tar"), nsamples: 3, dataset: "all" },
        { path: join(folder, "sub", "a.tar"), nsamples: 5, weight: 2, dataset: "a" },
        { path: join(folder, "sub", "b.tar"), nsamples: 7, weight: 0.5, dataset: "b" },
      ],
    });
  });

  test.each<[string, unknown, RegExp]>([
    ["another version", { wids_version: 2, shardlist: [{ url: "a.tar", nsamples: 1 }] }, /wids_version/],
    ["no shards", { wids_version: 1, shardlist: [] }, /lists no shards/],
    ["a count that is none", { wids_version: 1, shardlist: [{ url: "a.tar", nsamples: -1 }] }, /nsamples/],
    [
      "a remote shard",
      { wids_version: 1, shardlist: [{ url: "https://a/b.tar", nsamples: 1 }] },
      /not on this machine/,
    ],
    ["a command", { wids_version: 1, shardlist: [{ url: "pipe:cat a.tar", nsamples: 1 }] }, /not on this machine/],
    ["a list", [], /wids version 1/],
  ])("with %s is refused", (_, value, message) => {
    written(value);
    expect(() => readWidsIndex(index)).toThrow(message);
  });

  test("that is no JSON is refused", () => {
    writeFileSync(index, "{");
    expect(() => readWidsIndex(index)).toThrow(/no JSON/);
  });
});
