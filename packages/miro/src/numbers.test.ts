import { describe, expect, it } from "vitest";
import { counted, shortNumber, wholeNumber } from "./numbers.js";

describe("numbers for people", () => {
  it.each([
    [3663.1, "3,663"],
    [1e21, "1,000,000,000,000,000,000,000"],
    [29.4912, "29.5"],
    [1, "1"],
    [0.01234, "0.0123"],
    [1e-9, "0.000000001"],
    [0, "0"],
  ])("%d is %s, without an exponent", (value, text) => expect(shortNumber(value)).toBe(text));

  it("have their digits in groups", () => expect(wholeNumber(500_000)).toBe("500,000"));
});

it("agree with the word behind them", () => {
  expect([0, 1, 2, 1024].map((count) => counted(count, "picture"))).toEqual([
    "0 pictures",
    "1 picture",
    "2 pictures",
    "1,024 pictures",
  ]);
  expect([1, 3].map((count) => counted(count, "process", "processes"))).toEqual(["1 process", "3 processes"]);
});
