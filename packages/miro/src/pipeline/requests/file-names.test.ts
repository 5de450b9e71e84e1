import { sep } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InvalidInputError } from "../../errors.js";
import { NameAllocator, NameTemplate, type NameValues, slug } from "./file-names.js";

const values: NameValues = {
  prompt: "A Fox, please!",
  seed: 7,
  index: 3,
  count: 120,
  steps: 20,
  guidance: 0.25,
  sampler: "euler",
  shift: 1,
  model: "nicolas-dufour/miro",
  variant: "",
  began: new Date(2026, 0, 31, 23, 59, 58),
  reward: { sharpness: 0.2 },
  negativeReward: {},
  variationSeed: undefined,
};
const fill = (template: string, change: Partial<NameValues> = {}) =>
  new NameTemplate(template).fill({ ...values, ...change });

it("fields stand for what made the picture", () => {
  expect(fill("{prompt}-seed{seed}")).toBe("a-fox-please-seed7");
  expect(fill("{model}/{index} {steps} {guidance} {sampler}")).toBe("nicolas-dufour-miro/003 20 0.25 euler");
  expect(fill("{reward.sharpness}_{reward.clip_score}_{negative_reward.sharpness}")).toBe("0.2_1_0");
  expect(fill("{date}_{time}")).toBe("2026-01-31_23-59-58");
  expect(fill("{variant}")).toBe("picture");
});

it.each<[string, RegExp]>([
  ["{promt}", /unknown field \{promt\}; there are \{prompt\}, \{seed\}, .*\{reward\.KEY\}/],
  ["{toString}", /unknown field/],
  ["{prompt", /without its other half/],
  ["a}b", /without its other half/],
  ["../{prompt}", /an empty part, or one of dots alone/],
  ["/etc/{prompt}", /an empty part/],
  ["a//b", /an empty part/],
  ["", /an empty part/],
  ["a\\b", /a character that file names cannot have/],
  ["a\0b", /a character that file names cannot have/],
])("%j is refused", (template, message) => {
  expect(() => new NameTemplate(template)).toThrow(message);
  expect(() => new NameTemplate(template)).toThrow(InvalidInputError);
});

it("rewards are compared with the checkpoint's; noise has no seed", () => {
  expect(() => new NameTemplate("{reward.x}", ["sharpness"])).toThrow(
    /names the reward x; this checkpoint has sharpness/,
  );
  expect(() => fill("{seed}", { seed: null })).toThrow(
    /uses \{seed\}, but pictures drawn from supplied noise have no seed/,
  );
});

describe("whatever the values", () => {
  it("a path stays below the folder, has parts of at most 255 bytes, hides nothing and is unique", () => {
    const text = fc.string({ unit: "grapheme", maxLength: 300 });
    fc.assert(
      fc.property(fc.array(fc.tuple(text, text), { maxLength: 5 }), (pairs) => {
        const names = new NameAllocator("out");
        const paths = pairs.map(([prompt, model]) =>
          names.take(fill("{model}/{prompt}{model}", { prompt, model }), ".png"),
        );
        for (const path of paths) {
          const parts = path.split(sep);
          expect(parts.length).toBe(3);
          expect(parts[0]).toBe("out");
          for (const part of parts) expect(Buffer.byteLength(part)).toBeLessThanOrEqual(255);
          // biome-ignore lint/suspicious/noControlCharactersInRegex: none of them may be in a name
          expect(path).not.toMatch(/[\x00-\x1f\\:*?"<>|]/);
          for (const part of parts) expect(part).toMatch(/^[^.].*[^. ]$|^[^. ]$/u);
        }
        expect(new Set(paths.map((path) => path.toLowerCase())).size).toBe(paths.length);
      }),
    );
  });
});

it("names that fall together are numbered, also by case and where something is in the way", () => {
  const names = new NameAllocator("out", (path) => !path.endsWith("b.png"));
  const taken = ["a", "A", "a", "b", "x/a"].map((name) => names.take(name, ".png").split(sep).slice(1).join("/"));
  expect(taken).toEqual(["a.png", "A-2.png", "a-3.png", "b-2.png", "x/a.png"]);
});

it("long names are cut at a character", () => {
  const name = new NameAllocator("out").take("日本".repeat(60), ".webp");
  expect(Buffer.byteLength(name.slice(4))).toBeLessThanOrEqual(200);
  expect(name).toMatch(/^out.[日本]+\.webp$/u);
});

describe("slug", () => {
  it.each([
    ["A red apple, on a light-blue background!", "a-red-apple-on-a-light-blue-background"],
    ["../../etc/passwd", "etc-passwd"],
    ["日本の猫", "日本の猫"],
    ["a 🦊 on a red background", "a-🦊-on-a-red-background"],
    ["!!!", "picture"],
    ["x".repeat(500), "x".repeat(60)],
  ])("of %s", (prompt, name) => {
    expect(slug(prompt)).toBe(name);
  });
});
