import { afterEach, describe, expect, it, vi } from "vitest";
import { DrawingProgress } from "./drawing-progress.js";
import { downloadText, Pace, Progress, type ProgressDetail, progressLine } from "./progress.js";

const progress = (allBytes: number, allTotalBytes: number) => ({
  repo: "a/b",
  file: "c",
  bytes: 0,
  totalBytes: 0,
  allBytes,
  allTotalBytes,
  fileNumber: 2,
  fileCount: 4,
});

describe("a download", () => {
  it("is told as amount, file, rate and time left", () => {
    expect(downloadText(progress(1.2e9, 9.4e9), 85e6)).toBe("1.2/9.4 GB, file 2 of 4, 85.0 MB/s, 1:36 left");
    expect(downloadText(progress(0, 9.4e9), 1e6)).toBe("0.0/9.4 GB, file 2 of 4, 1.0 MB/s, 2:36:40 left");
    expect(downloadText(progress(1e6, 2e6), 0)).toBe("1.0/2.0 MB, file 2 of 4");
  });
});

describe("a line", () => {
  const drawing = { stage: "drawing", parts: ["1/2 pictures", "step 3/12", "0:12 left"], progress: 0.5 };

  it("has a bar and all that is known, where the terminal is wide", () => {
    expect(progressLine(drawing, 80)).toBe("drawing ============------------ 1/2 pictures, step 3/12, 0:12 left");
    expect(progressLine({ ...drawing, parts: ["", "step 3/12", ""] }, 80, (bar) => `[${bar}]`)).toBe(
      "drawing [============------------] step 3/12",
    );
  });

  it("fits a narrow one: a shorter bar, then less beside it, the time left last of all", () => {
    expect(progressLine(drawing, 60)).toBe("drawing ========-------- 1/2 pictures, step 3/12, 0:12 left");
    expect(progressLine(drawing, 40)).toBe("drawing ====--- 1/2 pictures, 0:12 left");
    expect(progressLine(drawing, 30)).toBe("drawing ======----- 0:12 left");
    for (let columns = 1; columns < 100; columns++) expect(progressLine(drawing, columns).length).toBeLessThan(columns);
  });
});

describe("the time left", () => {
  it("follows from the pace, whatever was there at the beginning", () => {
    const pace = new Pace();
    expect(pace.left(40, 100, 0)).toBeNull();
    expect(pace.left(50, 100, 10_000)).toBe(50);
    expect(pace.left(60, 100, 30_000)).toBe(60);
  });

  it("forgets what was skipped more than a minute ago, and judges slow pieces by the last ones", () => {
    const pace = new Pace();
    pace.left(0, 1000, 0);
    pace.left(900, 1000, 1000);
    for (let second = 10; second <= 120; second += 10) pace.left(900 + second / 10, 1000, 1000 + second * 1000);
    expect(pace.left(913, 1000, 131_000)).toBeCloseTo(870, 0);
    const slow = new Pace();
    for (const hour of [0, 1, 2, 3]) slow.left(hour, 10, hour * 3600_000);
    expect(slow.left(4, 10, 4 * 3600_000)).toBeCloseTo(6 * 3600, 5);
  });
});

describe("without a terminal", () => {
  afterEach(() => void vi.useRealTimers());

  it("a log gets a line a minute, with all that is known, and none of work that is done before", async () => {
    vi.useFakeTimers({ toFake: ["performance"] });
    const lines: string[] = [];
    const colours = { stdout: false, stderr: false };
    const display = await Progress.for({ interactive: false, colours, note: (line) => lines.push(line) });
    const detail = { count: "shard 1/2 (a\nb)", detail: "3/9 samples", secondsLeft: 90 };
    for (let second = 0; second < 150; second++) {
      display.update("vae", second, 200, detail);
      vi.advanceTimersByTime(1000);
    }
    const line = "vae, shard 1/2 (a b), 3/9 samples, 1:30 left\n";
    expect(lines).toEqual([line, line]);
  });
});

describe("pictures that are drawn", () => {
  const recorded = () => {
    const shown: [string, number, number, ProgressDetail | undefined][] = [];
    const update: Progress["update"] = (...args) => shown.push(args as (typeof shown)[0]);
    return { shown, display: { update } as Progress };
  };

  it("are one line that only grows, with candidates, batches and pictures that are there", () => {
    const { shown, display } = recorded();
    const drawing = new DrawingProgress(display, 3, 4);
    drawing.picture(); // it was there
    for (let batch = 0; batch < 2; batch++)
      for (let step = 0; step < 5; step++) drawing.step({ step, steps: 5, rows: 2 });
    drawing.picture();
    for (let batch = 0; batch < 2; batch++)
      for (let step = 0; step < 5; step++) drawing.step({ step, steps: 5, rows: 2 });
    drawing.picture();
    const values = shown.map(([, value]) => value);
    for (const [i, value] of values.entries()) expect(value).toBeGreaterThanOrEqual((values[i - 1] ?? 0) - 1e-9);
    expect(values.at(-1)).toBe(3);
    expect(new Set(shown.map(([stage, , total]) => `${stage} ${total}`))).toEqual(new Set(["drawing 3"]));
    expect(shown[3]![3]).toEqual({ count: "1/3 pictures", detail: "step 3/5" });
    expect(drawing.finished).toBe(3);
  });

  it("are told by their steps where there is only one", () => {
    const { shown, display } = recorded();
    new DrawingProgress(display, 1).step({ step: 0, steps: 4, rows: 1 });
    expect(shown).toEqual([["drawing", 0.25, 1, { count: "", detail: "step 1/4" }]]);
  });
});
