import { deflateSync } from "node:zlib";
import fc from "fast-check";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { MiroError } from "../errors.js";
import { encodePng, encodePngAside, readPng, SLICE_BYTES, withoutCompressedTexts } from "./png.js";
import { turnsOfLoop } from "./testing/turns-of-loop.js";

const pixels = (width: number, height: number, f: (x: number, y: number, c: number) => number) =>
  Uint8Array.from({ length: width * height * 3 }, (_, i) =>
    f(Math.floor(i / 3) % width, Math.floor(i / 3 / width), i % 3),
  );

const FOREIGN = Buffer.from("prompt\0\x01\0en\0Eingabe\0", "latin1");

describe("encodePng", () => {
  it("is read back exactly by another decoder, for any pixels and sizes", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 19 }),
        fc.integer({ min: 1, max: 19 }),
        fc.infiniteStream(fc.nat(255)),
        async (w, h, bytes) => {
          const data = Uint8Array.from({ length: w * h * 3 }, () => bytes.next().value);
          const { data: back, info } = await sharp(encodePng(data, w, h))
            .raw()
            .toBuffer({ resolveWithObject: true });
          expect([info.width, info.height, info.channels]).toEqual([w, h, 3]);
          expect(new Uint8Array(back)).toEqual(data);
        },
      ),
      { numRuns: 25 },
    );
  });

  it("compresses smooth pictures well below their raw size", () => {
    const smooth = pixels(128, 128, (x, y, c) => x + y / 2 + 20 * c);
    expect(encodePng(smooth, 128, 128).length).toBeLessThan(smooth.length / 20);
  });

  it("gives the same bytes beside the event loop, which turns after each slice of rows", async () => {
    const side = 256;
    const noisy = pixels(side, side, (x, y, c) => (x * y * 31 + c * x * 7) & 255);
    const text = [{ keyword: "miro", text: "{}" }];
    const { turns, value: aside } = await turnsOfLoop(() => encodePngAside(noisy, side, side, text));
    expect(turns).toBeGreaterThanOrEqual(Math.floor(noisy.length / SLICE_BYTES));
    expect(aside).toEqual(encodePng(noisy, side, side, text));
  });

  it("refuses a buffer of the wrong size", async () => {
    expect(() => encodePng(new Uint8Array(10), 2, 2)).toThrow(MiroError);
    await expect(encodePngAside(new Uint8Array(10), 2, 2)).rejects.toThrow(MiroError);
  });
});

