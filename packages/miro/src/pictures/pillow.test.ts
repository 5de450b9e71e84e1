import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { centreSquare, cropCentre, cropOffset, resizeThenCrop } from "./crop.js";
import { decodeImage, ImageError } from "./decode.js";
import { type PassOrder, type ResizeFilter, resize, resizePart } from "./resize.js";
import type { RgbImage } from "./rgb.js";

type Kind = "gradient" | "checker" | "noise";

/** Recorded by tests/reference/record_images.py with Pillow. */
interface Recorded {
  resized: [Kind, number, number, ResizeFilter, number, number, string, number[]][];
  decoded: Record<
    string,
    { bytes: string; error?: string; width: number; height: number; sha256: string; sample: number[] }
  >;
}

const fixture = new URL("../../../../tests/reference/fixtures/images.json.gz", import.meta.url);
const recorded = JSON.parse(gunzipSync(readFileSync(fixture)).toString()) as Recorded;

/** The same integers as the recorder's function of this name. */
function picture(kind: Kind, width: number, height: number): RgbImage {
  const data = new Uint8Array(width * height * 3);
  const noise = (n: number): number => {
    let h = Math.imul(n, 2654435761) >>> 0;
    h = Math.imul(h ^ (h >>> 15), 2246822519) >>> 0;
    return (h ^ (h >>> 13)) & 255;
  };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const i = (y * width + x) * 3;
      const on = ((Math.floor(x / 3) + Math.floor(y / 3)) % 2) * 255;
      const values = {
        gradient: [
          Math.floor((x * 255) / Math.max(1, width - 1)),
          Math.floor((y * 255) / Math.max(1, height - 1)),
          Math.floor(((x + y) * 255) / (width + height - 2)),
        ],
        checker: [on, 255 - on, on],
        noise: [noise(i + 1), noise(i + 2), noise(i + 3)],
      }[kind];
      data.set(values, i);
    }
  }
  return { width, height, data };
}

const sha256 = (image: RgbImage): string => createHash("sha256").update(image.data).digest("hex");
const sampled = ({ data }: RgbImage): number[] => {
  const step = Math.max(1, Math.floor(data.length / 64));
  return Array.from({ length: 64 }, (_, i) => data[i * step]!);
};

describe("resize gives Pillow's pixels", () => {
  const pictures = new Map<string, RgbImage>();
  it.each(recorded.resized)("%s %d x %d, %s to %d x %d", (kind, width, height, filter, w, h, hash, some) => {
    const name = `${kind} ${width} ${height}`;
    if (!pictures.has(name)) pictures.set(name, picture(kind, width, height));
    const result = resize(pictures.get(name)!, { width: w, height: h }, filter);
    expect(sampled(result)).toEqual(some);
    expect(sha256(result)).toBe(hash);
  });
});

describe("decodeImage gives Pillow's pixels and refuses what it refuses", () => {
  it.each(Object.entries(recorded.decoded))("%s", async (_, expected) => {
    const bytes = Buffer.from(expected.bytes, "base64");
    if (expected.error) {
      await expect(decodeImage(bytes)).rejects.toBeInstanceOf(ImageError);
      return;
    }
    const result = await decodeImage(bytes);
    expect([result.width, result.height]).toEqual([expected.width, expected.height]);
    expect(sampled(result)).toEqual(expected.sample);
    expect(sha256(result)).toBe(expected.sha256);
  });
});

const bytesOf = (name: string) => Buffer.from(recorded.decoded[name]!.bytes, "base64");

it("turns a picture as EXIF says only when asked to", async () => {
  const bytes = bytesOf("exif-orientation-6.jpg");
  const asStored = await decodeImage(bytes);
  const turned = await decodeImage(bytes, { orient: true });
  expect([turned.width, turned.height]).toEqual([asStored.height, asStored.width]);
  const reference = await sharp(bytes).autoOrient().removeAlpha().raw().toBuffer();
  expect(Buffer.from(turned.data)).toEqual(reference);
});

it("refuses a picture above the limit of pixels by its header alone", async () => {
  const { width, height } = recorded.decoded["rgb.png"]!;
  await expect(decodeImage(bytesOf("rgb.png"), { maxPixels: width * height - 1 })).rejects.toMatchObject({
    reason: "image-too-large",
  });
  await expect(decodeImage(bytesOf("rgb.png"), { maxPixels: width * height })).resolves.toMatchObject({ width });
  // 30,000 x 30,000 pixels in a header of 33 bytes; nothing behind it.
  const bomb = Buffer.from(bytesOf("rgb.png"));
  bomb.writeUInt32BE(30_000, 16);
  bomb.writeUInt32BE(30_000, 20);
  await expect(decodeImage(bomb)).rejects.toBeInstanceOf(ImageError);
});

it("never throws anything but ImageError, whatever the bytes", async () => {
  const files = ["420.jpg", "rgb.png", "lossy.webp", "animated.gif"].map(bytesOf);
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...files), fc.nat(), fc.nat(255), fc.nat(), async (file, at, value, cut) => {
      const bytes = Buffer.from(file.subarray(0, 1 + (cut % (2 * file.length))));
      bytes[at % bytes.length] = value;
      const result = await decodeImage(bytes, { maxPixels: 10 ** 6 }).catch((error: unknown) => error);
      if (result instanceof Error) expect(result).toBeInstanceOf(ImageError);
      else expect((result as RgbImage).data).toHaveLength((result as RgbImage).width * (result as RgbImage).height * 3);
    }),
    { numRuns: 60 },
  );
});

