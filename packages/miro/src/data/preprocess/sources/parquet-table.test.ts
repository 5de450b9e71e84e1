import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { InvalidInputError } from "../../../errors.js";
import { writePythonJson } from "../../../files/python-json.js";
import { parquetRow, readCaptionTable } from "./caption-table.js";
import { listShards } from "./list-shards.js";
import { openParquet } from "./parquet-table.js";

const folder = mkdtempSync(join(tmpdir(), "miro-parquet-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** One column `image` of 13 million texts that are all the same. */
const MANY_ROWS = Buffer.from(
  "UEFSMRUEFRIVEkwVAhUAAAAFAAAAYSBmb3gVABUMFQwsFYD1sgwVEBUGFQYAAAGA9bIMABUCGSxIBnNjaGVtYRUCABUMJQAYBWlt" +
    "YWdlJQAAFoD1sgwZHBkcJggcFQwZFRAZGAVpbWFnZRUAFoD1sgwWYBZgJjQmCAAAFmAWgPWyDAAAUAAAAFBBUjE=",
  "base64",
);

/** Written by tests/reference/record_parquet.py with pyarrow. */
const fixture = (name: string) => fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url));
const part = fixture("parquet/train-00000-of-00002.parquet");

/** A number as Thrift writes it: seven bits a byte, the lowest first. */
function varint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))];
}

describe("a damaged Parquet file", () => {
  const damaged = join(folder, "damaged.parquet");
  const read = async () => {
    const table = await openParquet(damaged);
    return table.read(0, Math.min(100, table.rows));
  };

  /** Every failure is the promise's own: one that nobody hears of would fail the test run. */
  it("is one error that names the file, wherever it is cut or changed", async () => {
    let refused = 0;
    for (const name of ["captions.parquet", "bytes.parquet", "parquet/train-00000-of-00002.parquet"]) {
      const whole = readFileSync(fixture(name));
      for (let at = 0; at < whole.length; at += 37) {
        const changed = Buffer.from(whole);
        changed[at] = changed[at]! ^ 0x55;
        for (const bytes of [whole.subarray(0, at), changed]) {
          writeFileSync(damaged, bytes);
          const error = await read().then(
            () => null,
            (failure: unknown) => failure,
          );
          if (error === null) continue;
          refused++;
          expect(error).toBeInstanceOf(InvalidInputError);
          expect((error as Error).message).toMatch(/damaged\.parquet: cannot be read as Parquet: ./);
        }
      }
    }
    expect(refused).toBeGreaterThan(100);
  });

  it("is refused where its columns lie beyond the end, before any is read", async () => {
    const whole = readFileSync(part);
    const footer = whole.subarray(whole.length - 8 - whole.readUInt32LE(whole.length - 8));
    writeFileSync(damaged, Buffer.concat([Buffer.from("PAR1"), footer]));
    await expect(openParquet(damaged)).rejects.toThrow(/column .* lies at bytes \d+ to \d+ of \d+/);
  });

  it("is refused where two hundred bytes say that they are millions of rows", async () => {
    writeFileSync(damaged, MANY_ROWS);
    const columns = { imageColumn: "image", captionColumn: "image" };
    await expect(readCaptionTable(damaged, columns)).rejects.toThrow(/13000000 rows of 1 columns are too many/);
    const [rows, more] = [13_000_000, 100_000_000].map((count) => Buffer.from(varint(2 * count)).toString("latin1"));
    writeFileSync(damaged, MANY_ROWS.toString("latin1").replaceAll(rows!, more!), "latin1");
    await expect(openParquet(damaged)).rejects.toThrow(/row group 1 has 100000000 rows/);
  });

  it("is told from one that cannot be opened", async () => {
    await expect(openParquet(join(folder, "nothing.parquet"))).rejects.toThrow(/nothing\.parquet: .*: no such file/i);
  });
});

it("keeps the kind of numbers: a float that is whole stays a float, at any depth", async () => {
  const table = await openParquet(fixture("numbers.parquet"));
  const [record] = await table.read(0, 1);
  const { image, caption, ...others } = record!;
  expect(writePythonJson(parquetRow(others, table))).toBe(
    '{"double": 1.0, "single": 2.0, "half": 3.0, "decimal": 4.0, "short": 5, "long": 1152921504606846976, ' +
      '"unsigned": 4294967295, "list": [1.0, 0.5], "counts": [1, 2], "struct": {"x": 1.0, "n": 1}, ' +
      '"structs": [{"x": 2.0, "n": 2}], "map": {"a": 1.0}}',
  );
  expect([image, caption]).toEqual(["a.png", "one"]);
});

describe("pictures in Parquet", () => {
  const options = { shardSize: 100 };

  it("are cells of bytes too", async () => {
    const [shard] = await listShards(fixture("bytes.parquet"), options);
    const { samples, skipped } = await shard!.read();
    expect(skipped).toEqual([]);
    expect(samples.map(({ key, extension, caption }) => [key, extension, caption])).toEqual([
      ["bytes/00000000", "png", "one"],
      ["bytes/00000001", "png", "two"],
    ]);
    expect(samples[0]!.image.bytes!.byteLength).toBe(samples[0]!.image.bytes!.buffer.byteLength);
  });

  it("have keys of their own where names repeat, in shards that go across parts", async () => {
    const shards = await listShards(fixture("parquet"), { shardSize: 4 });
    const keys: string[] = [];
    for (const shard of shards) keys.push(...(await shard.read()).samples.map(({ key }) => key));
    expect(shards.map(({ stem }) => stem)).toEqual(["00000", "00001", "00002"]);
    expect(new Set(keys).size).toBe(6);
  });

  it("give way to pictures and tars in the same folder", async () => {
    const mixed = join(folder, "mixed");
    mkdirSync(mixed);
    copyFileSync(part, join(mixed, "part.parquet"));
    copyFileSync(part, join(mixed, "._part.parquet"));
    expect((await listShards(mixed, options)).map(({ label }) => label)).toEqual([
      `${join(mixed, "part.parquet")}, rows 1 to 5`,
    ]);
    writeFileSync(join(mixed, "a.jpg"), "");
    writeFileSync(join(mixed, "a.txt"), "a caption");
    expect((await listShards(mixed, options))[0]!.label).toMatch(/pictures 0 to 0/);
  });

  it("need a column of captions, as any table", async () => {
    await expect(listShards(fixture("parquet"), { ...options, captionColumn: "alt" })).rejects.toThrow(
      /train-00000-of-00002\.parquet: caption column: expected "alt"; the table has image, text, year/,
    );
  });
});
