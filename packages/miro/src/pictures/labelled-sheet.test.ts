import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InvalidInputError } from "../errors.js";
import { checkCellSize, labelledSheet, type SheetCell } from "./labelled-sheet.js";
import type { RgbImage } from "./rgb.js";

function plain(side: number, [r, g, b]: readonly [number, number, number]): RgbImage {
  const data = new Uint8Array(side * side * 3).map((_, i) => [r, g, b][i % 3]!);
  return { width: side, height: side, data };
}

const SHORT: RgbImage = { width: 2, height: 2, data: new Uint8Array(11) };

/** How many pixels of a sheet have exactly this colour. */
function count({ data }: RgbImage, colour: readonly [number, number, number]): number {
  let found = 0;
  for (let i = 0; i < data.length; i += 3) {
    if (data[i] === colour[0] && data[i + 1] === colour[1] && data[i + 2] === colour[2]) found++;
  }
  return found;
}

describe("labelledSheet", () => {
  it("shows every pixel of every picture, unchanged", async () => {
    const colours = [
      [200, 10, 10],
      [10, 200, 10],
      [10, 10, 200],
      [90, 90, 10],
    ] as const;
    const cells = [colours.slice(0, 2), colours.slice(2)].map((row) => row.map((c) => ({ image: plain(40, c) })));
    const sheet = await labelledSheet({ cells, columnLabels: ["0", "1"], rowLabels: ["a", "b"], title: "t" });
    expect(sheet.data.length).toBe(sheet.width * sheet.height * 3);
    for (const colour of colours) expect(count(sheet, colour)).toBe(40 * 40);
  });

  it("makes room for the texts it is given, and only for those", async () => {
    const cells = [[{ image: plain(64, [1, 2, 3]) }]];
    const bare = await labelledSheet({ cells });
    const dark = (image: RgbImage) => image.data.filter((value) => value < 120).length - 64 * 64 * 3;
    expect(dark(bare)).toBe(0);
    for (const texts of [{ title: "Title" }, { columnLabels: ["0.5"] }, { rowLabels: ["a fox"] }, { footer: "foot" }]) {
      const labelled = await labelledSheet({ cells, ...texts });
      expect(labelled.width * labelled.height).toBeGreaterThan(bare.width * bare.height);
      expect(dark(labelled)).toBeGreaterThan(20);
    }
    const under = await labelledSheet({ cells: [[{ image: cells[0]![0]!.image, label: "0.51" }]] });
    expect(under.height).toBeGreaterThan(bare.height);
  });

  it("breaks labels that are wider than their place instead of covering the neighbour", async () => {
    const label = "a red apple to the left of a small green frog on a light blue background";
    const cells = [[{ image: plain(64, [1, 2, 3]) }, { image: plain(64, [4, 5, 6]) }]];
    const sheet = await labelledSheet({ cells, columnLabels: [label, label] });
    const short = await labelledSheet({ cells, columnLabels: ["a", "b"] });
    expect(sheet.width).toBe(short.width);
    expect(sheet.height).toBeGreaterThan(short.height + 40);
    expect(count(sheet, [1, 2, 3])).toBe(64 * 64);
  });

  it("takes any text as text, never as markup", async () => {
    const cells = [[{ image: plain(16, [1, 2, 3]) }]];
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: "binary", maxLength: 30 }), async (title) => {
        const sheet = await labelledSheet({ cells, title: `<b>&${title}` });
        expect(sheet.data.length).toBe(sheet.width * sheet.height * 3);
      }),
      { numRuns: 25 },
    );
  });

  it("fits large pictures into their cells and leaves empty places empty", async () => {
    const sheet = await labelledSheet({
      cells: [[{ image: { width: 400, height: 200, data: new Uint8Array(400 * 200 * 3).fill(77) } }, { image: null }]],
      cellSize: 100,
    });
    expect(count(sheet, [77, 77, 77])).toBe(100 * 50);
  });

  it.each([
    ["columns", (cells: SheetCell[]) => [cells]],
    ["rows", (cells: SheetCell[]) => cells.map((cell) => [cell])],
  ])("makes cells smaller where many %s would make the sheet too large", async (_, arranged) => {
    const wide = { width: 300, height: 1, data: new Uint8Array(900) };
    const cells = arranged(Array.from({ length: 200 }, (_, i) => ({ image: i === 0 ? wide : null, label: "0.5" })));
    const { width, height } = await labelledSheet({ cells });
    expect(Math.max(width, height)).toBeGreaterThan(20_000);
    expect(Math.max(width, height)).toBeLessThanOrEqual(30_000);
  });

  it("says before anything is drawn which cells are too large for a sheet", async () => {
    expect(() => checkCellSize(244, 2, 120)).not.toThrow();
    expect(() => checkCellSize(undefined, 2, 1000)).not.toThrow();
    expect(() => checkCellSize(245, 2, 120)).toThrow(
      "cellSize: expected at most 244 for 2 rows of 120 columns, received 245",
    );
  });

  it.each([
    ["rows of several lengths", { cells: [[{ image: null }], []] }, /cells: expected rows of 1 cells/],
    ["no cell at all", { cells: [] }, /cells: expected at least one row/],
    ["too few column labels", { cells: [[{ image: null }, { image: null }]], columnLabels: ["a"] }, /columnLabels/],
    ["a cell without a picture", { cells: [[{}]] }, /cells\.0\.0: expected \{ image, label \}/],
    [
      "a picture with bytes missing",
      { cells: [[{ image: SHORT }]] },
      /cells\.0\.0\.image: expected .* 3 bytes of data/,
    ],
    ["a label that is no text", { cells: [[{ image: null, label: 3 }]] }, /cells\.0\.0\.label: expected a text/],
    ["half a pixel", { cells: [[{ image: null }]], cellSize: 2.5 }, /cellSize: expected a whole number from 1/],
    ["a sheet beyond what viewers open", { cells: [Array(400).fill({ image: null })], cellSize: 256 }, /30000 pixels/],
  ])("refuses %s", async (_, options, message) => {
    const attempt = labelledSheet(options as Parameters<typeof labelledSheet>[0]);
    await expect(attempt).rejects.toThrow(InvalidInputError);
    await expect(attempt).rejects.toThrow(message);
  });
});
