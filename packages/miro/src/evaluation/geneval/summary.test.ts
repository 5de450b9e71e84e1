import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { pythonJson } from "../../files/python-json.js";
import { TASKS } from "./metadata.js";
import { publishedPrompts } from "./prompts.js";
import { markdownTable, PUBLISHED_COUNTS } from "./published.js";
import { faultsIn, type Result, readResults, summarise, summaryText } from "./summary.js";

const folder = mkdtempSync(join(tmpdir(), "miro-summary-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Four pictures of each published prompt, of which the first so many of each task are right. */
function results(correct: readonly number[], reason = "expected cat>=1, found 0"): Result[] {
  const left = new Map<string, number>(TASKS.map((task, i) => [task, correct[i]!]));
  return publishedPrompts().prompts.flatMap((metadata, index) =>
    Array.from({ length: 4 }, (_, sample) => {
      const open = left.get(metadata.tag)!;
      left.set(metadata.tag, open - 1);
      return {
        filename: `${index}/samples/${sample}.png`,
        tag: metadata.tag,
        prompt: metadata.prompt,
        correct: open > 0,
        reason: open > 0 ? "" : reason,
        metadata: pythonJson(metadata),
        details: "{}",
      };
    }),
  );
}

describe("the summary", () => {
  it.each([
    ["Baseline", "0.52169", 1119],
    ["MIRO", "0.56804", 1226],
    ["Baseline, synthetic captions", "0.56972", 1238],
    ["MIRO, synthetic captions", "0.67669", 1476],
  ])("of the counts of %s gives the published score", (name, overall, correct) => {
    const summary = summarise(results(PUBLISHED_COUNTS[name]!));
    expect(summary.overall.toFixed(5)).toBe(overall);
    expect(summary).toMatchObject({ images: 2212, prompts: 553 });
    expect(Object.values(summary.tasks).reduce((sum, task) => sum + task.correct, 0)).toBe(correct);
    expect(Object.values(summary.tasks).map(({ images }) => images)).toEqual([320, 396, 320, 376, 400, 400]);
    const [low, high] = summary.overall_interval!;
    // The pictures of a prompt are all right or all wrong here: a standard error of about 1.8 points.
    expect(low).toBeLessThan(summary.overall - 0.02);
    expect(high).toBeGreaterThan(summary.overall + 0.02);
    expect(high - low).toBeLessThan(0.1);
  });

  it("is the mean of the tasks that there are, and is printed as GenEval's own program does", () => {
    const [a, b] = publishedPrompts().prompts;
    const row = (metadata: typeof a, tag: string, correct: boolean): Result => ({
      filename: "",
      tag,
      prompt: metadata!.prompt,
      correct,
      reason: "",
      metadata: pythonJson(metadata),
      details: "{}",
    });
    const summary = summarise([row(a, "y", true), row(b, "x", true), row(b, "x", false), row(b, "x", false)]);
    expect(summary.overall).toBeCloseTo(2 / 3, 12);
    expect(summaryText(summary)).toBe(
      [
        "Summary\n=======\nTotal images: 4\nTotal prompts: 2\n% correct images: 50.00%\n% correct prompts: 100.00%\n",
        "Task breakdown\n==============",
        "y                = 100.00% (1 / 1)",
        "x                = 33.33% (1 / 3)\n",
        "Overall score (avg. over tasks): 0.66667\n",
      ].join("\n"),
    );
  });

  it("prints halves as GenEval's own program does, to the even last digit", () => {
    const few = results([9, 9, 9, 9, 9, 9]).slice(0, 32);
    const summary = summarise(few.map((row, i) => ({ ...row, tag: "counting", correct: i === 0 })));
    expect(summaryText(summary)).toContain("= 3.12% (1 / 32)\n");
    expect(summaryText({ ...summary, overall: 45 / 64 })).toContain("Overall score (avg. over tasks): 0.70312\n");
    expect(markdownTable("mine", summary, false)).toContain("| mine | 3.12 (");
  });

  it("has an interval without width where all prompts are right equally often", () => {
    const half = results([0, 0, 0, 0, 0, 0]).map((row, i) => ({ ...row, correct: i % 2 === 0 }));
    const { tasks, overall_interval } = summarise(half);
    expect(Object.values(tasks).map(({ interval }) => interval)).toEqual(TASKS.map(() => [0.5, 0.5]));
    expect(overall_interval).toEqual([0.5, 0.5]);
  });

  it("has no interval where nothing tells how another prompt would differ", () => {
    const of = (tasks: readonly string[]) =>
      summarise(
        results([9, 9, 9, 9, 9, 9]).filter(({ tag, filename }) => tasks.includes(tag) || /^0\//.test(filename)),
      );
    const one = of([]);
    expect([one.prompts, one.images, one.overall]).toEqual([1, 4, 1]);
    expect([one.tasks.single_object!.interval, one.overall_interval]).toEqual([null, null]);
    expect(markdownTable("mine", one, false)).toContain("| mine | 100.00 | 100.00 |");
    const beside = of(["counting"]);
    expect(beside.tasks.single_object!.interval).toBeNull();
    expect(beside.tasks.counting!.interval).toEqual([expect.any(Number), expect.any(Number)]);
    expect(beside.overall_interval).toBeNull();
    expect(of(["counting", "single_object"]).overall_interval).not.toBeNull();
  });

  it("counts every task, whatever its name", () => {
    const list = results([9, 9, 9, 9, 9, 9]).slice(0, 8);
    const { tasks, overall } = summarise(list.map((row, i) => ({ ...row, tag: i < 4 ? "__proto__" : "x" })));
    expect([...Object.keys(tasks), overall]).toEqual(["__proto__", "x", 1]);
  });

  it("tells faults and classes apart", () => {
    expect(
      faultsIn(
        [
          "expected sports ball>=1, found 0",
          "expected clock<3, found 3",
          "expected red hot dog>=1, found 0 red; and 1 pink",
          "no target for cat to be above",
          "expected cell phone left of target, found  target",
          "something new",
        ].join("\n"),
      ).map(({ fault, className }) => `${fault}: ${className}`),
    ).toEqual([
      "too few: sports ball",
      "too many: clock",
      "wrong colour: hot dog",
      "no target: cat",
      "wrong position: cell phone",
      "other: ",
    ]);
    const { classes, faults } = summarise(results([0, 0, 0, 0, 0, 0]));
    expect(faults.counting).toEqual({ "too few": 320 });
    expect(classes.cat!.accuracy).toBe(0);
    expect(classes.dog!.accuracy).toBe(1);
  });

  it("has the published rows beside one's own, where the prompts are GenEval's", () => {
    const summary = summarise(results(PUBLISHED_COUNTS["MIRO, synthetic captions"]!));
    const rows = markdownTable("mine | new", summary, true).trimEnd().split("\n");
    expect(rows[0]).toBe(
      "| model | overall, % | single_object | two_object | counting | colors | position | color_attr |",
    );
    expect(rows[2]).toMatch(
      /^\| mine \\\| new \| 67\.67 \(\S+ to \S+\) \| 97\.19 \| 72\.98 \| 61\.25 \| 76\.60 \| 46\.00 \|/,
    );
    expect(rows.find((row) => row.includes("target 0.625"))).toBe(
      "| MIRO, synthetic captions, aesthetic target 0.625 | 74.87 |  |  |  |  |  |  |",
    );
    expect(markdownTable("mine", summary, false).trimEnd().split("\n")).toHaveLength(3);
    const { tasks, ...rest } = summary;
    const other = markdownTable("mine", { ...rest, tasks: { ...tasks, negation: tasks.counting! } }, true);
    expect(other.split("\n")[0]).toMatch(/ color_attr \| negation \|$/);
    expect(other.trimEnd().split("\n")).toHaveLength(3);
  });
});

describe("results", () => {
  it("of GenEval's own evaluator are read", () => {
    const path = join(folder, "results.jsonl");
    const [a] = publishedPrompts().prompts;
    // As pandas writes them: slashes and what is beyond ASCII are escaped.
    writeFileSync(
      path,
      `{"filename":"images\\/00000\\/samples\\/0000.png","tag":"single_object","prompt":"caf\\u00e9","correct":true,"reason":"",` +
        `"metadata":${JSON.stringify(pythonJson(a)).replaceAll("/", "\\/")},"details":"{}"}\n`,
    );
    expect(readResults(path)).toMatchObject([{ filename: "images/00000/samples/0000.png", prompt: "café" }]);
    expect(summarise(readResults(path)).overall).toBe(1);
  });

  it("that are none are named with their line", () => {
    const path = join(folder, "wrong.jsonl");
    for (const [text, error] of [
      ["{", /wrong\.jsonl, line 1: not valid JSON/],
      [
        '{"filename": "x", "tag": "t", "prompt": "", "correct": 1}',
        /line 1: correct: expected true or false, received 1$/,
      ],
      ["\n", /holds no results/],
    ] as const) {
      writeFileSync(path, text);
      expect(() => readResults(path)).toThrow(error);
    }
  });
});
