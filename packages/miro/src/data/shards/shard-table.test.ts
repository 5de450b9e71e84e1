import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { scope, tensor } from "@miro-t2i/torch";
import { encodeNpy } from "@miro-t2i/torch/io";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { copyPublished, SHARDS } from "../dataset/testing/published.js";
import { prepareTables } from "./prepare-tables.js";
import { ShardTable } from "./shard-table.js";
import { tablePath } from "./table-file.js";
import { TarFile } from "./tar-file.js";
import { MEAN, sampleFields, TEXT, tokensOf, WIDTH, writeShard } from "./testing/make-shards.js";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tables-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let shards = 0;
async function shard(...args: [count?: number, changes?: Parameters<typeof writeShard>[3]]): Promise<string> {
  const path = join(folder, `${++shards}.tar`);
  await writeShard(path, 0, args[0] ?? 5, args[1]);
  return path;
}
/** Everything that a table says, by asking the shard itself. */
function agrees(table: ShardTable): void {
  const tar = TarFile.open(table.path);
  const samples = tar.samples();
  expect(table.count).toBe(samples.length);
  for (const [i, { key, members }] of samples.entries()) {
    expect(table.key(i)).toBe(key);
    for (const extension of table.extensions) {
      const member = members.get(extension);
      const known = table.member(i, extension);
      expect(known && { offset: known.offset, size: known.size }).toEqual(
        member === undefined ? null : { offset: member.offset, size: member.size },
      );
    }
    const json = members.get("json");
    const metadata = JSON.parse(Buffer.from(tar.read(json!)).toString().replaceAll("NaN", "null")) as Record<
      string,
      unknown
    >;
    for (const [name, value] of Object.entries(metadata))
      expect(table.value(i, name)).toEqual(typeof value === "number" ? value : Number.NaN);
  }
  tar.close();
}

