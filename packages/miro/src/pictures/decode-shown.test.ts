import { describe, expect, it } from "vitest";
import { decodeImage } from "./decode.js";
import { decodeShown } from "./decode-shown.js";
import { sharp } from "./sharp.js";

/** Two pixels side by side: red, and blue of the given opacity. */
const pair = (alpha: number) =>
  sharp(Buffer.of(255, 0, 0, 255, 0, 0, 255, alpha), { raw: { width: 2, height: 1, channels: 4 } });
const pixels = async (bytes: Uint8Array) => {
  const { width, height, data } = await decodeShown(bytes);
  return [width, height, ...data];
};

/** A BMP of 24 bits with one row of two pixels. */
function bmp(): Buffer {
  const bytes = Buffer.alloc(54 + 8);
  bytes.write("BM", "latin1");
  bytes.writeUInt32LE(bytes.length, 2);
  bytes.writeUInt32LE(54, 10);
  bytes.writeUInt32LE(40, 14);
  bytes.writeInt32LE(2, 18);
  bytes.writeInt32LE(1, 22);
  bytes.writeUInt16LE(1, 26);
  bytes.writeUInt16LE(24, 28);
  bytes.set([0, 0, 255, 255, 0, 0], 54);
  return bytes;
}

describe("a picture as a viewer shows it", () => {
  it("has white below what is transparent, where the data's reading keeps the hidden colour", async () => {
    const png = await pair(0).png().toBuffer();
    expect(await pixels(png)).toEqual([2, 1, 255, 0, 0, 255, 255, 255]);
    expect([...(await decodeImage(png)).data]).toEqual([255, 0, 0, 0, 0, 255]);
  });

  it("is turned as EXIF says", async () => {
    const png = await pair(255).withMetadata({ orientation: 3 }).png().toBuffer();
    expect(await pixels(png)).toEqual([2, 1, 0, 0, 255, 255, 0, 0]);
  });

  it("has the same formats as the data's reading, BMP too and nothing that draws itself", async () => {
    expect(await pixels(bmp())).toEqual([2, 1, 255, 0, 0, 0, 0, 255]);
    const svg = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="2" height="1"/>');
    for (const decode of [decodeShown, decodeImage]) await expect(decode(svg)).rejects.toThrow(/no JPEG, PNG, WebP/);
  });

  it("is refused above the limit, and where the file was cut", async () => {
    const png = await pair(255).png().toBuffer();
    await expect(decodeShown(png, 1)).rejects.toThrow("2 x 1 pixels, at most 1 are decoded");
    await expect(decodeShown(png.subarray(0, png.length - 20))).rejects.toThrow(/cannot be decoded/);
  });
});
