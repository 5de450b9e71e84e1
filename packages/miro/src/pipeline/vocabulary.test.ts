import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Vocabulary } from "../text/vocabulary.js";
import { bundledModel } from "./loading/bundled.js";
import { MiroPipeline } from "./pipeline.js";

const known = Vocabulary.of(bundledModel()!)!;

describe("the vocabulary of the bundled model", () => {
  it("names what characters mean", () => {
    expect(known.size).toBe(984);
    const named = Object.entries({
      "🦊": "a fox",
      "a 🦊 on a red background": "a fox on a red background",
      "🦊 on a red background": "a fox on a red background",
      "🍎🍎🍎": "three red apples",
      "🦊🍎": "a fox and a red apple",
      "🦊 and 🍎": "a fox and a red apple",
      "a small 🦊": "a small fox",
      "🍇": "grapes",
      "😀 😃😃": "a grinning face and two grinning faces with big eyes",
      "❤️": "a red heart",
      "❤": "a red heart",
      "a fox": "a fox",
    });
    for (const [text, meaning] of named) expect(known.named(text)).toBe(meaning);
  });

  it("tells unknown words with the nearest names, and nothing of what the model was trained on", () => {
    for (const text of ["a fox", "three small red apples on a dark blue to white gradient background", "🦊", "A FOX"])
      expect(known.warning([text], "miro-emoji")).toBeNull();
    expect(known.warning(["a steampunk robot", "a pengiun"], "miro-emoji")).toMatch(
      /^miro-emoji draws 984 things and does not know "steampunk".*, "pengiun" \(it knows penguin.*\); what/,
    );
    // Names with a word that is spelt alike, and none for words that are not.
    expect(known.warning(["a very red aple"], "miro-emoji")).toMatch(/"very", "aple" \(it knows .*\bred apple\b.*\);/);
    // What people look for things by, however many things it fits.
    expect(known.warning(["a happy face"], "miro-emoji")).toContain('"happy" (it knows grinning face,');
    expect(known.warning(["a 🏴"], "miro-emoji")).toContain('"🏴"');
  });
});

describe("a pipeline with a vocabulary", () => {
  let pipe: MiroPipeline;
  beforeAll(async () => {
    pipe = await MiroPipeline.fromPretrained();
  });
  afterAll(() => pipe.dispose());

  it("draws a character as its name, and warns once of a call's unknown words", async () => {
    const [character, name] = await Promise.all(
      ["a 🦊", "a fox"].map((prompt) => pipe.generate(prompt, { steps: 1, seed: 3 })),
    );
    expect(character!.images[0]!.data).toEqual(name!.images[0]!.data);
    expect(character!.warnings).toEqual([]);
    const { warnings } = await pipe.generate(["a steampunk fox", "a steampunk owl"], { steps: 1 });
    expect(warnings).toEqual([expect.stringMatching(/does not know "steampunk"/)]);
    const { warnings: long } = await pipe.generate("w".repeat(100_000), { steps: 1 });
    expect(long).toEqual([
      expect.stringMatching(/does not know "w{59}…";/),
      expect.stringMatching(/is longer than 32 tokens; these words were cut: "w{999}…"$/),
    ]);
  });
});

it("a file that is no vocabulary is refused by its name", () => {
  const folder = mkdtempSync(join(tmpdir(), "miro-vocabulary-"));
  try {
    expect(Vocabulary.of(folder)).toBeNull();
    writeFileSync(join(folder, "vocabulary.json"), '{"things": [{"name": 5}], "words": []}');
    expect(() => Vocabulary.of(folder)).toThrow(/vocabulary\.json: things\.0\.name: expected a text, received 5$/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
