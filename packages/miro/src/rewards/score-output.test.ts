import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { type OutputRow, readOutput, rowKey, writeOutput } from "./score-output.js";

const folder = mkdtempSync(join(tmpdir(), "miro-score-output-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A row in which every score has its model; of some there is none. */
const row = (image: string, prompt: string | null, scores: Record<string, number | null>): OutputRow => ({
  image,
  prompt,
  sha256: "00ff",
  scores,
  models: Object.fromEntries(Object.keys(scores).map((key) => [key, { name: `model of ${key}`, dtype: "float32" }])),
});

describe.each(["scores.csv", "scores.jsonl"])("%s", (name) => {
  const path = join(folder, name);

  it("gives rows back as they were: others scored by others, no score at all, no picture", () => {
    const rows: OutputRow[] = [
      row("a.png", "a fox", { sharpness: 0.1 + 0.2, colorfulness: null }),
      row("b.png", "a fox", { colorfulness: 1e-7 }),
      row("a.png", 'a "cat",\nor two', { sharpness: -3 }),
      { ...row("c.png", "a dog", {}), sha256: null, error: "c.png: cannot be read" },
    ];
    writeOutput(path, rows);
    expect(readOutput(path)).toEqual(new Map(rows.map((one) => [rowKey(one), one])));
  });

  it("gives any texts and finite scores back", () => {
    const text = fc.string({ unit: "grapheme", minLength: 1 });
    const number = fc.double({ noNaN: true, noDefaultInfinity: true }).filter((value) => !Object.is(value, -0));
    fc.assert(
      fc.property(text, text, number, (image, prompt, score) => {
        const one = row(image, prompt, { sharpness: score });
        writeOutput(path, [one]);
        expect([...readOutput(path).values()]).toEqual([one]);
      }),
      { numRuns: 50 },
    );
  });

  it("is refused, by line, where another program has written it", () => {
    writeOutput(path, [row("a.png", "a fox", { sharpness: 1 })]);
    writeFileSync(path, readFileSync(path, "utf8").replace(/\b1\b/, "many"));
    expect(() => readOutput(path)).toThrow(/line \d: is no row of scores as this program writes them .*`output`$/);
    writeFileSync(path, "x\n1\n");
    expect(() => readOutput(path)).toThrow(/line 1: is no row of scores/);
  });
});