describe("crops", () => {
  it("begin at half the difference, rounded to the even neighbour", () => {
    expect([0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((d) => cropOffset(100 + d, 100))).toEqual([0, 0, 1, 2, 2, 2, 3, 4, 4, 4]);
    expect([0, 1, 2, 3].map((d) => cropOffset(100 + d, 100, "down"))).toEqual([0, 0, 1, 1]);
  });

  it("take the pixels of the middle", () => {
    const image = picture("noise", 11, 6);
    const { data } = cropCentre(image, { width: 6, height: 3 });
    // (11 - 6) / 2 rounds to 2, (6 - 3) / 2 to 2.
    for (let y = 0; y < 3; y++)
      for (let i = 0; i < 18; i++) expect(data[y * 18 + i]).toBe(image.data[((y + 2) * 11 + 2) * 3 + i]);
    expect(() => cropCentre(image, { width: 12, height: 1 })).toThrow(/at most 11 x 6/);
  });

  it("refuse sides that are no whole numbers, and what has no name", () => {
    const image = picture("noise", 11, 6);
    for (const side of [0, -1, 2.5, Number.NaN, 2 ** 53]) {
      const size = { width: 4, height: side };
      expect(() => resize(image, size, "bilinear")).toThrow(/size\.height: expected a whole number from 1/);
      expect(() => cropCentre(image, size)).toThrow(/size\.height: expected a whole number from 1/);
      expect(() => centreSquare(image, side)).toThrow(/side: expected a whole number from 1/);
      expect(() => resizeThenCrop(image, side, "bicubic")).toThrow(/side: expected a whole number from 1/);
      expect(() => cropOffset(9, side)).toThrow(/size: expected a whole number from 1/);
    }
    expect(() => resize(image, { width: 1e6, height: 1e6 }, "bilinear")).toThrow(/size: expected at most \d+ pixels/);
    expect(() => resize(image, { width: 4, height: 4 }, "lanczos" as "bicubic")).toThrow(/one of bilinear, bicubic/);
    expect(() => cropCentre(image, { width: 4, height: 4 }, "up" as "down")).toThrow(/one of even, down/);
  });

  it("give squares of the asked side for any size, those of the middle without what is beside it", () => {
    const side = fc.integer({ min: 1, max: 40 });
    fc.assert(
      fc.property(side, side, fc.integer({ min: 1, max: 30 }), (width, height, n) => {
        const image = picture("noise", width, height);
        for (const result of [centreSquare(image, n), resizeThenCrop(image, n, "bicubic")]) {
          expect([result.width, result.height, result.data.length]).toEqual([n, n, n * n * 3]);
        }
        const least = Math.min(width, height);
        const cropped = cropCentre(image, { width: least, height: least });
        expect(centreSquare(image, n)).toEqual(resize(cropped, { width: n, height: n }, "bilinear"));
      }),
    );
  });

  it("keep a picture of one colour", () => {
    const data = Uint8Array.from({ length: 37 * 21 * 3 }, (_, i) => [7, 130, 255][i % 3]!);
    for (const filter of ["bilinear", "bicubic"] as const) {
      const result = resizeThenCrop({ width: 37, height: 21, data }, 16, filter);
      expect(result.data.every((value, i) => value === [7, 130, 255][i % 3])).toBe(true);
    }
  });
});

describe("a part of a resized picture", () => {
  const side = fc.integer({ min: 1, max: 40 });
  const filters = fc.constantFrom<ResizeFilter>("bilinear", "bicubic");
  const orders = fc.constantFrom<PassOrder>("rows-first", "pillow-13");

  it("is what is cut from the whole, also of a picture in the middle of a larger one", () => {
    const rest = fc.integer({ min: 0, max: 25 });
    const share = fc.double({ min: 0, max: 1, noNaN: true });
    const place = fc.tuple(side, side, side, side, rest, rest, rest, rest);
    fc.assert(
      fc.property(place, fc.tuple(share, share, share, share), filters, orders, (sizes, shares, filter, order) => {
        const [width, height, toWidth, toHeight, left, right, top, bottom] = sizes;
        const image = picture("noise", width, height);
        const canvas = { width: left + width + right, height: top + height + bottom, left, top, colour };
        const whole = resize(padded(image, canvas), { width: toWidth, height: toHeight }, filter, order);
        const [x, y] = [Math.floor(shares[0] * toWidth * 0.99), Math.floor(shares[1] * toHeight * 0.99)];
        const [w, h] = [1 + Math.floor(shares[2] * (toWidth - x - 1)), 1 + Math.floor(shares[3] * (toHeight - y - 1))];
        const window = { left: x, top: y, width: w, height: h };
        const size = { width: toWidth, height: toHeight };
        expect(resizePart(image, { size, window, canvas, filter, order })).toEqual(cut(whole, window));
      }),
      {
        numRuns: 300,
        // Of these rows one sees nothing but the canvas below the picture.
        examples: [[[1, 2, 1, 5, 0, 1, 0, 3], [0, 0.21, 0, 0.34], "bilinear", "rows-first"]],
      },
    );
  });

  const colour = [122, 116, 104] as const;
  function padded(image: RgbImage, { width, height, left, top }: Record<"width" | "height" | "left" | "top", number>) {
    const data = new Uint8Array(width * height * 3).map((_, i) => colour[i % 3]!);
    for (let y = 0; y < image.height; y++) {
      const row = image.data.subarray(y * image.width * 3, (y + 1) * image.width * 3);
      data.set(row, ((y + top) * width + left) * 3);
    }
    return { width, height, data };
  }
  function cut(image: RgbImage, { width, height, left, top }: Record<"width" | "height" | "left" | "top", number>) {
    const data = new Uint8Array(width * height * 3);
    for (let y = 0; y < height; y++) {
      const from = ((y + top) * image.width + left) * 3;
      data.set(image.data.subarray(from, from + width * 3), y * width * 3);
    }
    return { width, height, data };
  }
});
