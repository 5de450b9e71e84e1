import { Generator, randn, tensor } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { initialNoise } from "../pipeline/noise.js";
import { contactSheet, toRgb } from "./rgb.js";

describe("toRgb", () => {
  it("maps [-1, 1] to bytes by truncation, clamps, and puts channels last", () => {
    const picture = tensor([[[[-1, 1]], [[0, 3]], [[Number.NaN, -3]]]], { dtype: "float32" });
    const [image] = toRgb(picture);
    // 0 → 0.5 · 255 = 127.5 → 127
    expect(image).toEqual({ width: 2, height: 1, data: Uint8Array.of(0, 127, 0, 255, 255, 0) });
    picture.dispose();
  });
});

describe("contactSheet", () => {
  const solid = (width: number, height: number, value: number) => ({
    width,
    height,
    data: new Uint8Array(width * height * 3).fill(value),
  });

  it("places pictures row by row with gaps, background elsewhere", () => {
    const sheet = contactSheet([solid(2, 2, 10), solid(2, 2, 20), solid(2, 1, 30)], {
      gap: 1,
      background: 0,
      columns: 2,
    });
    const rows = Array.from({ length: sheet.height }, (_, y) =>
      Array.from({ length: sheet.width }, (_, x) => sheet.data[(y * sheet.width + x) * 3]),
    );
    expect(rows).toEqual([
      [0, 0, 0, 0, 0, 0, 0],
      [0, 10, 10, 0, 20, 20, 0],
      [0, 10, 10, 0, 20, 20, 0],
      [0, 0, 0, 0, 0, 0, 0],
      [0, 30, 30, 0, 0, 0, 0],
      [0, 0, 0, 0, 0, 0, 0],
      [0, 0, 0, 0, 0, 0, 0],
    ]);
  });
});

describe("initialNoise", () => {
  it("gives each seed its own draw, whatever stands beside it", () => {
    const shape = [4, 6, 6];
    const alone = randn([1, ...shape], { generator: new Generator("cpu").manualSeed(7) });
    const together = initialNoise([3, 7], shape);
    expect(together.shape).toEqual([2, ...shape]);
    expect(together.select(0, 1).toList()).toEqual((alone.toList() as unknown[])[0]);
    alone.dispose();
    together.dispose();
  });
});