describe("ShardTable", () => {
  test("says of the published layout what the archive says", () => {
    const { path, remove } = copyPublished();
    for (const name of SHARDS) agrees(ShardTable.load(join(path, name)));
    remove();
  });

  test("knows where arrays lie and what they are", async () => {
    const table = ShardTable.load(await shard());
    const text = table.array(3, TEXT)!;
    expect(text).toMatchObject({ dtype: "float16", shape: [tokensOf(3), WIDTH], sizeBytes: tokensOf(3) * WIDTH * 2 });
    const bytes = readFileSync(table.path).subarray(text.offset, text.offset + text.sizeBytes);
    expect(Buffer.compare(bytes, Buffer.from(sampleFields(3)[TEXT]!).subarray(128))).toBe(0);
    expect(table.array(3, "jpg")).toBe(null);
    expect(table.array(3, "missing.npy")).toBe(null);
  });

  test("is kept beside the shard and used again", async () => {
    const path = await shard();
    const made = ShardTable.load(path);
    expect(made.stored).toBe(true);
    const written = statSync(tablePath(path)).mtimeMs;
    const again = ShardTable.load(path);
    expect(statSync(tablePath(path)).mtimeMs).toBe(written);
    expect(again.header).toEqual(made.header);
    agrees(again);
  });

  test("is made anew when the shard has another size or time, or other headers with the same size and time", async () => {
    const path = await shard(5);
    const { atime, mtime } = statSync(path);
    expect(ShardTable.load(path).count).toBe(5);
    await writeShard(path, 0, 6);
    expect(ShardTable.load(path).count).toBe(6);
    utimesSync(path, atime, new Date(mtime.getTime() + 5000));
    const before = readFileSync(tablePath(path));
    ShardTable.load(path);
    expect(Buffer.compare(before, readFileSync(tablePath(path)))).not.toBe(0);

    await writeShard(path, 100, 6); // other keys, the same sizes
    utimesSync(path, atime, new Date(mtime.getTime() + 5000));
    expect(ShardTable.load(path).key(0)).toBe("000100");
  });

  test("damaged in any way it is made anew, never believed", async () => {
    const path = await shard(3);
    const whole = ShardTable.load(path).header;
    const bytes = readFileSync(tablePath(path));
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), fc.boolean(), (at, flip, cut) => {
        const damaged = Buffer.from(bytes);
        damaged[at]! ^= flip;
        writeFileSync(tablePath(path), cut ? bytes.subarray(0, at) : damaged);
        const table = ShardTable.load(path);
        expect(table.header).toEqual(whole);
        agrees(table);
        expect(Buffer.compare(readFileSync(tablePath(path)), bytes)).toBe(0);
      }),
      {
        numRuns: 60,
        // Each part of the beginning: the mark, the length, the zeros, the hash, and the first byte behind them.
        examples: [0, 8, 12, 15, 16, 48].map((at) => [at, 1, false]),
      },
    );
  });

  test("lives in memory where the folder cannot hold it", async () => {
    const path = await shard(3);
    mkdirSync(tablePath(path)); // in its way also for root, whom no permission stops
    const table = ShardTable.load(path);
    expect(table.stored).toBe(false);
    agrees(table);
  });

  test("of a shard that is cut tells so, holds what is whole, and is not kept", async () => {
    const path = await shard(5);
    const whole = TarFile.open(path);
    truncateSync(path, whole.members.at(-1)!.offset + 100);
    whole.close();
    const table = ShardTable.load(path);
    expect(table.problems.map((p) => p.rule)).toContain("TruncatedMember");
    expect(table.count).toBe(5);
    expect(table.has(3, MEAN)).toBe(true);
    expect(table.has(4, MEAN)).toBe(false);
    expect(existsSync(tablePath(path))).toBe(false);
  });

  test("names members that cannot be used, and has the others", async () => {
    const table = ShardTable.load(
      await shard(
        6,
        (sample): Record<string, Uint8Array> =>
          sample === 0
            ? { [MEAN]: Buffer.from("no array") }
            : sample === 1
              ? { json: Buffer.from("{") }
              : sample === 2
                ? { [TEXT]: Buffer.from(sampleFields(2)[TEXT]!).subarray(0, -1) }
                : sample === 3
                  ? { [MEAN]: fortran() }
                  : {},
      ),
    );
    expect(table.problems.map(({ rule, member }) => `${rule} ${member}`)).toEqual([
      `FileTooShort 000000.${MEAN}`,
      "BadJson 000001.json",
      `DataTooShort 000002.${TEXT}`,
      `FortranOrder 000003.${MEAN}`,
    ]);
    expect([0, 1, 2, 3, 4].map((i) => [TEXT, "json", MEAN].filter((name) => table.has(i, name)).length)).toEqual([
      2, 2, 2, 2, 3,
    ]);
    expect(table.value(1, "clip_score")).toBeNaN();
    expect(table.value(4, "clip_score")).toBe(0.5);
  });

  test("of an archive changed anywhere points inside the file, or says what is wrong with it", async () => {
    const path = await shard(4);
    const whole = readFileSync(path);
    const broken = join(folder, "broken.tar");
    const change = fc.tuple(fc.nat(whole.length - 1), fc.uint8Array({ minLength: 1, maxLength: 12 }));
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 6 }), (changes) => {
        const bytes = Buffer.from(whole);
        for (const [at, values] of changes) bytes.set(values.subarray(0, bytes.length - at), at);
        writeFileSync(broken, bytes);
        const table = ShardTable.build(broken);
        for (let i = 0; i < table.count; i++) {
          for (const extension of table.extensions) {
            const member = table.member(i, extension);
            const array = table.array(i, extension);
            if (member === null) continue;
            expect(member.offset >= 512 && member.offset + member.size <= bytes.length).toBe(true);
            if (array === null) continue;
            expect(array.offset >= member.offset && array.offset + array.sizeBytes <= member.offset + member.size).toBe(
              true,
            );
            const width = { float16: 2, float32: 4, float64: 8 }[array.dtype as "float16"] ?? 1;
            expect(array.shape.every(Number.isInteger)).toBe(true);
            if (array.dtype.startsWith("float"))
              expect(array.shape.reduce((a, b) => a * b, width)).toBe(array.sizeBytes);
          }
        }
      }),
      { numRuns: 100 },
    );
  });

  test("made in threads is the same, bad shards are left to their reader, and the signal stops it", async () => {
    const home = mkdtempSync(join(folder, "many-"));
    const paths = Array.from({ length: 10 }, (_, i) => join(home, `${i}.tar`));
    for (const [i, path] of paths.entries()) await writeShard(path, i, 3);
    writeFileSync(paths[4]!, "no tar");
    const stop = new AbortController();
    stop.abort();
    await expect(prepareTables(paths, { jobs: 2, signal: stop.signal })).rejects.toThrow(/abort/i);
    await prepareTables(paths, { jobs: 2 }); // without a listener
    for (const path of paths) rmSync(tablePath(path), { force: true });
    const told: number[] = [];
    await prepareTables(paths, { jobs: 2, onTable: (done, missing) => told.push(done / missing) });
    expect(told.at(-1)).toBe(1);
    for (const [i, path] of paths.entries()) {
      expect(ShardTable.isStored(path)).toBe(i !== 4);
      if (i === 4) continue;
      const inThread = readFileSync(tablePath(path));
      ShardTable.build(path);
      expect(Buffer.compare(readFileSync(tablePath(path)), inThread)).toBe(0);
    }
  });

  test("reports a repeated member and takes the first", async () => {
    const path = join(folder, "twice.tar");
    const { TarWriter } = await import("./tar-writer.js");
    const writer = await TarWriter.create(path);
    await writer.add("a.txt", Buffer.from("first"));
    await writer.add("a.TXT", Buffer.from("again!"));
    await writer.finish();
    const table = ShardTable.load(path);
    expect(table.problems).toMatchObject([{ rule: "DuplicateMember", member: "a.TXT" }]);
    expect(table.member(0, "txt")!.size).toBe(5);
  });
});

function fortran(): Uint8Array {
  const bytes = Buffer.from(scope(() => encodeNpy(tensor(new Float32Array(36), { shape: [4, 3, 3] }))));
  const at = bytes.indexOf("False");
  bytes.write("True ", at);
  return bytes;
}
