import { expect, it } from "vitest";
import { mapLevels, nearestCell } from "./map-order.js";

it.each([3, 5, 9])("every cell of %i by itself once, the corners and the middle first", (side) => {
  const levels = mapLevels(side);
  const all = levels.flat();
  expect(all.toSorted((a, b) => a - b)).toEqual(Array.from({ length: side * side }, (_, cell) => cell));
  const corners = [0, side - 1, side * (side - 1), side * side - 1, (side * side - 1) / 2];
  expect(levels[0]).toHaveLength(9);
  expect(levels[0]).toEqual(expect.arrayContaining(corners));
});

it("the nearest cell that is drawn stands in for one that is not", () => {
  expect(nearestCell(7, 5, [0, 4, 12])).toBe(12);
  expect(nearestCell(3, 5, [0, 4, 12])).toBe(4);
  expect(nearestCell(3, 5, [])).toBeNull();
});
