import { expect, it } from "vitest";
import { table } from "./card.js";

it("tables keep what would begin another cell", () => {
  expect(table(["a", "b|c"], [["d", "`e | f`"]])).toBe("| a | b\\|c |\n| --- | --- |\n| d | `e \\| f` |");
});
