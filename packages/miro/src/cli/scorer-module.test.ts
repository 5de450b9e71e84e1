/** `--scorer-module`: every command that scores takes scorers of a user. Run as users run them. */
import { execFile } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { tinyRecipeJson } from "../training/testing/tiny.js";

const program = fileURLToPath(new URL("../../bin/miro.mjs", import.meta.url));
let folder: string;

/** Runs `miro ARGS…` in the folder. */
function miro(...args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [program, ...args], { cwd: folder }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

/** The module: the mean of all values over 255, times a factor. */
function writeModule(factor = 1): void {
  writeFileSync(
    join(folder, "brightness.mjs"),
    `export default {
  key: "brightness",
  name: "mean of all values",
  description: "how bright a picture is",
  stage: "rewards",
  usesText: false,
  load: async () => ({
    name: "mean of all values",
    batchSize: 4,
    score: (images) => images.map(({ data }) => ${factor} * data.reduce((a, b) => a + b, 0) / data.length / 255),
    dispose() {},
  }),
};
`,
  );
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "miro-own-scorer-"));
  writeModule();
  mkdirSync(join(folder, "pictures"));
  for (const level of [51, 204]) {
    const create = { width: 8, height: 8, channels: 3 as const, background: { r: level, g: level, b: level } };
    await sharp({ create })
      .png()
      .toFile(join(folder, "pictures", `${level}.png`));
    writeFileSync(join(folder, "pictures", `${level}.txt`), "grey");
  }
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const own = ["--scorer-module", "brightness.mjs"];

describe("--scorer-module", { timeout: 180_000 }, () => {
  it("score: values, and again where the text of the module has changed", async () => {
    const score = async () => {
      const { code, stdout, stderr } = await miro(
        ...["score", "pictures", ...own, "--by", "brightness", "--output", "scores.csv", "--json"],
      );
      expect([code, stderr]).toEqual([0, ""]);
      return JSON.parse(stdout).images.map(({ scores }: { scores: Record<string, number> }) => scores.brightness);
    };
    expect(await score()).toEqual([0.2, 0.8]);
    const text = readFileSync(join(folder, "brightness.mjs"));
    try {
      writeModule(2);
      expect(await score()).toEqual([0.4, 1.6]);
    } finally {
      writeFileSync(join(folder, "brightness.mjs"), text);
    }
    expect(await miro("score", "pictures", "--by", "brightness")).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/--by: "brightness" is not known/),
    });
  });

  it("a module that is not there is wrong usage", async () => {
    expect(await miro("score", "pictures", "--scorer-module", "none.mjs")).toEqual({
      code: 2,
      stdout: "",
      stderr: "error: --scorer-module: none.mjs: no such file or directory\n",
    });
  });

  it("preprocess: a column of its own", async () => {
    const { code, stderr } = await miro(
      ...["preprocess", "--stage", "rewards", "--src", "pictures", "--csv-dir", "csv"],
      ...[...own, "--scorers", "brightness"],
    );
    expect([code, stderr]).toEqual([0, ""]);
    const [head, ...rows] = readFileSync(join(folder, "csv", "00000_scores.csv"), "utf8")
      .trim()
      .split("\r\n");
    expect(head).toBe("key,brightness");
    expect(rows.map((row) => row.split(",").map((cell, i) => (i === 1 ? Number(cell) : cell)))).toEqual([
      ["204", 0.8],
      ["51", 0.2],
    ]);
  });

  it("launch: the job gets the module by its whole path", async () => {
    writeFileSync(join(folder, "tiny.yaml"), JSON.stringify(tinyRecipeJson()));
    const { stdout } = await miro("launch", "tiny.yaml", "--partition", "cpu", "--print", ...own);
    expect(stdout).toContain(`--scorer-module ${join(folder, "brightness.mjs")}`);
  });

  it("evaluate rewards, generate --best-of and sweep", async () => {
    mkdirSync(join(folder, "images", "00000", "samples"), { recursive: true });
    cpSync(join(folder, "pictures", "51.png"), join(folder, "images", "00000", "samples", "0000.png"));
    writeFileSync(join(folder, "images", "00000", "metadata.jsonl"), '{"prompt": "grey"}\n');
    const rewards = await miro("evaluate", "rewards", "images", ...own, "--scorers", "brightness", "--json");
    expect(JSON.parse(rewards.stdout)).toMatchObject({ brightness: 0.2 });

    const draw = ["a fox", "--steps", "1", "--guidance", "1", "--threads", "1", "--json", ...own];
    const best = await miro("generate", ...draw, "--best-of", "2", "--by", "brightness", "--output", "best");
    const [{ score, candidates }] = JSON.parse(best.stdout).images;
    expect(candidates.map(({ scores }: { scores: object }) => Object.keys(scores))).toEqual([
      ["brightness"],
      ["brightness"],
    ]);
    expect(score).toBeGreaterThan(0);
    expect(score).toBeLessThan(1);
    const sweep = await miro("sweep", ...draw, "--x", "seed=0,1", "--by", "brightness", "--output", "swept");
    expect(JSON.parse(sweep.stdout).cells[0].scores.brightness).toBeGreaterThan(0);
  });
});
