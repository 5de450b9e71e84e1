import { describe, expect, it } from "vitest";
import { invalid } from "../errors.js";
import { compileNormalizer } from "./normalizer.js";

const normalize = (json: unknown, text: string) => compileNormalizer(json, "normalizer", invalid)(text);

describe("normalizers", () => {
  it("make each letter small by itself, a sigma at the end of a word too, as the tokenizers library does", () => {
    expect(normalize({ type: "Lowercase" }, "ΟΔΟΣ İX")).toBe("οδοσ i\u0307x");
  });

  it("strip white space at the ends that are named, and none else", () => {
    const strip = (left: boolean, right: boolean) =>
      normalize({ type: "Strip", strip_left: left, strip_right: right }, " \ta b\u3000\n");
    expect([strip(true, true), strip(true, false), strip(false, true), strip(false, false)]).toEqual([
      "a b",
      "a b\u3000\n",
      " \ta b",
      " \ta b\u3000\n",
    ]);
  });

  it("replace every place, of a text or of an expression, and take content as it stands", () => {
    expect(normalize({ type: "Replace", pattern: { String: "." }, content: "$&" }, "a.b.")).toBe("a$&b$&");
    expect(normalize({ type: "Replace", pattern: { Regex: " {2,}" }, content: "_" }, "a  b c   d")).toBe("a_b c_d");
    expect(() => normalize({ type: "Replace", pattern: { Regex: "a" }, content: "$1" }, "a")).toThrow(
      /normalizer\.content: expected a text without references to groups/,
    );
  });

  it("work one after the other, nested too, and none is none", () => {
    const inner = { type: "Sequence", normalizers: [{ type: "NFKC" }, { type: "Lowercase" }] };
    const outer = {
      type: "Sequence",
      normalizers: [inner, { type: "Replace", pattern: { String: "a" }, content: "b" }],
    };
    expect(normalize(outer, "ＡＢ")).toBe("bb");
    expect(normalize(null, "ＡＢ")).toBe("ＡＢ");
  });
});
