import { expect, it } from "vitest";
import { padToSquare } from "./pad.js";

const [a, b] = [
  [1, 2, 3],
  [4, 5, 6],
];
const grey = [9, 9, 9] as const;

it("a picture is in the middle, half a pixel of the rest is right and below", () => {
  const wide = padToSquare({ width: 2, height: 1, data: Uint8Array.from([...a!, ...b!]) }, grey);
  expect(wide).toEqual({ width: 2, height: 2, data: Uint8Array.from([...a!, ...b!, ...grey, ...grey]) });
  const column = [a!, b!, a!, b!];
  const tall = padToSquare({ width: 1, height: 4, data: Uint8Array.from(column.flat()) }, grey);
  expect(tall.width).toBe(4);
  expect([...tall.data]).toEqual(column.flatMap((pixel) => [...grey, ...pixel, ...grey, ...grey]));
});

it("a square stays, and a strip whose square memory would not hold is refused", () => {
  const pixel = { width: 1, height: 1, data: Uint8Array.of(1, 2, 3) };
  expect(padToSquare(pixel, grey)).toBe(pixel);
  const strip = { width: 20_000, height: 1, data: new Uint8Array(60_000) };
  expect(() => padToSquare(strip, grey)).toThrow(/at most 16384 pixels.*20000 x 1/);
});
