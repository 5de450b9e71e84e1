import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { JsonInteger, type PythonJson, parsePythonJson, pythonJson, writePythonJson } from "./python-json.js";

describe("JSON as Python writes it", () => {
  it("keeps the kind of numbers, the order of fields and large integers", () => {
    const text =
      '{"b": 1.0, "10": 2, "a": [1e-07, 1e+22, 123456789012345678901234567890, -0.0, true, null], "\\u00e9": "\\ud83d\\ude00"}';
    expect(writePythonJson(parsePythonJson(text))).toBe(text);
  });

  it("reads NaN and Infinity and writes null for them, counted", () => {
    let count = 0;
    const value = parsePythonJson('{"a": NaN, "b": [Infinity, -Infinity], "c": 1}');
    expect(writePythonJson(value, () => count++)).toBe('{"a": null, "b": [null, null], "c": 1}');
    expect(count).toBe(3);
  });

  it("agrees with JSON.parse on everything that JSON.stringify writes", () => {
    const plain = (value: PythonJson): unknown => {
      if (value instanceof JsonInteger) return Number(value.digits);
      if (Array.isArray(value)) return value.map(plain);
      if (value instanceof Map) return Object.fromEntries([...value].map(([name, item]) => [name, plain(item)]));
      return value;
    };
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = JSON.stringify(value);
        const parsed = parsePythonJson(text);
        expect(plain(parsed)).toEqual(JSON.parse(text));
        const written = writePythonJson(parsed);
        expect(/^[\x20-\x7e]*$/.test(written)).toBe(true);
        expect(JSON.parse(written)).toEqual(JSON.parse(text));
      }),
    );
  });

  it.each(["", "{", '{"a" 1}', "[1,]", '"\\x"', '"a\nb"', "01", "1.", "tru", "{} x", '{"a": 1,}', "'a'"])(
    "refuses %j with the place",
    (text) => {
      expect(() => parsePythonJson(text)).toThrow(/at character \d+$/);
    },
  );

  it("refuses nesting that would exhaust the stack", () => {
    expect(() => parsePythonJson("[".repeat(100_000))).toThrow(/nested too deep/);
  });

  it("escapes what is not printable ASCII, as json.dumps does", () => {
    // json.dumps("\x7f\x80\u2028é") of Python 3.11
    for (const write of [writePythonJson, pythonJson])
      expect(write("\x7f\x80\u2028é")).toBe('"\\u007f\\u0080\\u2028\\u00e9"');
  });

  it("writes plain values as Python's: whole numbers are integers, others floats, undefined is left out", () => {
    expect(pythonJson({ a: [1, 0.5, 3e-5, null, true], b: {}, c: [], d: undefined })).toBe(
      '{"a": [1, 0.5, 3e-05, null, true], "b": {}, "c": []}',
    );
  });
});
