import { performance } from "node:perf_hooks";
import { describe, expect, it } from "vitest";
import { cleanVqaCaption } from "./vqa-text.js";

describe("a caption is cleaned as the published scores have it", () => {
  it.each([
    ["a  cat\n\n on\ta mat ", "a cat on\ta mat"],
    ["one ```code\n<b>``` two ```three", "one  two".replace("  ", " ")],
    ["<PERSON> holds <b>STOP</b>", "holds STOP"],
    ["a <> b <c d> e < f", "a <> b e < f"],
    ["<<x> y>", "y>"],
    ["`tick` ``two``", "tick two"],
    ["```a```` b", "b"],
    ["\x1f \x85a\x1c\x1d b\u3000", "a b"],
    ["\uFEFF a", "\uFEFF a"],
    ["", ""],
  ])("%j", (text, cleaned) => {
    expect(cleanVqaCaption(text)).toBe(cleaned);
  });

  it("in a time that grows with its length", () => {
    const texts = ["<", "<>", "`", "``` ", " ", "<a"].map((part) => part.repeat(200_000));
    const start = performance.now();
    for (const text of [...texts, ...texts.map((text) => `${text}>`)]) cleanVqaCaption(text);
    expect(performance.now() - start).toBeLessThan(5000);
  });
});
