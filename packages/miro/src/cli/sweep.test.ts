import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readBytes, readJson } from "../files/whole-files.js";
import { readPng } from "../pictures/png.js";
import { type Captured, runCaptured } from "./testing/run-captured.js";

const tiny = fileURLToPath(new URL("../../../../tests/reference/fixtures/tiny", import.meta.url));
const model = ["--model", `${tiny}/checkpoint`, "--text-encoder", `${tiny}/text_encoder`, "--vae", `${tiny}/vae`];
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-sweep-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function sweep(...args: string[]): Promise<Captured> {
  return runCaptured("sweep", ...args, ...model, "--steps", "2", "--output", folder);
}

describe("miro sweep", () => {
  it("writes one sheet, one JSON file and every picture, and says the same on stdout", async () => {
    const result = await sweep(
      "a cat",
      "two dogs",
      "--x",
      "guidance=0,2",
      "--by",
      "sharpness",
      "--images",
      "2",
      "--json",
    );
    expect(result).toMatchObject({ code: 0, stderr: "" });
    const pictures = ["r1-c1-1", "r1-c1-2", "r1-c2-1", "r1-c2-2", "r2-c1-1", "r2-c1-2", "r2-c2-1", "r2-c2-2"];
    expect(readdirSync(folder).sort()).toEqual([...pictures.map((name) => `${name}.png`), "sheet.png", "sweep.json"]);
    const json = readJson(join(folder, "sweep.json")) as { x: unknown; y: unknown; cells: { images: unknown[] }[] };
    expect(JSON.parse(result.stdout)).toEqual(json);
    expect(json).toMatchObject({ x: { name: "guidance", values: [0, 2] }, y: { name: "prompt" } });
    expect(json.cells.map(({ images }) => images.length)).toEqual([2, 2, 2, 2]);
    const sheet = readPng(readBytes(join(folder, "sheet.png")), "sheet.png");
    expect(sheet.width).toBeGreaterThan(2 * 64);
    // The folder is scored picture by picture; the sheet is none of them, and that is said.
    const scored = await runCaptured("score", folder, "--by", "sharpness", "--json");
    expect(scored).toMatchObject({
      code: 0,
      stderr: `warning: left out: 1 sheet of several pictures: ${folder}/sheet.png\n`,
    });
    const { images } = JSON.parse(scored.stdout) as { images: { path: string }[] };
    expect(images.map(({ path }) => path)).toEqual(pictures.map((name) => join(folder, `${name}.png`)));
  });

  it("keeps pictures that are there, and refuses to mix in those of other settings", async () => {
    expect((await sweep("a cat", "--x", "seed=0,1")).code).toBe(0);
    const first = readBytes(join(folder, "r1-c2.png"));
    expect((await sweep("a cat", "--x", "seed=0:2")).code).toBe(0);
    expect(readBytes(join(folder, "r1-c2.png")).equals(first)).toBe(true);
    const other = await sweep("a dog", "--x", "seed=0,1");
    expect(other).toMatchObject({ code: 2, stderr: expect.stringMatching(/r1-c1\.png: is another picture: prompt/) });
    expect((await sweep("a dog", "--x", "seed=0,1", "--overwrite")).code).toBe(0);
  });

  it.each([
    [["a cat"], /required option '--x <axis=values>'/],
    [["a cat", "--x", "colour=1"], /--x: expected one of the axes/],
    [["a cat", "--x", "steps=1,2", "--images", "0"], /--images: expected an integer of at least 1/],
    [["a cat", "--x", "reward.beauty=0,1"], /--reward: this checkpoint was not trained on beauty/],
    [["a cat", "--x", "seed=0", "--by", "beauty"], /--by: "beauty" is not known/],
    [["a cat", "--x", "seed=0", "--by", "sharpness,emoji_clip_score"], /--by: emoji_clip_score was trained on emoji/],
    [["a cat", "--x", "variant=main,small"], /^error: --variant: \S+ has no variant "small", and no others$/m],
    [["a cat", " ", "--x", "seed=0"], /^error: PROMPT: expected a text, received an empty one$/m],
    [["a cat", "b", "--x", "seed=0", "--y", "guidance=0"], /PROMPT: expected one prompt/],
  ])("refuses %j in one line", async (args, message) => {
    const { code, stdout, stderr } = await sweep(...args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd()).not.toContain("\n");
    expect(readdirSync(folder)).toEqual([]);
  });
});
