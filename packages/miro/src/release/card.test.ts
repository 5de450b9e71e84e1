import { expect, it } from "vitest";
import { code, plainText, table } from "./card.js";

it("tables keep what would begin another cell", () => {
  expect(table(["a", "b|c"], [["d", "`e | f`"]])).toBe("| a | b\\|c |\n| --- | --- |\n| d | `e \\| f` |");
});

it.each([
  ["clip_score", "`clip_score`"],
  ["a`b", "``a`b``"],
  ["``", "``` `` ```"],
  ["two\nlines", "`two lines`"],
])("code spans hold the name %j", (name, span) => {
  expect(code(name)).toBe(span);
});

it("prompts are shown as they were written", () => {
  expect(plainText("a *fox*,\n<b>[snow](x)</b>")).toBe("a \\*fox\\*, \\<b\\>\\[snow\\](x)\\</b\\>");
});
