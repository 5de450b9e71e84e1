import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { InvalidInputError } from "../../../errors.js";
import { writePythonJson } from "../../../files/python-json.js";
import { readCaptionTable } from "./caption-table.js";

const folder = mkdtempSync(join(tmpdir(), "miro-captions-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Rows as `image | caption | metadata`. */
async function read(name: string, content: string | Uint8Array): Promise<string[]> {
  writeFileSync(join(folder, name), content);
  const rows = await readCaptionTable(join(folder, name));
  return rows.map(({ image, caption, metadata }) => [image, caption, writePythonJson(metadata)].join(" | "));
}

it("a TSV has no quoting", async () => {
  const text = 'image\tcaption\na.jpg\tA 12" record\nb.jpg\t"Hello" on a sign\nc.jpg\t"open\nd.jpg\tplain\n';
  expect(await read("a.tsv", text)).toEqual([
    'a.jpg | A 12" record | {}',
    'b.jpg | "Hello" on a sign | {}',
    'c.jpg | "open | {}',
    "d.jpg | plain | {}",
  ]);
});

it.each([
  ["commas.csv", 'image,caption,width\na.jpg,"a, ""b""\nc",512\n'],
  ["semicolons.csv", 'image;caption;width\r\na.jpg;"a, ""b""\nc";512\r\n'],
  ["tabs.csv", 'image\tcaption\twidth\ra.jpg\t"a, ""b""\nc"\t512\r'],
  ["announced.csv", 'sep=;\r\nimage;caption;width\r\na.jpg;"a, ""b""\nc";512\r\n;;\r\n'],
  ["numbered.csv", ',image,caption,width\n0,a.jpg,"a, ""b""\nc",512\n'],
  ["mark.csv", '\ufeffimage,caption,width\na.jpg,"a, ""b""\nc",512\n'],
])("one table, written in several ways: %s", async (name, text) => {
  expect(await read(name, text)).toEqual(['a.jpg | a, "b"\nc | {"width": 512}']);
  expect(await read(name, Buffer.from(`\ufeff${text.replace("\ufeff", "")}`, "utf16le"))).toHaveLength(1);
});

it("columns of numbers stay numbers with all their digits, others stay texts", async () => {
  const text =
    "image,caption,id,score,tag,mixed\n" +
    "a.jpg,1984,123456789012345678901,0.50,007,1\nb.jpg,2.50,-1,nan,12,one\nc.jpg,x,,1e-7,1,2\n";
  expect(await read("numbers.csv", text)).toEqual([
    'a.jpg | 1984 | {"id": 123456789012345678901, "score": 0.5, "tag": "007", "mixed": "1"}',
    'b.jpg | 2.50 | {"id": -1, "tag": "12", "mixed": "one"}',
    'c.jpg | x | {"score": 1e-07, "tag": "1", "mixed": "2"}',
  ]);
  const odd = ["inf", "-Inf", "Infinity", "-nan", "NaN", "NA", "#N/A", "None", "null"];
  const rows = odd.map((cell, i) => `${i}.jpg,a fox,${cell}\n`).join("");
  expect(await read("odd.csv", `image,caption,score\na.jpg,a fox,0.5\n${rows}`)).toEqual([
    'a.jpg | a fox | {"score": 0.5}',
    ...odd.map((_, i) => `${i}.jpg | a fox | {}`),
  ]);
  expect(await read("numbers.jsonl", '{"image": "a.jpg", "caption": 1984, "n": 1.0, "id": "7"}\n')).toEqual([
    'a.jpg | 1984 | {"n": 1.0, "id": "7"}',
  ]);
});

it("names that objects have anyway are columns like any other", async () => {
  expect(await read("names.csv", "image,caption,__proto__,constructor\na.jpg,a fox,x,y\n")).toEqual([
    'a.jpg | a fox | {"__proto__": "x", "constructor": "y"}',
  ]);
});

it.each<[string, string, string | Uint8Array, RegExp]>([
  [
    "Latin-1",
    "a.csv",
    Buffer.from("image,caption\na.jpg,un caf\xe9\n", "latin1"),
    /a\.csv: is not UTF-8 text: 0xe9 at byte 26/,
  ],
  ["a picture", "a.tsv", Uint8Array.of(0xff, 0xd8, 0xff, 0xe0), /a\.tsv: is not UTF-8 text: 0xff at byte 0/],
  ["binary data", "a.jsonl", "PK\x03\x04\0\0", /a\.jsonl: is not UTF-8 text: a NUL at byte 4/],
  ["another kind", "package.json", "{}", /package\.json: expected a folder of tars or pictures, or a table/],
  ["a row that is short", "a.tsv", "image\tcaption\na.jpg\n", /a\.tsv:2: expected 2 cells as in the header, found 1/],
  ["an open quote", "a.csv", 'image,caption\na.jpg,"open\n', /a\.csv:\d: not valid CSV/],
  ["a column twice", "a.csv", "image,caption,image\na.jpg,x,y\n", /a\.csv:1: two columns "image"/],
  [
    "a name twice",
    "a.jsonl",
    '{"image":"a.jpg","caption":"a","caption":"b"}\n',
    /a\.jsonl:1: the name "caption" stands twice/,
  ],
  ["no JSON", "a.jsonl", '{"image": "a.jpg", "caption": "x"}\n{"image": }\n', /a\.jsonl:2: /],
  ["no rows", "a.csv", "image,caption\n,\n", /a\.csv: holds no rows/],
])("%s is refused with its place", async (_, name, content, message) => {
  await expect(read(name, content)).rejects.toThrow(message);
  await expect(read(name, content)).rejects.toThrow(InvalidInputError);
});
