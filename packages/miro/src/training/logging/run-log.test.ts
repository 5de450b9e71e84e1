import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import sharp from "sharp";
import { afterAll, describe, expect, it } from "vitest";
import { runCaptured } from "../../cli/testing/run-captured.js";
import { runChart } from "./run-chart.js";
import { readRunLog, smooth } from "./run-log.js";

const root = mkdtempSync(join(tmpdir(), "miro-plot-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** A run's folder whose log has these lines. */
function runFolder(name: string, text: string): string {
  const folder = join(root, name);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "log.jsonl"), text);
  return folder;
}

const lines = (...records: object[]) => records.map((record) => `${JSON.stringify(record)}\n`).join("");
const steps = (...numbers: number[]) => lines(...numbers.map((step) => ({ step, loss: step * 10 })));

describe("readRunLog", () => {
  it("passes over a line that is cut off and lines that are no records, and counts them", () => {
    const log = readRunLog(runFolder("cut", `${steps(1, 2)}null\n[3]\n{"loss":1}\n{"step":3,"lo`));
    expect(log.series.get("loss")).toEqual({ steps: [1, 2], values: [10, 20] });
    expect([log.name, log.badLines, log.restarts]).toEqual(["cut", 4, 0]);
  });

  it("forgets what lies after the step that a run went back to", () => {
    const text = steps(10, 20, 30, 40) + lines({ step: 20, loss: 7 }, { step: 30, loss: 8 });
    const log = readRunLog(runFolder("resumed", text));
    expect(log.series.get("loss")).toEqual({ steps: [10, 20, 30], values: [100, 7, 8] });
    expect(log.restarts).toBe(1);
  });

  it("equals, whatever restarts a log holds, the one that a run writes which drops later lines at each restart", () => {
    const start = fc.record({ from: fc.nat(20), count: fc.integer({ min: 1, max: 10 }) });
    fc.assert(
      fc.property(fc.array(start, { minLength: 1, maxLength: 5 }), (starts) => {
        let kept: { step: number; loss: number }[] = [];
        let all = "";
        for (const [s, { from, count }] of starts.entries()) {
          const first = Math.min(from, kept.at(-1)?.step ?? 0) + 1; // a run continues at or before its last step
          kept = kept.filter(({ step }) => step < first);
          for (let step = first; step < first + count; step++) {
            kept.push({ step, loss: 100 * s + step });
            all += lines(kept.at(-1)!);
          }
        }
        const { steps, values } = readRunLog(runFolder("property", all)).series.get("loss")!;
        expect(steps.map((step, i) => ({ step, loss: values[i] }))).toEqual(kept);
      }),
      { numRuns: 60 },
    );
  });

  it("takes what a step logged last, and of a step that was logged in parts all of them", () => {
    const text = lines({ step: 1, loss: 3 }, { step: 2, loss: 2 }, { step: 2, accuracy: 0.5 }, { step: 2, loss: 1 });
    const { series } = readRunLog(runFolder("twice", text));
    expect([...series]).toEqual([
      ["loss", { steps: [1, 2], values: [3, 1] }],
      ["accuracy", { steps: [2], values: [0.5] }],
    ]);
  });

  it("is drawn however many steps were logged", () => {
    const text = Array.from({ length: 200_000 }, (_, i) => `{"step":${i + 1},"loss":${(i % 7) + 1}}\n`).join("");
    const { curves } = runChart([readRunLog(runFolder("long", text))], { keys: ["loss"] });
    expect(curves).toMatchObject([{ points: 200_000, firstStep: 1, lastStep: 200_000, min: 1, max: 7 }]);
  });

  it("keeps warnings apart, and null as a gap", () => {
    const log = readRunLog(
      runFolder("gap", lines({ step: 1, loss: null }, { step: 2, warning: "hot" }, { step: 3, loss: 2, grad: null })),
    );
    expect(log.series.get("loss")!.values).toEqual([Number.NaN, 2]);
    expect(log.warnings).toEqual([{ step: 2, message: "hot" }]);
    expect([...log.series.keys()]).toEqual(["loss"]);
  });

  it("says which run has no log, or no numbers", () => {
    expect(() => readRunLog(join(root, "nowhere"))).toThrow(/nowhere: no log of a run: no such file/);
    expect(() => readRunLog(runFolder("empty", ""))).toThrow(
      /no numbers have been logged yet; .* every trainer\.log_every_n_steps steps$/,
    );
  });
});

describe("smooth", () => {
  it("leaves a constant as it is, weighs the past, and keeps gaps", () => {
    for (const value of smooth([3, 3, 3, 3], 0.9)) expect(value).toBeCloseTo(3, 12);
    expect(smooth([1, Number.NaN, 2], 0)).toEqual([1, Number.NaN, 2]);
    expect(smooth([1, 2], 0.5)[1]).toBeCloseTo((0.5 * 1 * 0.5 + 0.5 * 2) / 0.75, 12);
  });
});

