import { expect, test } from "vitest";
import { wideLines } from "./check-width.mjs";

test("a comment, and code that no formatter breaks, is at most 120 columns wide; addresses are left alone", () => {
  const fits = `// ${"x ".repeat(58)}y`;
  const text = [
    fits,
    `${fits} zz`,
    ` * ${"word ".repeat(30)}`,
    `const a = "${"x".repeat(130)}";`,
    `// https://${"a".repeat(130)}`,
  ];
  expect(fits.length).toBe(120);
  const comments = [
    [2, 123],
    [3, 153],
  ];
  expect(wideLines(text.join("\n"), true)).toEqual(comments);
  expect(wideLines(text.join("\n"), false)).toEqual([...comments, [4, 143]]);
});
