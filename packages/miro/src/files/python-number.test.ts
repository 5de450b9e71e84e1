import { describe, expect, it } from "vitest";
import { pythonFixed, pythonFloat, pythonRound } from "./python-number.js";

describe("a float in Python's spelling", () => {
  it.each([
    // Each pair printed by CPython 3.11: print(repr(x))
    [0, "0.0"],
    [-0, "-0.0"],
    [0.5, "0.5"],
    [1, "1.0"],
    [-2, "-2.0"],
    [0.1 + 0.2, "0.30000000000000004"],
    [Math.fround(0.18), "0.18000000715255737"],
    [0.0001, "0.0001"],
    [0.00001234, "1.234e-05"],
    [-1e-7, "-1e-07"],
    [123456, "123456.0"],
    [1e15, "1000000000000000.0"],
    [1e16, "1e+16"],
    [1.5e16, "1.5e+16"],
    [1e100, "1e+100"],
    [5e-324, "5e-324"],
    [1.7976931348623157e308, "1.7976931348623157e+308"],
    [Number.NaN, "nan"],
    [-Infinity, "-inf"],
  ])("%d is %s", (value, text) => {
    expect(pythonFloat(value)).toBe(text);
  });
});

describe("a float rounded as Python does", () => {
  it.each([
    // Each pair printed by CPython 3.11: print(round(x))
    [0.5, 0],
    [1.5, 2],
    [2.5, 2],
    [-0.5, 0],
    [-1.5, -2],
    [-2.5, -2],
    [0.49999999999999994, 0],
    [2.4, 2],
    [2.6, 3],
    [-2.6, -3],
    [1e15 + 0.5, 1000000000000000],
  ])("%d becomes %d", (value, rounded) => {
    expect(pythonRound(value) - rounded).toBe(0);
  });
});

describe("a float with fixed digits, as Python prints it", () => {
  it.each([
    // Each triple printed by CPython 3.11: print(format(x, f".{digits}f"))
    [3.125, 2, "3.12"],
    [0.703125, 5, "0.70312"],
    [0.5, 0, "0"],
    [1.5, 0, "2"],
    [2.5, 0, "2"],
    [0.125, 2, "0.12"],
    [0.375, 2, "0.38"],
    [1e-7, 5, "0.00000"],
    [99.995, 2, "100.00"],
    [0.15, 1, "0.1"],
    [0.25, 1, "0.2"],
    [1.875, 2, "1.88"],
    [-3.125, 2, "-3.12"],
    [123456.5, 0, "123456"],
  ])("%d with %d is %s", (value, digits, text) => {
    expect(pythonFixed(value, digits)).toBe(text);
  });
});
