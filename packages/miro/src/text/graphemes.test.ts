import { describe, expect, it } from "vitest";
import { graphemeEnd } from "./graphemes.js";

const split = (text: string) => {
  const clusters: string[] = [];
  for (let start = 0; start < text.length; ) {
    const end = graphemeEnd(text, start);
    clusters.push(text.slice(start, end));
    start = end;
  }
  return clusters;
};

// One or more representatives of every class of UAX #29.
const ALPHABET = [
  ..."ae \r\n\t\u00A9\u00AD\u200B\u200C\u200D\u0301\u0308\u0600\u0903\u0915\u0937\u094D\u093C\u0958\u09BE\u0E33\u0E40\u1100\uA960\u1160\u11A8\uAC00\uAC01",
  ..."\u2764\uFE0F\u{1F468}\u{1F469}\u{1F3FD}\u{1F1E6}\u{1F1FA}\u{1F308}\u{E0020}\u{110BD}\u{11F02}\u0D4E\u1B44\u1039\u1000\u17D2\uFF9E\u3099\u302A\u1CD0",
];

describe("graphemeEnd", () => {
  it("cuts the examples of UAX #29", () => {
    expect(split("\r\n")).toEqual(["\r\n"]);
    expect(split("e\u0301o")).toEqual(["e\u0301", "o"]);
    expect(split("\u{1F1E6}\u{1F1FA}\u{1F1E6}")).toEqual(["\u{1F1E6}\u{1F1FA}", "\u{1F1E6}"]);
    expect(split("\u{1F468}\u200D\u{1F469}\u200D\u{1F466}!")).toEqual(["\u{1F468}\u200D\u{1F469}\u200D\u{1F466}", "!"]);
    expect(split("\u0915\u094D\u0937a")).toEqual(["\u0915\u094D\u0937", "a"]);
    expect(split("\u1100\u1161\u11A8\uAC00")).toEqual(["\u1100\u1161\u11A8", "\uAC00"]);
  });

  it.runIf(process.versions.unicode === "17.0")("agrees with ICU's Unicode 17 on 40,000 random strings", () => {
    const segmenter = new Intl.Segmenter("en", { granularity: "grapheme" });
    let state = 1;
    const random = (n: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * n);
    };
    for (let i = 0; i < 40_000; i++) {
      const text = Array.from({ length: 1 + random(8) }, () => ALPHABET[random(ALPHABET.length)]).join("");
      expect(split(text), JSON.stringify(text)).toEqual([...segmenter.segment(text)].map((s) => s.segment));
    }
  });
});
