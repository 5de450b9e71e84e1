import { expect, it } from "vitest";
import { runCaptured } from "./testing/run-captured.js";

it("a table for people has a line for each number of pictures, and --json the same figures", async () => {
  const flags = ["bench", "--steps", "2", "--rounds", "1", "--batches", "1,2"];
  const shown = await runCaptured(...flags);
  expect(shown.code, shown.stderr).toBe(0);
  expect(shown.stdout).toMatch(/^the bundled model \(cpu, \d+ threads?, float32\), loaded in \d/);
  expect(shown.stdout.split("\n").filter((line) => /^ +[12] {2,}\d/.test(line))).toHaveLength(2);
  const { speeds, ...run } = JSON.parse((await runCaptured(...flags, "--json")).stdout);
  expect(run).toMatchObject({ device: "cpu", dtype: "float32" });
  expect(speeds.map((speed: { batch: number; steps: number }) => [speed.batch, speed.steps])).toEqual([
    [1, 2],
    [2, 2],
  ]);
});

it("a number of pictures that is none is refused by its flag", async () => {
  const { code, stderr } = await runCaptured("bench", "--batches", "1,two");
  expect(code).toBe(2);
  expect(stderr).toMatch(/^error: --batches: expected integers of at least 1.*, received "1,two"$/m);
});
