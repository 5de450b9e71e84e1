import { expect, it } from "vitest";
import { formatMemory, formatSize, parseSize } from "./sizes.js";

it("sizes are written in the unit that leaves a number below the next unit", () => {
  const sizes = [0, 999, 1000, 999_949, 999_950, 12e6, 1.44e9, 5e12, 5e15];
  const written = ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "12.0 MB", "1.4 GB", "5.0 TB", "5000.0 TB"];
  expect(sizes.map(formatSize)).toEqual(written);
  expect([512, 1024, 80 * 2 ** 30].map(formatMemory)).toEqual(["512 B", "1.0 KiB", "80.0 GiB"]);
});

it("sizes are read as they are written", () => {
  const texts = ["12.0 MB", "1.5GiB", "1000000", "2 kB"];
  expect(texts.map(parseSize)).toEqual([12e6, 1.5 * 2 ** 30, 1e6, 2000]);
  expect(["", "-1", "1 parsec", "0", "1e3"].map(parseSize)).toEqual([
    undefined,
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
});
