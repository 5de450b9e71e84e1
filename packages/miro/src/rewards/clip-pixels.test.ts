import { F, scope, tensor } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import type { RgbImage } from "../pictures/rgb.js";
import { CLIP_MEAN, CLIP_STD, clipPixels } from "./clip-pixels.js";

const picture = (width: number, height: number): RgbImage => ({
  width,
  height,
  data: Uint8Array.from({ length: width * height * 3 }, (_, i) => (Math.imul(i + 1, 2_654_435_761) >>> 13) & 255),
});
const kinds = ["pillow", "transformers", "tensor", "letterbox", "square"] as const;

describe("a strip", () => {
  it.each([
    [300, 2],
    [2, 300],
  ])("of %d x %d pixels is resized as ATen resizes the whole of it", (width, height) => {
    const side = 336;
    const long = (side * 300) / 2;
    scope(() => {
      const image = picture(width, height);
      const planes = tensor(image.data, { shape: [1, height, width, 3], dtype: "uint8" }).permute(0, 3, 1, 2);
      const size = width > height ? ([side, long] as const) : ([long, side] as const);
      const whole = F.interpolate(planes.float().div(255), { size, mode: "bicubic", antialias: true });
      const middle = whole.narrow(width > height ? 3 : 2, (long - side) / 2, side).select(0, 0);
      const channel = (values: number[]) => tensor(Float32Array.from(values)).view(3, 1, 1);
      const expected = middle.sub(channel(CLIP_MEAN)).div(channel(CLIP_STD));
      expect(clipPixels(image, side, "tensor").sub(expected).abs().max().item()).toBeLessThan(4e-6);
    });
  });

  it.each(kinds)("that would take gigabytes as a whole has pixels: %s", (kind) => {
    for (const [width, height] of [
      [200_000, 1],
      [1, 60_000],
    ] as const)
      scope(() => {
        const pixels = clipPixels(picture(width, height), 224, kind);
        expect(pixels.shape).toEqual([3, 224, 224]);
        expect(pixels.isfinite().all().item()).toBe(1);
        expect(Number(pixels.max().item()) - Number(pixels.min().item())).toBeGreaterThan(0.001);
      });
  });

  it("that is too high to be seen in a square is refused", () => {
    const strip = { width: 1, height: 2 ** 20 + 1, data: new Uint8Array(3 * (2 ** 20 + 1)) };
    expect(() => clipPixels(strip, 8, "square")).toThrow(/a height of at most 1048576 pixels.*received 1048577/);
  });
});
