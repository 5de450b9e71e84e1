import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { InvalidInputError } from "../errors.js";
import { decodeStored, decodeText, linesOf, readLines, readStoredFile, readTextFile } from "./text-file.js";

const folder = mkdtempSync(join(tmpdir(), "miro-text-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const path = join(folder, "a.txt");

const encoders: Record<string, (text: string) => Buffer> = {
  "UTF-8": (text) => Buffer.from(text),
  "UTF-8 with a mark": (text) => Buffer.from(`\ufeff${text}`),
  "UTF-16, little end first": (text) => Buffer.from(`\ufeff${text}`, "utf16le"),
  "UTF-16, big end first": (text) => Buffer.from(`\ufeff${text}`, "utf16le").swap16(),
};
const anyText = fc
  .string({ unit: "binary", maxLength: 40 })
  .map((text) => text.replaceAll("\0", "").replace(/^\ufeff/, ""));

async function lines(bytes: Uint8Array): Promise<string[]> {
  writeFileSync(path, bytes);
  const found: string[] = [];
  for await (const { text, number } of readLines(path)) {
    found.push(text);
    expect(number).toBe(found.length);
  }
  return found;
}

it("gives back to the byte what a program has stored", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 40 }), (text) => {
      expect(decodeStored(Buffer.from(text), "a.csv")).toBe(text);
      writeFileSync(path, `\ufeff${text}`);
      expect(readStoredFile(path)).toBe(text);
    }),
  );
  expect(() => decodeStored(Buffer.from("caf\xe9", "latin1"), "a.csv")).toThrow(/a\.csv: is not UTF-8 text/);
});

describe.each(Object.entries(encoders))("%s", (_, encode) => {
  it("gives every text back, whole and line by line", async () => {
    await fc.assert(
      fc.asyncProperty(anyText, async (text) => {
        const bytes = encode(text);
        expect(decodeText(bytes, "a.txt")).toBe(text);
        expect(await lines(bytes)).toEqual(linesOf(text));
      }),
      { numRuns: 60 },
    );
  });

  it("is read in parts that may end within a character or a line end", async () => {
    const text = `${"é".repeat(699_050)}\u{1f98a}\r\n${"x".repeat(350_000)}\r\nend`;
    expect(await lines(encode(text))).toEqual(text.split("\r\n"));
  });

  it("names the byte at which it stops being text", async () => {
    const start = encode("a\nfox");
    const bytes = Buffer.concat([start, Buffer.from([0xdc, 0xdc, 0xdc, 0xdc])]);
    const message = new RegExp(`a\\.txt: is not UTF-8 text: .* at byte ${start.length}; convert the file`);
    expect(() => decodeText(bytes, "a.txt")).toThrow(message);
    await expect(lines(bytes)).rejects.toThrow(message);
  });
});

it.each<[string, number[], string]>([
  ["Latin-1", [0x63, 0x61, 0x66, 0xe9, 0x20], "0xe9 at byte 3"],
  ["an overlong form", [0x61, 0xc0, 0xaf], "0xc0 at byte 1"],
  ["a surrogate", [0xc3, 0xa9, 0xed, 0xa0, 0x80], "0xed at byte 2"],
  ["a character that is cut", [0x61, 0xf0, 0x9f, 0xa6], "0xf0 at byte 1"],
  ["UTF-16 without a mark", [0x61, 0x00, 0x62, 0x00], "a NUL at byte 1"],
  ["UTF-32", [0xff, 0xfe, 0x00, 0x00, 0x61, 0x00, 0x00, 0x00], "the byte order mark of UTF-32 at byte 0"],
  ["half of a UTF-16 unit", [0xff, 0xfe, 0x61, 0x00, 0x62], "half of a character of UTF-16 at byte 4"],
  ["half of a surrogate pair", [0xff, 0xfe, 0x3d, 0xd8, 0x61, 0x00], "half of a character of UTF-16 at byte 2"],
  ["half of a byte order mark", [0xff, 0x61, 0x62, 0x63], "0xff at byte 0"],
  ["the other half of one", [0x61, 0xfe, 0x62, 0x63], "0xfe at byte 1"],
  ["a picture", [0x89, 0x50, 0x4e, 0x47], "0x89 at byte 0"],
])("%s is refused with its byte", async (_, bytes, where) => {
  await expect(lines(Uint8Array.from(bytes))).rejects.toThrow(`${path}: is not UTF-8 text: ${where}; convert`);
  expect(() => readTextFile(path)).toThrow(`${path}: is not UTF-8 text: ${where}; convert`);
  expect(() => readTextFile(path)).toThrow(InvalidInputError);
});

it("lines end in LF, CR LF or CR, and in nothing else", () => {
  expect(linesOf("a\nb\r\nc\rd\u2028d\u2029d\u0085d\vd\fd\n")).toEqual(["a", "b", "c", "d\u2028d\u2029d\u0085d\vd\fd"]);
  expect(linesOf("a\r\n\r\n\nb")).toEqual(["a", "", "", "b"]);
  expect(linesOf("")).toEqual([]);
});

it("a small file of more lines than fit into memory is refused", () => {
  writeFileSync(path, "\r\n".repeat(4_000_001));
  expect(() => readTextFile(path)).toThrow(/a\.txt: has more than 4,000,000 lines; split it/);
  expect(() => readStoredFile(path)).toThrow(/more than 4,000,000 lines/);
  writeFileSync(path, "\r\n".repeat(4_000_000));
  expect(readTextFile(path).length).toBe(8_000_000);
});

it("a file without line ends does not fill the memory", async () => {
  await expect(lines(Buffer.alloc(18 * 2 ** 20, "x"))).rejects.toThrow(/line 1: has more than 16777216 bytes/);
});
