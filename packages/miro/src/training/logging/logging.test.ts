import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { clock } from "../../duration.js";
import { formatProgress, MetricsLog, ProgressLine } from "./logging.js";

const folder = mkdtempSync(join(tmpdir(), "miro-log-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("MetricsLog", () => {
  it("drops later lines and a cut one when it is opened at a step", () => {
    const path = join(folder, "log.jsonl");
    writeFileSync(path, '{"step":1,"loss":3}\n{"step":2,"loss":2}\n{"step":3,"loss":1}\n{"step":2,"lo');
    const log = new MetricsLog(path, 2);
    log.write({ step: 3, loss: 9 });
    log.close();
    expect(readFileSync(path, "utf8")).toBe('{"step":1,"loss":3}\n{"step":2,"loss":2}\n{"step":3,"loss":9}\n');
  });
});

describe("a log that is opened at a step", () => {
  it("is cut there, however many lines it has", () => {
    const path = join(folder, "long.jsonl");
    const lines = (to: number) => Array.from({ length: to }, (_, i) => `{"step":${i + 1},"loss":${i}}\n`).join("");
    writeFileSync(path, lines(5000));
    new MetricsLog(path, 3210).close();
    expect(readFileSync(path, "utf8")).toBe(lines(3210));
  });

  it("has once what the resumed run measures of that step once more", () => {
    const path = join(folder, "again.jsonl");
    for (let round = 0; round < 3; round++) {
      const log = new MetricsLog(path, round === 0 ? 0 : 2);
      if (round === 0) log.write({ step: 2, loss: 2, seconds: 1 });
      log.write({ step: 2, accuracy: 0.5, seconds: round });
      log.close();
    }
    const lines = ['{"step":2,"loss":2,"seconds":1}', '{"step":2,"accuracy":0.5,"seconds":0}'];
    expect(readFileSync(path, "utf8")).toBe(`${lines.join("\n")}\n`);
  });
});

describe("progress", () => {
  const now = { step: 1200, totalSteps: 6000, loss: 0.41234, imagesPerSecond: 138.2, secondsLeft: 3440 };
  it("shows step, loss, speed and time left", () => {
    expect(formatProgress(now)).toBe("step 1200/6000 · loss 0.4123 · 138 img/s · 57:20 left");
    expect(formatProgress(now, 60)).toBe(formatProgress(now));
    expect(formatProgress(now, 45)).toBe("step 1200/6000 · loss 0.4123 · 57:20 left");
    expect(formatProgress(now, 30)).toBe("step 1200/6000 · 57:20 left");
    expect([0, 59.6, 3723, Number.NaN].map(clock)).toEqual(["0:00", "1:00", "1:02:03", "?"]);
  });

  it("rewrites one line on a terminal and throttles elsewhere", () => {
    const written: string[] = [];
    const write = (text: string) => written.push(text);
    const terminal = new ProgressLine({ isTTY: true, write });
    terminal.update(now);
    terminal.say("hello");
    expect(written).toEqual(["\r\x1b[K", formatProgress(now), "\n", "hello\n"]);
    written.length = 0;
    const file = new ProgressLine({ write }, 60_000);
    file.update(now);
    file.update(now);
    expect(written).toEqual([`${formatProgress(now)}\n`]);
  });
});
