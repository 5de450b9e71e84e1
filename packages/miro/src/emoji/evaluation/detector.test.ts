import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import type { RgbImage } from "../../pictures/rgb.js";
import { bundledModel } from "../../pipeline/loading/bundled.js";
import { loadVocabulary } from "../scenes/vocabulary.js";
import { EmojiClassifier } from "./classifier.js";
import {
  countObjects,
  isPlacedPair,
  isRightCount,
  isRightPair,
  type Located,
  locatePair,
  observe,
} from "./detector.js";
import { checkDetector } from "./detector-check.js";

const classifier = EmojiClassifier.fromPretrained(join(dirname(bundledModel()!), "emoji-classifier"));

describe("the detector on true renders", () => {
  it("counts and finds what is there, and not what is not", async () => {
    const reports: number[] = [];
    const { counts, relations } = await checkDetector(classifier, {
      labels: loadVocabulary("everyday").map(({ label }) => label),
      pictures: 16,
      size: 128,
      onProgress: (done) => reports.push(done),
    });
    expect(counts.counted).toBeGreaterThanOrEqual(0.87);
    expect(counts.right).toBeGreaterThanOrEqual(0.85);
    expect(counts.otherThing).toBeLessThanOrEqual(0.1);
    expect(relations.right).toBeGreaterThanOrEqual(0.85);
    expect(relations.exchanged).toBe(0);
    expect(relations.otherThing).toBeLessThanOrEqual(0.1);
    expect(reports.at(-1)).toBe(32);
  });

  it("finds nothing in an empty picture", () => {
    const empty: RgbImage = { width: 64, height: 64, data: new Uint8Array(3 * 64 * 64).fill(200) };
    const observation = observe(empty, classifier);
    const [first, second] = classifier.config.labels as [string, string];
    expect(countObjects(observation, first)).toEqual({ found: 0, named: 0 });
    expect(locatePair(observation, [first, second])).toBeNull();
    expect(() => countObjects(observation, "green cow")).toThrow(/green cow/);
  });
});

describe("verdicts", () => {
  it("ask for the number and for every name", () => {
    expect(isRightCount({ found: 3, named: 3 }, 3)).toBe(true);
    for (const count of [1, 2, 4, 5]) expect(isRightCount({ found: 3, named: 3 }, count)).toBe(false);
    expect(isRightCount({ found: 3, named: 2 }, 3)).toBe(false);
  });

  it("ask for both names and for the place unless it is left open", () => {
    const located: Located = { ranks: [0, 4], relation: "left" };
    expect(isRightPair(located, "left")).toBe(true);
    expect(isRightPair(located, "and")).toBe(true);
    for (const relation of ["right", "above", "below"] as const) expect(isRightPair(located, relation)).toBe(false);
    expect(isRightPair({ ...located, ranks: [0, 5] }, "and")).toBe(false);
    expect(isRightPair(null, "and")).toBe(false);
    // An object that is not recognised may still stand where it should.
    expect(isPlacedPair({ ...located, ranks: [5, 5] }, "left")).toBe(true);
    for (const relation of ["right", "above", "below"] as const) expect(isPlacedPair(located, relation)).toBe(false);
    expect(isPlacedPair(null, "and")).toBe(false);
  });
});