describe("readPng", () => {
  const texts = [
    { keyword: "parameters", text: "a fox\nSteps: 20, Seed: 1" },
    { keyword: "miro", text: JSON.stringify({ prompt: 'Füchse 🦊 "quoted" \u2028' }) },
  ];
  const sample = encodePng(
    pixels(5, 4, (x, y) => x * y),
    5,
    4,
    texts,
  );

  it("finds size and texts", () => {
    expect(readPng(sample, "a.png")).toEqual({ width: 5, height: 4, bitDepth: 8, colourType: 2, text: texts });
  });

  it("keeps any printable text, in tEXt where Latin-1 can, else in iTXt", async () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 200 }), (raw) => {
        const text = raw.replaceAll("\0", "");
        expect(readPng(encodePng(new Uint8Array(3), 1, 1, [{ keyword: "k", text }]), "a.png").text).toEqual([
          { keyword: "k", text },
        ]);
      }),
    );
    // sharp (libpng) must still take the file for a picture
    expect((await sharp(sample).metadata()).width).toBe(5);
  });

  it("refuses keywords that the format forbids", () => {
    for (const keyword of ["", " a", "a ", "é", "x".repeat(80), "a\0b"]) {
      expect(() => encodePng(new Uint8Array(3), 1, 1, [{ keyword, text: "" }])).toThrow(/keyword/);
    }
  });

  it("notices any truncation, naming file and byte", () => {
    for (let length = 0; length < sample.length; length++) {
      expect(() => readPng(sample.subarray(0, length), "cut.png")).toThrow(
        /^cut\.png: not a valid PNG: .* at byte \d+$/,
      );
    }
  });

  it("notices any changed byte", () => {
    for (let i = 0; i < sample.length; i++) {
      const copy = sample.slice();
      copy[i]! ^= 0x11;
      expect(() => readPng(copy, "bad.png")).toThrow(/bad\.png: not a valid PNG/);
    }
  });

  it("never throws anything but its own error on arbitrary bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, signed) => {
        const input = signed ? Buffer.concat([sample.subarray(0, 8), bytes]) : bytes;
        expect(() => readPng(input, "x.png")).toThrow(MiroError);
      }),
    );
  });

  it("reads compressed texts of other programs", () => {
    const good = withChunk("iTXt", Buffer.concat([FOREIGN, deflateSync(Buffer.from("ein Fuchs 🦊"))]));
    expect(readPng(good, "a.png").text).toEqual([{ keyword: "prompt", text: "ein Fuchs 🦊" }]);
  });

  it.each<[string, string, Buffer | string]>([
    ["a bomb", "iTXt", Buffer.concat([FOREIGN, deflateSync(Buffer.alloc(64 << 20))])],
    ["no keyword", "tEXt", "no end"],
    ["a keyword that is too long", "tEXt", `${"k".repeat(80)}\0text`],
    ["text that is not UTF-8", "iTXt", Buffer.from("Title\0\0\0\0\0caf\xe9", "latin1")],
    ["text that does not inflate", "zTXt", "Title\0\0no zlib"],
    ["nothing", "tEXt", ""],
  ])("passes over another program's text that is off: %s", (_, type, body) => {
    expect(readPng(withChunk(type, Buffer.from(body as string)), "a.png")).toMatchObject({ width: 1, text: [] });
  });

  it("reads compressed texts up to a bound of all of them together", () => {
    const text = deflateSync(Buffer.alloc(3 << 20, "a"));
    const body = Buffer.concat([Buffer.from("prompt\0\0"), text]);
    const chunks = Array.from({ length: 500 }, () => withChunk("zTXt", body).subarray(33, 33 + 12 + body.length));
    const plain = encodePng(new Uint8Array(3), 1, 1);
    const bomb = Buffer.concat([plain.subarray(0, 33), ...chunks, plain.subarray(33)]);
    expect(readPng(bomb, "a.png").text.map(({ text }) => text.length)).toEqual(Array(5).fill(3 << 20));
    expect(withoutCompressedTexts(bomb)).toEqual(plain);
  });

  it("gives decoders nothing but texts less, of a whole file or a damaged one", () => {
    const plain = encodePng(new Uint8Array(3), 1, 1, [{ keyword: "miro", text: "{}" }]);
    expect(withoutCompressedTexts(plain)).toBe(plain);
    const more = withChunk("iTXt", Buffer.from("miro\0\0\0\0\0{}"));
    expect(withoutCompressedTexts(more)).toEqual(encodePng(new Uint8Array(3), 1, 1));
    fc.assert(
      fc.property(fc.nat(more.length), fc.nat(more.length - 1), fc.nat(255), (length, place, value) => {
        const copy = Buffer.from(more.subarray(0, length));
        if (place < length) copy[place] = value;
        expect(withoutCompressedTexts(copy).length).toBeLessThanOrEqual(length);
      }),
    );
  });

  it("passes over another program's chunk with a wrong checksum, and notices one of its own", () => {
    for (const type of ["eXIf", "iCCP", "pHYs", "caBX"])
      expect(readPng(withChunk(type, Buffer.from("off"), 1), "a.png").width).toBe(1);
    for (const type of ["IDAT", "PLTE", "tEXt", "tEXu"])
      expect(() => readPng(withChunk(type, Buffer.from("miro\0{}"), 1), "a.png")).toThrow(/wrong checksum/);
    expect(() => readPng(withChunk("iTXt", Buffer.from("miro\0\x01\0\0\0no zlib")), "a.png")).toThrow(/malformed iTXt/);
  });
});

/** A picture with a further chunk between IHDR, which ends at byte 33, and the pixels. */
function withChunk(type: string, body: Buffer, checksumOff = 0): Buffer {
  const plain = encodePng(new Uint8Array(3), 1, 1);
  const chunk = Buffer.alloc(12 + body.length);
  chunk.writeUInt32BE(body.length, 0);
  chunk.write(type, 4, "latin1");
  chunk.set(body, 8);
  chunk.writeUInt32BE((crc(chunk.subarray(4, 8 + body.length)) ^ checksumOff) >>> 0, 8 + body.length);
  return Buffer.concat([plain.subarray(0, 33), chunk, plain.subarray(33)]);
}

/** CRC-32 bit by bit, independent of the table in the program. */
function crc(data: Uint8Array): number {
  let c = 0xffffffff;
  for (const byte of data) {
    c ^= byte;
    for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  }
  return ~c >>> 0;
}
