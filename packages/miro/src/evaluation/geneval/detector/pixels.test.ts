import { scope } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { detectorInput, resizedSize, SCALE } from "./pixels.js";

const image = (width: number, height: number, value: (x: number, y: number, channel: number) => number) => ({
  width,
  height,
  data: Uint8Array.from({ length: width * height * 3 }, (_, i) =>
    value(Math.floor(i / 3) % width, Math.floor(i / 3 / width), i % 3),
  ),
});

describe("the detector's input", () => {
  it.each([
    [256, 256, 800, 800],
    [333, 500, 800, 1201],
    [640, 480, 1067, 800],
    [40, 200, 267, 1333],
    [1, 1, 800, 800],
    [1, 60_000, 1, 1333],
    [60_000, 1, 1333, 1],
  ])("of %i x %i fits into 1333 and 800: %i x %i", (width, height, newWidth, newHeight) => {
    expect(resizedSize({ width, height }, SCALE)).toEqual({ width: newWidth, height: newHeight });
  });

  it("is normalised by channel and padded with zeros to multiples of 32", () => {
    scope(() => {
      const white = detectorInput(
        image(40, 20, (_x, _y, channel) => 50 * channel),
        [96, 64],
        false,
      );
      expect(white.pixels.shape).toEqual([1, 3, 64, 96]);
      expect([white.resized.height, white.resized.width]).toEqual([48, 96]);
      const at = (channel: number, row: number) => white.pixels.select(1, channel).select(1, row).select(1, 0).item();
      expect(at(0, 0)).toBeCloseTo(-123.675 / 58.395, 5);
      expect(at(2, 47)).toBeCloseTo((100 - 103.53) / 57.375, 5);
      expect(at(2, 48)).toBe(0);
    });
  });

  it("with --resize-u8 is that of whole grey levels, at most half of one away", () => {
    scope(() => {
      const noise = image(17, 13, (x, y, channel) => (x * 97 + y * 57 + channel * 31) % 256);
      const [floats, bytes] = [false, true].map((rounded) => detectorInput(noise, [96, 64], rounded).pixels);
      const level = 1 / 57.12;
      const difference = floats!.select(1, 1).sub(bytes!.select(1, 1)).abs().max().item();
      expect(difference).toBeGreaterThan(0.3 * level);
      expect(difference).toBeLessThan(0.501 * level);
    });
  });
});