describe("runChart", () => {
  const log = (name: string, count: number, loss: (i: number) => number) =>
    readRunLog(
      runFolder(
        name,
        lines(
          ...Array.from({ length: count }, (_, i) => ({
            step: 10 * (i + 1),
            "train/loss": loss(i),
            "lr-Lamb/pg1": 1e-3,
            seconds: i,
            "val/loss": i % 5 === 0 ? loss(i) : undefined,
          })),
        ),
      ),
    );

  it("shows every run in each panel, what is there by default, and says what it shows", () => {
    const [a, b] = [log("a", 50, (i) => 3 / (i + 1)), log("b", 20, (i) => 5 - i / 10)];
    const { curves, drawing } = runChart([a, b], { title: "two & <more>" });
    expect(curves.map(({ run, key }) => `${run} ${key}`)).toEqual([
      ...["a train/loss", "b train/loss", "a lr-Lamb/pg1", "b lr-Lamb/pg1", "a val/loss", "b val/loss"],
    ]);
    expect(curves[0]).toMatchObject({ points: 50, firstStep: 10, lastStep: 500, last: 3 / 50, min: 3 / 50, max: 3 });
    expect(drawing.toSvg()).toContain("two &amp; &lt;more&gt;");
  });

  it("draws the smoothed and the raw line of each run where their values are", async () => {
    const falling = log("falling", 400, (i) => 400 - i);
    const { data, width } = await runChart([falling], { keys: ["train/loss"] }).drawing.toImage();
    const dark = (x: number, y: number) => data[3 * (y * width + x)]! < 150 && data[3 * (y * width + x) + 2]! > 150;
    /** Height of the curve at a column, in pixels from the top. */
    const height = (x: number) => {
      for (let y = 50; y < 290; y++) if (dark(x, y)) return y;
      throw new Error(`no curve at ${x}`);
    };
    const [left, middle, right] = [height(100), height(250), height(420)];
    expect(left).toBeLessThan(middle);
    expect(middle).toBeLessThan(right);
    expect((middle - left) / 150).toBeCloseTo((right - middle) / 170, 1);
  });

  it("thins long runs without losing a spike", () => {
    const long = log("long", 30_000, (i) => (i === 12_345 ? 9 : 1));
    const { drawing, curves } = runChart([long], { keys: ["train/loss"], smoothing: 0 });
    expect(drawing.toSvg().length).toBeLessThan(40_000);
    expect(curves[0]!.max).toBe(9);
    const ys = [...drawing.toSvg().matchAll(/[ML][\d.]+ ([\d.]+)/g)].map(([, y]) => Number(y));
    expect(new Set(ys).size).toBeGreaterThan(3);
  });

  it("leaves out what was logged before, or without, the name of the horizontal axis", () => {
    const known = log("known", 50, (i) => 3 / (i + 1));
    const without = readRunLog(runFolder("without", steps(...Array.from({ length: 3000 }, (_, i) => i + 1))));
    const late = readRunLog(runFolder("late", lines({ step: 0, "train/loss": 9 }, { step: 10, "train/loss": 3 })));
    const { steps: at, values } = known.series.get("seconds")!;
    const series = new Map([...late.series, ["seconds", { steps: at, values }]]);
    for (const x of ["seconds", "step"] as const) {
      const { drawing, curves } = runChart([known, { ...late, series }, without], { x, keys: ["train/loss", "loss"] });
      expect(curves).toHaveLength(3);
      expect(drawing.toSvg()).not.toContain("NaN");
      expect(drawing.toSvg().split("#0072b2")).toHaveLength(3); // the legend and the curve
      expect(drawing.toSvg().split("#009e73")).toHaveLength(x === "seconds" ? 2 : 3);
    }
  });

  it("refuses a name that no log has, and names near ones", () => {
    const one = log("one", 3, () => 1);
    expect(() => runChart([one], { keys: ["train/los"] })).toThrow(
      /keys: expected a name of the log: train\/loss, rec/,
    );
    expect(() => runChart([one], { x: "hours" })).toThrow(/^x: expected a name of the log: .*seconds/);
  });
});

describe("miro plot", () => {
  async function miro(...args: string[]): Promise<{ code: number; out: string; err: string }> {
    const { code, stdout: out, stderr: err } = await runCaptured(...args);
    return { code, out, err };
  }

  it("writes PNG and SVG and tells what it has drawn; a run of a single line too", async () => {
    const folder = runFolder("single", lines({ step: 1, "train/loss": 2 }));
    expect(await miro("plot", folder)).toEqual({ code: 0, out: `${join(folder, "plot.svg")}\n`, err: "" });
    const png = join(root, "out", "plot.png");
    const { code, out, err } = await miro(
      "plot",
      folder,
      runFolder("other", `${steps(1, 2)}{"st`),
      "--output",
      png,
      "--json",
    );
    expect([code, err]).toEqual([0, `warning: ${join(root, "other", "log.jsonl")}: 1 line is no record\n`]);
    const json = JSON.parse(out);
    expect(json.output).toBe(png);
    expect(json.curves.map(({ run, key }: { run: string; key: string }) => `${run} ${key}`)).toEqual([
      "single train/loss",
    ]);
    expect(await sharp(png).metadata()).toMatchObject({ format: "png", width: 470 });
  });

  it("refuses other kinds of files and unknown names, exit code 2", async () => {
    const folder = runFolder("plain", steps(1, 2));
    expect(await miro("plot", folder, "--output", "plot.pdf")).toMatchObject({ code: 2 });
    expect((await miro("plot", folder, "--keys", "lozz")).err).toMatch(
      /^error: --keys: expected a name of the log: loss/,
    );
  });
});
