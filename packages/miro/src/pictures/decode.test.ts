import { readFileSync } from "node:fs";
import { deflateSync, gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { MiroError } from "../errors.js";
import { decodeImage, ImageError, imageFormat } from "./decode.js";
import { decodingError } from "./image-format.js";
import { encodePng, pngChunk } from "./png.js";
import { completePng } from "./png-rows.js";

/** Recorded by tests/reference/record_pictures.py with Pillow. */
interface Recorded {
  bytes: string;
  error?: string;
  /** Format and mode, such as "PNG RGBA". */
  kind: string;
  width: number;
  height: number;
  rgb: string;
}

const fixture = new URL("../../../../tests/reference/fixtures/pictures.json.gz", import.meta.url);
const { decoded } = JSON.parse(gunzipSync(readFileSync(fixture)).toString()) as { decoded: Record<string, Recorded> };
const bytesOf = (name: string) => Buffer.from(decoded[name]!.bytes, "base64");

/**
 * Levels that a value may be off: libavif here and there convert colours by other arithmetic; alpha that was multiplied
 * into a colour is divided out again, which magnifies that where alpha is small.
 */
function tolerance(name: string): number {
  if (name === "alpha-premultiplied.avif") return 60;
  if (name.endsWith(".avif")) return 3;
  return name.startsWith("associated-") ? 1 : 0;
}

/** The largest and the mean difference. */
function difference(actual: Uint8Array, expected: Uint8Array): { largest: number; mean: number } {
  let [largest, sum] = [0, 0];
  for (const [i, value] of expected.entries()) {
    const off = Math.abs(actual[i]! - value);
    largest = Math.max(largest, off);
    sum += off;
  }
  return { largest, mean: sum / expected.length };
}

describe.each(["png", "gif", "jpg", "webp", "bmp", "tif", "avif"])("%s", (extension) => {
  const files = Object.entries(decoded).filter(([name]) => name.endsWith(`.${extension}`));

  it("has Pillow's pixels", async () => {
    const read = files.filter(([, { error }]) => error === undefined);
    expect(read.length).toBeGreaterThan(15);
    for (const [name, expected] of read) {
      const image = await decodeImage(bytesOf(name)).catch((error: Error) => error);
      if (image instanceof Error) throw new Error(`${name}: ${image.message}`);
      expect([name, image.width, image.height]).toEqual([name, expected.width, expected.height]);
      const { largest, mean } = difference(image.data, Buffer.from(expected.rgb, "base64"));
      if (largest > tolerance(name) || mean > 1.5)
        throw new Error(`${name}: ${largest} levels off, ${mean} on average`);
    }
  });

  it("is refused by an ImageError where Pillow refuses it", async () => {
    for (const [name, { error }] of files) {
      if (error === undefined) continue;
      const result = await decodeImage(bytesOf(name)).catch((failure: unknown) => failure);
      if (!(result instanceof ImageError)) throw new Error(`${name}: ${result}; Pillow: ${error}`);
      expect(result.message).not.toMatch(/undefined|NaN/);
    }
  });

  it("is refused above the limit of pixels, by its header alone", async () => {
    const name = files.find(([, { error, width }]) => error === undefined && width > 1)![0];
    const { width, height } = decoded[name]!;
    const limited = (maxPixels: number) => decodeImage(bytesOf(name), { maxPixels });
    await expect(limited(width * height - 1)).rejects.toMatchObject({ reason: "image-too-large" });
    await expect(limited(width * height)).resolves.toMatchObject({ width, height });
  });
});

it("tells formats by their content", () => {
  const formats = ["png", "gif", "jpg", "webp", "bmp", "tif", "avif"].map((extension) =>
    imageFormat(bytesOf(Object.keys(decoded).find((name) => name.endsWith(`.${extension}`))!)),
  );
  expect(formats).toEqual(["png", "gif", "jpeg", "webp", "bmp", "tiff", "avif"]);
  const box = (text: string) => Buffer.concat([Buffer.of(0, 0, 0, 24), Buffer.from(text, "latin1")]);
  expect(imageFormat(box("ftypmif1\0\0\0\0mif1avif"))).toBe("avif");
  expect(imageFormat(box("ftypheic\0\0\0\0mif1heic"))).toBeNull();
  expect(imageFormat(Buffer.from("BN"))).toBeNull();
});

it("turns an AVIF as its boxes say only when asked to", async () => {
  const stored = await decodeImage(bytesOf("orientation-6.avif"));
  const turned = await decodeImage(bytesOf("orientation-6.avif"), { orient: true });
  expect([turned.width, turned.height]).toEqual([stored.height, stored.width]);
  // A quarter clockwise: the lower left corner comes to the upper left.
  const from = (stored.height - 1) * stored.width * 3;
  expect([...turned.data.subarray(0, 3)]).toEqual([...stored.data.subarray(from, from + 3)]);
});

it("refuses sizes that no file backs before it allocates anything for them", async () => {
  const bitmap = Buffer.from(bytesOf("rgb24.bmp"));
  bitmap.writeUInt32LE(2 ** 31 - 1, 18);
  const gif = Buffer.from(bytesOf("transparent.gif"));
  gif.writeUInt16LE(65535, 6);
  gif.writeUInt16LE(65535, 8);
  const avif = Buffer.from(bytesOf("smooth-420-full.avif"));
  avif.writeUInt32BE(2 ** 20, avif.indexOf("ispe") + 8);
  avif.writeUInt32BE(2 ** 20, avif.indexOf("ispe") + 12);
  for (const bytes of [bitmap, gif, avif]) {
    await expect(decodeImage(bytes)).rejects.toMatchObject({ reason: "image-too-large" });
  }
});

it("makes no rows for the size that a damaged header of a PNG says", () => {
  const png = Buffer.from(encodePng(new Uint8Array(12), 2, 2));
  const limit = 10 ** 6;
  expect(completePng(png, limit)).not.toBeNull();
  png.writeUInt32BE(limit, 16);
  expect(completePng(png, limit)).toBeNull();
  expect(completePng(png.subarray(0, 20), limit)).toBeNull();
});

it("takes no YCbCr of a TIFF for RGB", async () => {
  /** One pixel: red 10, green 20, blue 30 where photometric is 2. */
  const tiff = (photometric: number) => {
    const tags = [
      ...[
        [256, 1],
        [257, 1],
        [258, 8],
        [259, 1],
        [262, photometric],
      ],
      ...[
        [273, 8],
        [277, 3],
        [278, 1],
        [279, 3],
      ],
    ] as const;
    const bytes = Buffer.alloc(12 + 2 + 12 * tags.length + 4);
    bytes.write("II*\0", "latin1");
    bytes.writeUInt32LE(12, 4);
    bytes.set([10, 20, 30], 8);
    bytes.writeUInt16LE(tags.length, 12);
    for (const [i, [tag, value]] of tags.entries()) {
      const at = 14 + 12 * i;
      bytes.writeUInt16LE(tag, at);
      bytes.writeUInt16LE(3, at + 2);
      bytes.writeUInt32LE(1, at + 4);
      bytes.writeUInt16LE(value, at + 8);
    }
    return bytes;
  };
  expect([...(await decodeImage(tiff(2))).data]).toEqual([10, 20, 30]);
  await expect(decodeImage(tiff(6))).rejects.toThrow(/YCbCr that is not compressed as JPEG/);
});

it("reads a picture after one that broke the decoder", async () => {
  const name = "smooth-420-full.avif";
  await expect(decodeImage(bytesOf(name).subarray(0, 300))).rejects.toBeInstanceOf(ImageError);
  await expect(decodeImage(bytesOf(name))).resolves.toMatchObject({ width: decoded[name]!.width });
});

it("lays nothing at a picture's door that is no fault of it", () => {
  const missing = new MiroError("sharp cannot be loaded");
  expect(decodingError(missing)).toBe(missing);
  expect(decodingError(new Error("unexpected end of file\nmore"))).toMatchObject({
    reason: "bad-image",
    message: "cannot be decoded: unexpected end of file",
  });
});

it("says that a header is damaged where the decoder gives no reason", async () => {
  const cut = encodePng(Uint8Array.of(1, 2, 3), 1, 1).subarray(0, 10);
  await expect(decodeImage(cut)).rejects.toThrow(/^cannot be decoded: the header is damaged$/);
});

it("texts of a PNG are not inflated to decode it", async () => {
  const plain = encodePng(Uint8Array.of(1, 2, 3), 1, 1);
  const body = Buffer.concat([Buffer.from("Title\0\0"), deflateSync(Buffer.alloc(10_000_000, "a"))]);
  const bomb = Buffer.concat([
    plain.subarray(0, 33),
    ...Array.from({ length: 100 }, () => pngChunk("zTXt", body)),
    plain.subarray(33),
  ]);
  const before = process.cpuUsage();
  expect(await decodeImage(bomb)).toEqual(await decodeImage(plain));
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / 1e6).toBeLessThan(2);
});
