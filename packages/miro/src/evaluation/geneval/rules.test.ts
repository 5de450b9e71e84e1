import { describe, expect, it } from "vitest";
import { parseOptions } from "../../options.js";
import type { Box } from "./detection.js";
import { type Colour, checkMetadata } from "./metadata.js";
import { type Found, judge, overlap, relativePosition, rulesSchema } from "./rules.js";

const rules = parseOptions(rulesSchema, {});
const at = (score: number, x = 0): Found => ({ box: [x, 0, x + 10, 10], score });
const one = (name: string, more: object = {}) => ({ class: name, count: 1, ...more });

function verdict(
  tag: string,
  include: object[],
  found: Record<string, Found[]>,
  { exclude, colours = {} }: { exclude?: object[]; colours?: Record<string, Colour[]> } = {},
) {
  const metadata = checkMetadata({ tag, include, ...(exclude && { exclude }), prompt: "" }, "test");
  const answers = (name: string, objects: readonly Found[]) => colours[name]!.slice(0, objects.length);
  return judge(metadata, new Map(Object.entries(found)), answers, rules);
}

describe("the position of a box relative to another", () => {
  it.each<[Box, Box, [number, number] | null, string[]]>([
    [[0, 0, 10, 10], [90, 0, 100, 10], [-0.97778, 0], ["left of"]],
    [
      [0, 0, 10, 10],
      [90, 90, 100, 100],
      [-0.69139, -0.69139],
      ["left of", "above"],
    ],
    [[0, 0, 100, 100], [10, 0, 110, 100], null, []],
    [[0, 0, 100, 100], [30, 0, 130, 100], [-0.33333, 0], []],
    [[0, 0, 100, 100], [40, 0, 140, 100], [-0.5, 0], []],
    [[0, 0, 100, 100], [41, 0, 141, 100], [-0.5122, 0], ["left of"]],
    [[0, 0, 100, 100], [100, 60, 200, 160], [-0.68599, -0.343], ["left of"]],
    [[0, 0, 100, 100], [0, 120, 100, 220], [0, -0.83333], ["above"]],
    [[5, 5, 15, 15], [5, 5, 15, 15], null, []],
  ])("%j and %j", (a, b, direction, relations) => {
    const found = relativePosition(a, b, 0.1);
    expect(found.relations).toEqual(relations);
    if (direction === null) expect(found.direction).toBeNull();
    else for (const [i, value] of direction.entries()) expect(found.direction![i]).toBeCloseTo(value, 5);
  });
});

it("objects in the same place count as several, unless overlapping ones are dropped", () => {
  const metadata = checkMetadata({ tag: "counting", include: [{ class: "cat", count: 2 }], prompt: "" }, "test");
  const judged = (maxOverlap: number, ...boxes: Found[]) =>
    judge(metadata, new Map([["cat", boxes]]), () => [], { ...rules, max_overlap: maxOverlap }).correct;
  expect([judged(1, at(0.99), at(0.98)), judged(0.99, at(0.99), at(0.98))]).toEqual([true, false]);
  expect([judged(0.05, at(0.99), at(0.98, 11)), judged(0.05, at(0.99), at(0.98, 5))]).toEqual([true, false]);
});

it("the overlap of boxes counts their corners as pixels", () => {
  expect(overlap([0, 0, 9, 9], [5, 0, 14, 9])).toBeCloseTo(1 / 3, 12);
  expect(overlap([0, 0, 10, 10], [10, 0, 20, 10])).toBeCloseTo(0.047619, 7);
  expect(overlap([0, 0, 10, 10], [11, 0, 20, 10])).toBe(0);
});

describe("a verdict", () => {
  const two = [{ class: "clock", count: 2 }];
  const notThree = [{ class: "clock", count: 3 }];

  it("needs a score above the threshold", () => {
    expect(verdict("single_object", [one("bench")], { bench: [at(0.3)] }).reason).toBe("expected bench>=1, found 0");
    expect(verdict("single_object", [one("bench")], { bench: [at(0.3 + 1e-9)] }).correct).toBe(true);
  });

  it("of a count does not see what is below the threshold of counting", () => {
    const weak = { clock: [at(0.95), at(0.85, 40), at(0.95, 80)] };
    expect(verdict("counting", two, weak, { exclude: notThree }).correct).toBe(true);
    const strong = { clock: [at(0.95), at(0.95, 40), at(0.95, 80)] };
    expect(verdict("counting", two, strong, { exclude: notThree }).reason).toBe("expected clock<3, found 3");
  });

  it("keeps the best 16 objects of a class", () => {
    const clock = Array.from({ length: 17 }, (_, k) => at(0.9 + k / 1000, 20 * k));
    const kept = verdict("two_object", [one("clock")], { clock }).kept.get("clock")!;
    expect(kept.map(({ score }) => score)).toEqual([...kept].map(({ score }) => score).sort((a, b) => b - a));
    expect(kept).toHaveLength(16);
    expect(kept[0]!.score).toBeCloseTo(0.916, 6);
  });

  it("names what is missing, and objects that have no target for it", () => {
    const place = [one("dog"), one("cat", { position: ["above", 0] })];
    expect(verdict("position", place, { cat: [at(0.8)] }).reason).toBe(
      "expected dog>=1, found 0\nno target for cat to be above",
    );
    expect(verdict("two_object", [one("sports ball"), one("cat")], { cat: [at(0.8)] }).reason).toBe(
      "expected sports ball>=1, found 0",
    );
  });

  it("takes no object of the wrong colour for a target", () => {
    const include = [one("dog", { color: "red" }), one("cat", { position: ["left of", 0] })];
    const found = { dog: [at(0.9, 200)], cat: [at(0.8)] };
    expect(verdict("position", include, found, { colours: { dog: ["blue"] } }).reason).toBe(
      "expected red dog>=1, found 0 red; and 1 blue\nno target for cat to be left of",
    );
    expect(verdict("position", include, found, { colours: { dog: ["red"] } }).correct).toBe(true);
  });
});

it("metadata with a target that does not stand before its object is refused, with its place", () => {
  const wrong = { tag: "position", include: [one("cat", { position: ["above", 1] }), one("dog")], prompt: "" };
  expect(() => checkMetadata(wrong, "line 3")).toThrow(/^line 3: include\.0\.position\.1: .* received 1$/);
  expect(() => checkMetadata({ tag: "colors", include: [one("cat", { color: "mauve" })], prompt: "" }, "x")).toThrow(
    /^x: include\.0\.color: expected one of red, .*, received "mauve"$/,
  );
});
