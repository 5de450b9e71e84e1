/** A file that is named and not there is wrong usage, exit code 2, in every command. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { runCaptured as miro } from "./testing/run-captured.js";

const before = process.cwd();
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-missing-"));
  process.chdir(folder);
});
afterAll(() => {
  process.chdir(before);
  rmSync(folder, { recursive: true, force: true });
});

it.each<[string, ...string[]]>([
  ["generate", "--prompts", "nowhere.txt"],
  ["generate", "--prompts", "nowhere.csv"],
  ["generate", "--from", "nowhere.png"],
  ["generate", "a fox", "--image", "nowhere.png"],
  ["generate", "a fox", "--init-noise", "nowhere.npy"],
  ["generate", "a fox", "--model", "./nowhere"],
  ["info", "nowhere.png"],
  ["score", "nowhere.png"],
  ["score", "--pairs", "nowhere.csv"],
  ["train", "nowhere.yaml"],
  ["train", "nowhere"],
  ["launch", "nowhere.yaml"],
  ["launch", "emoji", "--prologue", "nowhere.sh"],
  ["launch", "emoji", "--container", "nowhere.sif"],
  ["plot", "nowhere"],
  ["render", "nowhere.yaml"],
  ["convert", "nowhere", "--output", "made"],
  ["publish", "nowhere", "owner/name"],
  ["card", "nowhere"],
  ["evaluate", "parti", "nowhere.tsv"],
  ["evaluate", "geneval", "--prompts=emoji", "--images=nowhere"],
  ["testbed", "nowhere"],
  ["index", "nowhere"],
  ["preprocess", "--stage", "rewards", "--src", "nowhere"],
  ["evaluate", "rewards", "nowhere"],
])("%s %s %s %s", async (...args) => {
  const { code, stdout, stderr } = await miro(...args);
  expect(stderr).toMatch(/^error: .*nowhere[^\n]*\n$/);
  expect([code, stdout]).toEqual([2, ""]);
});

it("an output that cannot be made is told before anything is drawn, also where Node's own mkdir would never end", async () => {
  for (const output of ["/proc/none", "/proc/none/a.png"]) {
    const { code, stderr } = await miro("generate", "a fox", "--output", output);
    expect(stderr).toMatch(/^error: \/proc\/none.*: cannot be (created|written): /);
    expect(code).toBe(1);
  }
});

it("an output that ends as no picture of ours is refused, a folder of that name is taken", async () => {
  for (const output of ["fox.gif", "-"]) {
    const { code, stderr } = await miro("generate", "a fox", "--output", output);
    expect(stderr).toBe(
      `error: --output: expected a folder, or a file that ends with .png, .webp, .jpg or .jpeg, received "${output}"\n`,
    );
    expect(code).toBe(2);
  }
  writeFileSync("prompts.json", "{}");
  expect(await miro("generate", "--prompts", "prompts.json")).toMatchObject({
    code: 2,
    stderr: expect.stringMatching(/\.json is no list of prompts/),
  });
  expect(readdirSync(".")).toEqual(["prompts.json"]);
});
