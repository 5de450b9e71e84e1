/** Pictures as files, read back by this package and by libvips. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import sharp from "sharp";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { InvalidInputError, MiroError } from "../errors.js";
import { makeExif, makeXmp, readUserComment, readXmp } from "./exif.js";
import { encodeImage, formatOf, IMAGE_FORMATS, readImageFile } from "./image-files.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-images-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const image = {
  width: 24,
  height: 16,
  data: Uint8Array.from({ length: 24 * 16 * 3 }, (_, i) => Math.floor(i / 72) * 6 + (i % 72) + (i % 3) * 20),
};
const text = [
  { keyword: "Software", text: "miro-t2i 0.1.0" },
  { keyword: "parameters", text: "Füchse 🦊 <am> See\nSteps: 20, Sampler: Euler, CFG scale: 4" },
  { keyword: "miro", text: JSON.stringify({ prompt: 'Füchse 🦊 "<am>" & \u2028 \ufffe See' }) },
];

describe.each(IMAGE_FORMATS)("%s", (format) => {
  const path = () => join(folder, `a.${format}`);

  it("carries the texts and the pixels, and is the same file every time", async () => {
    const bytes = await encodeImage(image, text, { format });
    writeFileSync(path(), bytes);
    const read = await readImageFile(path());
    expect(read).toMatchObject({ format, width: 24, height: 16 });
    for (const entry of text.slice(1)) {
      const expected = { ...entry, text: entry.text.replace("\ufffe", format === "png" ? "\ufffe" : "\\ufffe") };
      expect(read.text).toContainEqual(expected);
    }
    const { data } = await sharp(bytes).raw().toBuffer({ resolveWithObject: true });
    const error = image.data.reduce((sum, value, i) => sum + Math.abs(value - data[i]!), 0) / data.length;
    expect(error).toBeLessThanOrEqual(format === "png" ? 0 : 12);
    expect(await encodeImage(image, text, { format })).toEqual(bytes);
  });

  it("is noticed when it is cut, anywhere", async () => {
    const bytes = await encodeImage(image, text, { format });
    for (let length = 1; length < bytes.length - 1; length += 41) {
      writeFileSync(path(), bytes.subarray(0, length));
      await expect(readImageFile(path())).rejects.toThrow(MiroError);
    }
  });
});

it("another format, an unknown option and what is no picture are refused", async () => {
  const wrong = encodeImage as (...args: unknown[]) => Promise<Uint8Array>;
  await expect(wrong(image, text, { format: "gif" })).rejects.toThrow(
    /^format: expected one of png, webp, jpeg, received "gif"$/,
  );
  await expect(wrong(image, text, 5)).rejects.toThrow(/^options: expected an object of options, received 5$/);
  await expect(wrong(image, text, { form: "png" })).rejects.toThrow(/^form: expected one of the options/);
  for (const none of [undefined, "a.png", { ...image, width: image.width + 1 }])
    await expect(wrong(none, text)).rejects.toThrow(/^image: expected { width, height, data }/);
});

it("quality makes smaller files, and PNG has none", async () => {
  const sizes = await Promise.all([20, 95].map((quality) => encodeImage(image, text, { format: "jpeg", quality })));
  expect(sizes[0]!.length).toBeLessThan(sizes[1]!.length);
  await expect(encodeImage(image, text, { quality: 90 })).rejects.toThrow(/quality: expected nothing with png/);
});

describe.each(IMAGE_FORMATS)("settings of any length in %s", (format) => {
  it.each([
    ["parameters", 40_000, 10],
    ["the JSON", 10, 70_000],
    ["both", 300_000, 300_000],
  ])("come back: %s beyond what a segment of a JPEG holds", async (_, parameters, json) => {
    const long = [
      { keyword: "Software", text: "miro-t2i 0.1.0" },
      { keyword: "parameters", text: `${"ü<\n".repeat(parameters / 3)}end` },
      { keyword: "miro", text: JSON.stringify({ prompt: `${"ü<&\u0001".repeat(json / 4)}end` }) },
    ];
    const path = join(folder, `long.${format}`);
    writeFileSync(path, await encodeImage(image, long, { format }));
    expect((await readImageFile(path)).text.filter(({ keyword }) => keyword !== "Software")).toEqual(long.slice(1));
    expect((await sharp(path).metadata()).width).toBe(image.width);
  });
});

it("extended XMP that is not whole is none, and the picture stays readable", async () => {
  const long = [{ keyword: "miro", text: JSON.stringify({ prompt: "x".repeat(200_000) }) }];
  const bytes = Buffer.from(await encodeImage(image, long, { format: "jpeg" }));
  const at = bytes.lastIndexOf("http://ns.adobe.com/xmp/extension/");
  bytes[at + 200]! ^= 1;
  writeFileSync(join(folder, "a.jpg"), bytes);
  expect((await readImageFile(join(folder, "a.jpg"))).text).toEqual([]);
});

it("knows formats by name", () => {
  expect(["a.png", "a.JPG", "b.jpeg", "c.webp", "d.gif", "e"].map(formatOf)).toEqual([
    "png",
    "jpeg",
    "jpeg",
    "webp",
    null,
    null,
  ]);
});

it("other files are refused", async () => {
  for (const content of ["", "GIF89a", "RIFF1234WAVE"]) {
    writeFileSync(join(folder, "x"), content);
    await expect(readImageFile(join(folder, "x"))).rejects.toThrow(InvalidInputError);
  }
});

describe("EXIF and XMP", () => {
  it("keep any text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 200 }), (raw) => {
        const value = raw.replaceAll("\0", "");
        expect(readUserComment(makeExif("x", value))).toBe(value);
        const json = JSON.stringify({ value });
        expect(JSON.parse(readXmp(makeXmp(json, "x"))!)).toEqual({ value });
      }),
    );
  });

  it("are read in the other byte order, in ASCII, and as an attribute", () => {
    const block = Buffer.alloc(70);
    block.write("II*\0", "latin1");
    block.writeUInt32LE(8, 4); // directory 0, with one entry: the Exif directory at 26
    block.writeUInt16LE(1, 8);
    block.writeUInt16LE(0x8769, 10);
    block.writeUInt16LE(4, 12);
    block.writeUInt32LE(1, 14);
    block.writeUInt32LE(26, 18);
    block.writeUInt16LE(1, 26);
    block.writeUInt16LE(0x9286, 28);
    block.writeUInt16LE(7, 30);
    block.writeUInt32LE(12, 32);
    block.writeUInt32LE(44, 36);
    block.write("ASCII\0\0\0a fo", 44, "latin1");
    expect(readUserComment(block)).toBe("a fo");
    const short = Buffer.from(block);
    short.writeUInt32LE(3, 32); // so short that it stands where its place would
    short.write("fox", 36, "latin1");
    expect(readUserComment(short)).toBe("fox");
    block.write("UNICODE\0f\0x\0", 44, "latin1");
    expect(readUserComment(Buffer.concat([Buffer.from("Exif\0\0"), block]))).toBe("fx");
    expect(readXmp(`<rdf:Description miro:settings='{&quot;a&quot;:&#x31;}'/>`)).toBe('{"a":1}');
    expect(readXmp("<rdf:Description/>")).toBeNull();
  });

  it("never throw on hostile bytes", () => {
    const good = makeExif("miro", "a fox");
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(255), fc.nat(good.length), (at, value, length) => {
        const copy = Buffer.from(good);
        copy[at] = value;
        readUserComment(copy.subarray(0, length));
      }),
      { numRuns: 500 },
    );
  });
});
