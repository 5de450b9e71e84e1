/** What `miro preprocess` tells of samples, shards and files that it leaves out. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, expect, it } from "vitest";
import { TarWriter } from "../data/shards/tar-writer.js";
import { RED_PNG } from "../pictures/testing/red.js";
import { bundledFolder } from "../pipeline/loading/bundled.js";
import { runCaptured } from "./testing/run-captured.js";

const folder = mkdtempSync(join(tmpdir(), "miro-counts-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function source(name: string): string {
  const path = join(folder, name);
  mkdirSync(path);
  return path;
}

async function tar(path: string, members: readonly (readonly [string, string | Uint8Array])[]): Promise<void> {
  const writer = await TarWriter.create(path);
  for (const [name, content] of members) await writer.add(name, Buffer.from(content));
  await writer.finish();
}

/** The members of a sample. */
const sample = (key: string) =>
  [[`${key}.png`, RED_PNG] as const, [`${key}.txt`, "red"], [`${key}.json`, "{}"]] as const;

async function preprocess(src: string, ...args: readonly string[]) {
  const done = await runCaptured("preprocess", "--src", src, "--scorers", "sharpness", "--json", ...args);
  return { ...done, shards: JSON.parse(done.stdout || '{"shards": []}').shards };
}

it("members that repeat are no further samples; pictures of one name are", async () => {
  const tars = source("repeated");
  await tar(join(tars, "0.tar"), [...sample("a"), ...sample("b"), ["a.TXT", "blue"], ["c.txt", "no picture"]]);
  const { shards } = await preprocess(tars, "--stage", "rewards");
  expect(shards).toMatchObject([{ seen: 3, written: 2, skipped: { "duplicate-member": 1, "missing-image": 1 } }]);

  const pictures = source("pictures");
  for (const name of ["a.png", "a.webp", "a.gif", "b.png"]) writeFileSync(join(pictures, name), RED_PNG);
  for (const name of ["a.txt", "b.txt"]) writeFileSync(join(pictures, name), "red");
  const folderOf = await preprocess(pictures, "--stage", "rewards");
  expect(folderOf.shards).toMatchObject([{ seen: 4, written: 2, skipped: { "duplicate-key": 2 } }]);
});

it("rows of a table that name no picture are left out, and the others prepared", async () => {
  const src = source("table");
  writeFileSync(join(src, "a.png"), RED_PNG);
  const rows = {
    "list.csv": "image,caption\na.png,red\n,lost\n",
    "list.jsonl": '{"image": 3}\n{"image": "a.png", "caption": "red"}\n',
  };
  for (const [name, text] of Object.entries(rows)) {
    writeFileSync(join(src, name), text);
    const csvDir = join(src, `${name}-scores`);
    const { code, shards } = await preprocess(join(src, name), "--stage", "rewards", "--csv-dir", csvDir);
    expect(code).toBe(0);
    expect(shards).toMatchObject([{ seen: 2, written: 1, skipped: { "missing-image": 1 } }]);
    const row = name === "list.csv" ? 2 : 1;
    expect(readFileSync(join(csvDir, "00000_scores.rewards.skipped.jsonl"), "utf8")).toBe(
      `{"key":"","reason":"missing-image","message":"row ${row} names no picture"}\n`,
    );
  }
});

it("samples without a row of synthetic captions are counted among those that are written", async () => {
  const src = source("captioned");
  const broken = [["c.png", "no picture"] as const, ["c.txt", "red"] as const, ["c.json", "{}"] as const];
  await tar(join(src, "0.tar"), [...sample("a"), ...sample("b"), ...broken]);
  const table = join(src, "captions.tsv");
  writeFileSync(table, "a.png\tshort\tlong\n");
  const { stderr, shards } = await preprocess(src, "--stage", "rewards", "--synthetic-captions", table);
  expect(shards).toMatchObject([{ seen: 3, written: 2, withoutSynthetic: 1 }]);
  expect(stderr).toBe(`${table}: has no row for 1 sample, left without a synthetic caption\n`);
});

it("a shard that fails in two stages is one", async () => {
  const src = source("broken");
  await tar(join(src, "0.tar"), sample("a"));
  writeFileSync(join(src, "1.tar"), readFileSync(join(src, "0.tar")).subarray(0, 700));
  const latents = ["--dest", join(folder, "broken-out"), "--model", bundledFolder("miro-emoji")!, "--no-vae-512"];
  const { code, stderr, shards } = await preprocess(src, "--stage", "all", ...latents);
  expect(shards.map(({ status }: { status: string }) => status)).toEqual(["done", "failed", "done", "failed"]);
  expect(stderr).toMatch(/^error: 1 of 2 shards failed; the same command tries them again$/m);
  expect(code).toBe(1);
});

it("compressed tars are named, with what to do, by whatever name", async () => {
  const src = source("compressed");
  await tar(join(src, "0.tar"), sample("a"));
  const packed = gzipSync(readFileSync(join(src, "0.tar")));
  writeFileSync(join(src, "1.tar.gz"), packed);
  const among = await preprocess(src, "--stage", "rewards");
  expect(among.stderr).toMatch(/^warning: .*compressed: 1 compressed tar is not read \(1\.tar\.gz\); unpack it$/m);
  expect(among.shards.length).toBe(1);

  rmSync(join(src, "0.tar"));
  const alone = await preprocess(src, "--stage", "rewards");
  expect(alone).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("1.tar.gz is compressed: unpack such files"),
  });
  const index = await runCaptured("index", src);
  expect(index.stderr).toMatch(/no \*\.tar in this folder \(NoShards\); 1\.tar\.gz is compressed: unpack such files/);

  writeFileSync(join(src, "2.tar"), packed);
  const disguised = await preprocess(src, "--stage", "rewards");
  expect(disguised.stderr).toMatch(/2\.tar, byte 0: the file was compressed with gzip; .* so unpack it \(Compressed\)/);
  expect(disguised.code).toBe(1);
});
