import { expect, test } from "vitest";
import { wideLines } from "./check-width.mjs";

test("a comment is at most 120 columns wide; addresses and code are left alone", () => {
  const fits = `// ${"x ".repeat(58)}y`;
  const text = [
    fits,
    `${fits} zz`,
    ` * ${"word ".repeat(30)}`,
    `const a = "${"x".repeat(130)}";`,
    `// https://${"a".repeat(130)}`,
  ];
  expect(fits.length).toBe(120);
  expect(wideLines(text.join("\n"))).toEqual([
    [2, 123],
    [3, 153],
  ]);
});
