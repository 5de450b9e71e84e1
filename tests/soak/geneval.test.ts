import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { contents, differences, runMiro } from "./kill-and-restart.js";

const folder = mkdtempSync(join(tmpdir(), "miro-kill-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const command = (name: string, ...more: string[]) => [
  ...["evaluate", "geneval", "--prompts", "emoji", "--prompt-range", "18-21", "--n-samples", "2", "--steps", "1"],
  ...["--outdir", join(folder, name), "--json", ...more],
];
const files = (name: string) => contents(join(folder, name));
let wholeMs = 0;

beforeAll(async () => {
  const whole = await runMiro(command("whole"));
  expect(whole).toMatchObject({ code: 0 });
  expect(JSON.parse(whole.stdout)).toMatchObject({ drawn: 8, detected: 8, images: 8, problems: {} });
  wholeMs = whole.ms;
});

it.each([0.45, 0.75])(
  "killed after %d of its time and started again, leaves the bytes of an undisturbed run",
  async (part) => {
    const name = `killed-${part}`;
    await runMiro(command(name), { signal: "SIGKILL", afterMs: part * wholeMs });
    expect(await runMiro(command(name))).toMatchObject({ code: 0 });
    expect(differences(files("whole"), files(name))).toEqual([]);
  },
);

it("two processes share the work, and nothing is done twice", async () => {
  const both = await Promise.all([runMiro(command("shared")), runMiro(command("shared"))]);
  expect(both.map(({ code }) => code)).toEqual([0, 0]);
  const reports = both.map(({ stdout }) => JSON.parse(stdout) as { drawn: number; detected: number; overall: number });
  expect(reports[0]!.drawn + reports[1]!.drawn).toBe(8);
  expect(reports[0]!.detected + reports[1]!.detected).toBe(8);
  expect(reports[0]!.overall).toBe(reports[1]!.overall);
  expect(differences(files("whole"), files("shared"))).toEqual([]);
});

it("two processes share a sweep and the scores of its pictures", async () => {
  const sweep = (name: string) =>
    command(name, "--prompt-range", "18-19", "--sweep", "sharpness=0,1", "--scorers", "sharpness");
  const alone = await runMiro(sweep("sweep"));
  const both = await Promise.all([runMiro(sweep("swept")), runMiro(sweep("swept"))]);
  expect(both.map(({ code, stderr }) => [code, code === 0 ? "" : stderr])).toEqual([
    [0, ""],
    [0, ""],
  ]);
  const points = ({ stdout }: { stdout: string }) =>
    (JSON.parse(stdout) as { points: { scores: unknown; overall: number }[] }).points.map(({ scores, overall }) => [
      scores,
      overall,
    ]);
  for (const one of both) expect(points(one)).toEqual(points(alone));
});

it("parts of the prompts, drawn in another order, are the same pictures", async () => {
  const part = (range: string) => command("parts", "--only", "generate", "--prompt-range", range);
  expect(await runMiro(part("20-21"))).toMatchObject({ code: 0 });
  expect(await runMiro(command("parts", "--n-samples", "1", "--only", "generate"))).toMatchObject({ code: 0 });
  expect(await runMiro(command("parts"))).toMatchObject({ code: 0 });
  for (const prompt of ["00018", "00021"])
    for (const sample of ["0000", "0001"]) {
      const path = join(prompt, "samples", `${sample}.png`);
      expect(readFileSync(join(folder, "parts", path))).toEqual(readFileSync(join(folder, "whole", path)));
    }
});
