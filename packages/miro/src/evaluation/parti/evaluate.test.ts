// PartiPrompts with the bundled model, from a table in Google's form to figures by category.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCaptured } from "../../cli/testing/run-captured.js";
import { readPartiPrompts } from "./prompts.js";

const scratch = mkdtempSync(join(tmpdir(), "miro-parti-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const table = join(scratch, "PartiPrompts.tsv");
const TABLE = [
  "Prompt\tCategory\tChallenge\tNote",
  "a fox\tAnimals\tBasic",
  'a "red" apple\tFood & Beverage\tBasic\tquotes stay',
  "a fox\tAnimals\tSimple Detail\tthe same text once more",
  "a snail\tAnimals\tBasic\t",
];
beforeAll(() => writeFileSync(table, `${TABLE.join("\r\n")}\r\n`));

const at = (outdir: string) => join(scratch, outdir);
const parti = (outdir: string, ...args: string[]) =>
  runCaptured(
    ...["evaluate", "parti", table, "--outdir", at(outdir), "--steps", "2", "--n-samples", "2"],
    ...["--scorers", "sharpness,colorfulness", "--threads", "1", "--json", ...args],
  );
const picture = (outdir: string, prompt: number, sample: number) =>
  readFileSync(join(at(outdir), String(prompt).padStart(5, "0"), "samples", `000${sample}.png`));

it("a table is read as Google's: no quoting, cells at the end of a line may be absent", () => {
  expect(readPartiPrompts(table)).toEqual([
    { prompt: "a fox", category: "Animals", challenge: "Basic" },
    { prompt: 'a "red" apple', category: "Food & Beverage", challenge: "Basic", note: "quotes stay" },
    { prompt: "a fox", category: "Animals", challenge: "Simple Detail", note: "the same text once more" },
    { prompt: "a snail", category: "Animals", challenge: "Basic" },
  ]);
  const wrong = (name: string, text: string) => {
    writeFileSync(at(name), text);
    return () => readPartiPrompts(at(name));
  };
  expect(wrong("a.tsv", "Text\tCategory\na\tb\n")).toThrow(
    /a\.tsv: line 1: .*the column Prompt, found .*Text, Category/,
  );
  expect(wrong("b.tsv", "Prompt\tCategory\n\tx\n")).toThrow(/b\.tsv: line 2: has no prompt/);
  expect(wrong("c.tsv", "Prompt\na\tb\n")).toThrow(/c\.tsv: line 2: expected at most 1 cells/);
  expect(wrong("d.tsv", "Prompt\n")).toThrow(/d\.tsv: holds no prompts/);
});

describe("miro evaluate parti", () => {
  it("draws, scores and summarises by category; goes on, and keeps to what is there", async () => {
    const { code, stdout, stderr } = await parti("whole");
    expect({ code, stderr }).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/8 pictures drawn, 0 were there/),
    });
    const summary = JSON.parse(stdout);
    expect(summary).toEqual(JSON.parse(readFileSync(join(at("whole"), "parti.json"), "utf8")));
    expect(Object.keys(summary.categories)).toEqual(["Animals", "Food & Beverage"]);
    expect(Object.keys(summary.challenges)).toEqual(["Basic", "Simple Detail"]);
    expect(summary.all).toMatchObject({ n_images: 8, n_prompts: 3 });
    expect(summary.categories.Animals).toMatchObject({ n_images: 6, n_prompts: 2 });
    const rows = readFileSync(join(at("whole"), "rewards.jsonl"), "utf8")
      .trim()
      .split("\n");
    const values = rows.map((row) => JSON.parse(row).colorfulness as number);
    // Prompts 0, 2 and 3 are animals, two pictures each.
    const animals = [0, 1, 4, 5, 6, 7].map((i) => values[i]!);
    const { per_image_mean, per_prompt_interval } = summary.categories.Animals;
    expect(per_image_mean.colorfulness).toBeCloseTo(animals.reduce((a, b) => a + b) / 6, 12);
    const [low, high] = per_prompt_interval.colorfulness;
    expect(low).toBeLessThanOrEqual(summary.categories.Animals.per_prompt_mean.colorfulness);
    expect(high).toBeGreaterThanOrEqual(summary.categories.Animals.per_prompt_mean.colorfulness);
    expect(JSON.parse(readFileSync(join(at("whole"), "00001", "metadata.jsonl"), "utf8"))).toEqual(
      readPartiPrompts(table)[1],
    );

    rmSync(join(at("whole"), "00003", "samples", "0001.png"));
    const again = await parti("whole");
    expect(again.stderr).toMatch(/1 picture drawn, 7 were there/);
    expect(JSON.parse(again.stdout)).toEqual(summary);
    // Fewer pictures of each prompt are those that a folder with no more of them has.
    const fewer = JSON.parse((await parti("whole", "--n-samples", "1")).stdout);
    expect(fewer).toMatchObject({ n_samples: 1, all: { n_images: 4, n_prompts: 3 } });
    const first = [0, 2, 4, 6].map((i) => values[i]!);
    expect(fewer.all.per_image_mean.colorfulness).toBeCloseTo(first.reduce((a, b) => a + b) / 4, 12);
    const other = await parti("whole", "--guidance", "1");
    expect(other).toMatchObject({ code: 2, stderr: expect.stringMatching(/0000\.png: is another picture: guidance/) });
  });

  it("says before it draws that weights of a scorer are missing, and makes no folder then", async () => {
    const weights = ["--scorers", "sharpness,hpsv2", "--weights", `hpsv2=${scratch}`];
    const { code, stderr } = await parti("without", ...weights);
    expect([code, stderr]).toEqual([2, expect.stringContaining(`${scratch}: holds no weights of hpsv2_score`)]);
    expect(existsSync(at("without"))).toBe(false);
  });

  it("gives a range of the prompts, in whatever batches, the pictures that the whole has", async () => {
    const { code, stdout } = await parti("part", "--prompt-range", "2-3", "--batch-size", "3");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ prompt_range: [2, 3], all: { n_images: 4, n_prompts: 2 } });
    expect(readdirSync(at("part")).filter((name) => /^\d+$/.test(name))).toEqual(["00002", "00003"]);
    const settings = async (outdir: string) =>
      JSON.parse((await runCaptured("info", join(at(outdir), "00003", "samples", "0000.png"), "--json")).stdout);
    expect((await settings("part")).seed).toBe((await settings("whole")).seed);
    // Prompts of the same text have pictures of their own.
    expect(picture("whole", 0, 0).equals(picture("whole", 2, 0))).toBe(false);
  });

  it("is shared by several processes, of which each draws a part and ends with all figures", async () => {
    const both = await Promise.all([parti("shared", "--n-samples", "20"), parti("shared", "--n-samples", "20")]);
    expect(both.map(({ code }) => code)).toEqual([0, 0]);
    const [one, other] = both.map(({ stdout }) => JSON.parse(stdout));
    expect(one).toEqual(other);
    expect(one.all).toMatchObject({ n_images: 80, n_prompts: 3 });
    const drawn = both.map(({ stderr }) => Number(/(\d+) pictures? drawn/.exec(stderr)![1]));
    expect(drawn).toEqual([40, 40]);
  });

  it.each([
    [["--prompt-range", "2-9"], /--prompt-range: expected FIRST-LAST with 0 <= FIRST <= LAST < 4/],
    [["--n-samples", "0"], /--n-samples: expected an integer from 1/],
    [["--scorers", "beauty"], /--scorers: "beauty" is not known/],
    [["--reward", "beauty=1"], /--reward: this checkpoint was not trained on beauty/],
  ])("refuses %j before it draws", async (args, message) => {
    const { code, stderr } = await parti("refused", ...args);
    expect({ code, stderr }).toMatchObject({ code: 2, stderr: expect.stringMatching(message) });
    expect(readdirSync(scratch)).not.toContain("refused");
  });
});
