import { describe, expect, it } from "vitest";
import { TorchError } from "./errors.js";
import { filterColumns, filterRows, type PixelWindows } from "./pixels.js";

const ONE = 2 ** 22;

/** Two windows: of one pixel, and of the two behind it. */
function windows(weights: [number, number, number], starts = [0, 0, 0, 0, 0, 0]): PixelWindows {
  return {
    first: Int32Array.of(0, 1),
    counts: Int32Array.of(1, 2),
    weights: Int32Array.of(weights[0] * ONE, 0, weights[1] * ONE, weights[2] * ONE),
    starts: Int32Array.from(starts, (start) => start * ONE),
  };
}

describe("weighted sums of pixels", () => {
  const first = [10, 20, 30, 100, 110, 120, 200, 210, 220];
  const second = [1, 2, 3, 4, 5, 6, 7, 8, 9];

  it("are made along rows", () => {
    const result = filterRows(Uint8Array.of(...first, ...second), 3, windows([0.5, 0.5, 0.5]));
    expect([...result]).toEqual([5, 10, 15, 150, 160, 170, 0, 1, 1, 5, 6, 7]);
  });

  it("are made along those columns that are meant", () => {
    const rows = [first, second, first].flat();
    const asked = { left: 1, count: 2 };
    const result = filterColumns(Uint8Array.from(rows), 3, windows([1, 0.25, 0.75]), asked);
    expect([...result]).toEqual([...first.slice(3), ...[76, 83, 91, 151, 159, 167]]);
  });

  it("begin with what they are given, and are clipped to 8 bits", () => {
    const result = filterRows(Uint8Array.from(first), 3, windows([-1, 1, 1], [0, 25, 40, -300, -310, -320]));
    expect([...result]).toEqual([0, 5, 10, 0, 10, 20]);
    expect([...filterRows(Uint8Array.from(first), 3, windows([1, 1, 1]))].slice(3)).toEqual([255, 255, 255]);
  });

  it("refuse windows and columns beside the picture, and lists that do not fit together", () => {
    const picture = Uint8Array.from(first);
    const good = windows([1, 1, 1]);
    for (const [change, what] of [
      [{ first: Int32Array.of(0, 2) }, "output position 1: its window is not within the picture"],
      [{ first: Int32Array.of(-1, 1) }, "output position 0: its window is not within the picture"],
      [{ counts: Int32Array.of(1, 3) }, "output position 1: its window is not within the picture"],
      [{ counts: Int32Array.of(1) }, "counts: expected 2 numbers, got 1"],
      [{ starts: Int32Array.of(1) }, "starts: expected 6 numbers, got 1"],
      [{ weights: Int32Array.of(1, 2, 3) }, "weights: expected as many for each output position"],
    ] as const) {
      expect(() => filterRows(picture, 3, { ...good, ...change })).toThrow(TorchError);
      expect(() => filterRows(picture, 3, { ...good, ...change })).toThrow(what);
    }
    const narrow = { ...good, first: Int32Array.of(0, 0), counts: Int32Array.of(1, 1) };
    expect(() => filterRows(picture, 2, narrow)).toThrow("source: expected rows of 2 pixels");
    for (const columns of [
      { left: 3, count: 1 },
      { left: -1, count: 2 },
      { left: 0, count: 4 },
    ])
      expect(() => filterColumns(picture, 3, narrow, columns)).toThrow("the columns are not within the picture");
  });
});
