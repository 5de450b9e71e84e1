/**
 * The eight EXIF orientations, in every format that says one: what is shown is the same picture. An AVIF says it by the
 * boxes `irot` and `imir` (HEIF 6.5.10 and 6.5.12), which libheif writes for an orientation.
 */
import type { Sharp } from "sharp";
import { describe, expect, it } from "vitest";
import { decodeImage, decodeWithOrientation } from "./decode.js";
import { decodeShown } from "./decode-shown.js";
import type { RgbImage } from "./rgb.js";
import { storedTurned, UPRIGHT } from "./testing/turned.js";

/** The largest difference of two pictures of the same size. */
function difference(a: RgbImage, b: RgbImage): number {
  expect([a.width, a.height]).toEqual([b.width, b.height]);
  return a.data.reduce((most, value, i) => Math.max(most, Math.abs(value - b.data[i]!)), 0);
}

const FORMATS = {
  jpeg: { encode: (image: Sharp) => image.jpeg({ quality: 100, chromaSubsampling: "4:4:4" }), tolerance: 6 },
  png: { encode: (image: Sharp) => image.png(), tolerance: 0 },
  webp: { encode: (image: Sharp) => image.webp({ lossless: true }), tolerance: 0 },
  avif: { encode: (image: Sharp) => image.avif({ lossless: true, chromaSubsampling: "4:4:4" }), tolerance: 3 },
};

describe.each(Object.entries(FORMATS))("%s", (_, { encode, tolerance }) => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])("orientation %i", async (orientation) => {
    const bytes = await encode(storedTurned(orientation)).toBuffer();
    expect(difference(await decodeShown(bytes), UPRIGHT)).toBeLessThanOrEqual(tolerance);
    expect(difference(await decodeImage(bytes, { orient: true }), UPRIGHT)).toBeLessThanOrEqual(tolerance);
    const { image, orientation: found } = await decodeWithOrientation(bytes);
    expect(found).toBe(orientation);
    const turned = orientation > 4;
    expect([image.width, image.height]).toEqual(
      turned ? [UPRIGHT.height, UPRIGHT.width] : [UPRIGHT.width, UPRIGHT.height],
    );
  });
});
