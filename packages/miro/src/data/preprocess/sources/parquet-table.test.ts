import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, it } from "vitest";
import { InvalidInputError } from "../../../errors.js";
import { writePythonJson } from "../../../files/python-json.js";
import { parquetRow, readCaptionTable } from "./caption-table.js";
import { listShards } from "./list-shards.js";
import { openParquet } from "./parquet-table.js";
import {
  column,
  describes,
  dictionary,
  INT,
  int,
  page,
  page2,
  struct,
  TEXT,
  table,
  text,
  uint32,
  varint,
} from "./testing/parquet-bytes.js";

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
    await expect(readCaptionTable(damaged, columns)).rejects.toThrow(/13,000,000 rows of 1 column are too many/);
    const [rows, more] = [13_000_000, 100_000_000].map((count) => Buffer.from(varint(2 * count)).toString("latin1"));
    writeFileSync(damaged, MANY_ROWS.toString("latin1").replaceAll(rows!, more!), "latin1");
    await expect(openParquet(damaged)).rejects.toThrow(/row group 1 has 100000000 rows/);
  });

  const two = [...uint32(1), 97, ...uint32(1), 98];
  const cell = (rows: number, ...bytes: number[]) => page(bytes, describes(rows, 0));
  /** Whole numbers, each of which is `step` more than the one before. */
  const deltas = (count: number, first: number, step: number) => [
    ...[...varint(128), ...varint(1), ...varint(count), ...int(first)],
    ...Array.from({ length: Math.ceil((count - 1) / 128) }, () => [...int(step), 0]).flat(),
  ];

  it.each<[string, Buffer, RegExp | null]>([
    [
      "is read where nothing is wrong",
      table(2, [cell(2, ...uint32(2), ...varint(4), 1, ...two)], { isOptional: true }),
      null,
    ],
    [
      "is refused where a run of values would fill the memory",
      table(2, [cell(2, ...uint32(6), ...varint(2 ** 31 - 2), 1, ...two)], { isOptional: true }),
      /a run of 1073741823 values where 2 are left/,
    ],
    [
      "is refused where packed values of no bits would be counted for ever",
      table(2, [dictionary, page2([0, ...varint(2 ** 31 + 1)], 2, 0, 2, 8, 0, 0)]),
      /a run of \d+ values where 2 are left/,
    ],
    [
      "is refused where a page has more values than there could be",
      table(2, [dictionary, page([0], describes(2 ** 31 - 1, 8))]),
      /a row group holds too much for the size of the file/,
    ],
    [
      "is refused where a page does not say how long it is, and the next one would be this one",
      table(2, [
        [...struct([1, INT, int(0)], [2, INT, int(2)], describes(0, 0)), ...Array.from({ length: 40 }, () => 0x15)],
      ]),
      /a page header without its sizes/,
    ],
    [
      "is refused where differences come in blocks of a negative length",
      table(3, [page([...varint(128), ...varint(2 ** 32 - 1), 3, 2, 1, 1, 1, 1], describes(3, 5))], { type: 1 }),
      /4294967295 miniblocks of 128 values/,
    ],
    [
      "is refused where each text is to begin with a long one before it",
      table(40_000, [
        page([...deltas(40_000, 0, 1), ...deltas(40_000, 1, 0), ...Buffer.alloc(40_000, "a")], describes(40_000, 7)),
      ]),
      /a row group holds too much for the size of the file/,
    ],
    [
      "is refused where it is little and would be decompressed to much",
      table(2, [page([...gzipSync(Buffer.from(two))], describes(2, 0), { size: 2 ** 30 })], { codec: 2 }),
      /a row group holds too much for the size of the file/,
    ],
    [
      "is refused where what is decompressed is longer than it says",
      table(2, [page([...gzipSync(Buffer.alloc(2 ** 20))], describes(2, 0), { size: 10 })], { codec: 2 }),
      /Cannot create a Buffer larger than 10 bytes/,
    ],
    [
      "is refused where a frame of LZ4 has a negative length",
      table(
        2,
        [page([...uint32(0), 255, 255, 255, 248, ...uint32(0), ...uint32(0), 0], describes(2, 0), { size: 10 })],
        { codec: 5 },
      ),
      /lz4 offset out of range/,
    ],
    [
      "is refused where a value is none of the dictionary",
      table(2, [dictionary, page([1, ...varint(2 * 2), 1], describes(2, 8))]),
      /the value 1 where 0 is the most/,
    ],
    [
      "is refused where packed values are none of the dictionary",
      table(3, [dictionary, page([2, ...varint(3), 0b100000, 0], describes(3, 8))]),
      /the value 2 where 0 is the most/,
    ],
    [
      "is refused where there is no dictionary",
      table(2, [page([0], describes(2, 8))]),
      /values of a dictionary that is not there/,
    ],
    [
      "is refused where a page has fewer values than it says",
      table(2, [cell(2, ...uint32(1), 97)]),
      /leave their page/,
    ],
    [
      "is refused where numbers go on behind their page",
      table(3, [page([1, 0, 0, 0], describes(2, 0)), page([1, 0, 0, 0], describes(1, 0))], { type: 1 }),
      /levels or values leave their page/,
    ],
    [
      "is refused where lengths go on behind their page",
      table(2, [page([...deltas(2, 1, 1), 97, 98], describes(2, 6))]),
      /levels or values leave their page/,
    ],
    [
      "is refused where a text begins with more than the one before it has",
      table(2, [page([...deltas(2, 0, 2), ...deltas(2, 1, 0), 97, 98], describes(2, 7))]),
      /a text begins with more than there is before it/,
    ],
    [
      "is refused where a column ends before its rows",
      table(3, [cell(2, ...two)]),
      /a column has 2 rows, its row group 3/,
    ],
    [
      "is refused where more is missing than a page says",
      table(2, [page2([...varint(2 * 2), 1, ...uint32(1), 97], 2, 1, 2, 0, 2, 0)], { isOptional: true }),
      /a page with wrong counts/,
    ],
    [
      "is refused where a group has less than no columns",
      table(2, [cell(2, ...two)], {
        schema: [column(), struct([4, TEXT, text("group")], [5, INT, int(-2)])],
      }),
      /row group 1 has 1 columns of 2/,
    ],
    [
      "is refused where two columns have one name",
      table(2, [cell(2, ...two)], { schema: [column(), column()] }),
      /it has the column "image" twice/,
    ],
    [
      "is refused where groups stand in groups without end",
      table(2, [cell(2, ...two)], {
        schema: [...Array.from({ length: 500 }, () => struct([4, TEXT, text("g")], [5, INT, int(1)])), column()],
        columns: 1,
      }),
      /its columns are nested too deeply/,
    ],
    [
      "is refused in words of its own where a part is missing",
      table(2, [cell(2, ...two)], { columns: 2 }),
      /its parts do not fit/,
    ],
    [
      "is refused where a number of its directory has a million digits",
      Buffer.concat([
        Buffer.from("PAR1"),
        Buffer.from([0x36]),
        Buffer.alloc(10 ** 6, 0xff),
        Buffer.from(uint32(10 ** 6 + 1)),
        Buffer.from("PAR1"),
      ]),
      /a number is too long/,
    ],
  ])("%s", async (_, bytes, message) => {
    writeFileSync(damaged, bytes);
    if (message === null)
      expect((await read()).map(({ image }) => image)).toEqual(
        ["a", "b"].map((letter) => Uint8Array.from(Buffer.from(letter))),
      );
    else await expect(read()).rejects.toThrow(message);
  });

  it("is none where a row group has no rows, whose columns need not be anywhere", async () => {
    writeFileSync(damaged, table(0, [], { start: 0 }));
    expect(await read()).toEqual([]);
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

it("keeps the digits of numbers in cells of JSON", async () => {
  const path = join(folder, "json.parquet");
  const json = '{"id": 12345678901234567890, "share": 1.0, "tags": [1, "a"]}';
  const cells = [page([...uint32(json.length), ...Buffer.from(json)], describes(1, 0))];
  writeFileSync(path, table(1, cells, { schema: [column({ more: [[6, INT, int(19)]] })] }));
  const read = await openParquet(path);
  const [record] = await read.read(0, 1);
  expect(writePythonJson(parquetRow(record!, read))).toBe(`{"image": ${json}}`);
});

it("is read in every encoding and compression, in pages of both versions", async () => {
  const names = readdirSync(fixture("encodings"));
  expect(names.length).toBe(12);
  const cells = Array.from({ length: 100 }, (_, i) => i);
  const holes = (value: (i: number) => unknown) => cells.map((i) => (i % 3 === 0 ? null : value(i)));
  for (const name of names) {
    const table = await openParquet(fixture(`encodings/${name}`));
    const rows = [...(await table.read(0, 30)), ...(await table.read(30, 100))];
    const column = (of: string) => rows.map((row) => row[of] ?? null);
    expect(column("image"), name).toEqual(cells.map((i) => `pictures/${String(i).padStart(4, "0")}.png`));
    expect(column("caption"), name).toEqual(holes((i) => `number ${i}`));
    expect(column("int"), name).toEqual(holes((i) => i * i));
    expect(column("long"), name).toEqual(holes((i) => BigInt(i) ** 5n));
    expect(column("float"), name).toEqual(holes((i) => i / 4));
    expect(column("flag"), name).toEqual(holes((i) => i % 2 === 0));
    expect(column("none"), name).toEqual(holes(() => null));
    expect(column("list"), name).toEqual(holes((i) => Array.from({ length: i % 3 }, () => i)));
  }
});

it("decodes a row group once, however many parts it is read in, and keeps none that was read to its end", async () => {
  const table = await openParquet(fixture(`encodings/${readdirSync(fixture("encodings"))[0]}`));
  const first = await table.read(0, 30);
  const [row] = await table.read(29, 60);
  expect(row).toBe(first[29]);
  await table.read(60, 100);
  const [again] = await table.read(29, 30);
  expect(again).toEqual(row);
  expect(again).not.toBe(row);
});

it("leaves out dates that are none, and ends within what is nested without end", () => {
  const kind = { isInteger: false, item: () => kind, field: () => kind };
  const table = { kindOf: () => kind } as unknown as Awaited<ReturnType<typeof openParquet>>;
  let deep: unknown = 1;
  for (let i = 0; i < 100_000; i++) deep = [deep];
  const row = parquetRow({ when: new Date(Number.NaN), deep, day: new Date(0) }, table);
  expect([...row.keys()]).toEqual(["deep", "day"]);
  expect(row.get("day")).toBe("1970-01-01T00:00:00.000Z");
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
