import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { missingSamples, readImageFolder, samplePath } from "./image-folder.js";

const folder = mkdtempSync(join(tmpdir(), "miro-folder-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const put = (path: string, text = "") => {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  writeFileSync(join(folder, path), text);
};

it("names are read whole and in numerical order, whatever their zeros", () => {
  const record = '{"tag": "x", "include": [], "prompt": "a"}';
  for (const name of ["10", "00002", "9"]) put(`${name}/metadata.jsonl`, `${record}\n`);
  for (const name of ["10.png", "0002.png", "9.JPG", "1.webp", "0001.png", "3.png.bak", "x.png", ".hidden"])
    put(`9/samples/${name}`);
  put("10/samples/0000.png");
  put("00002/samples/0.png");
  put("3a/metadata.jsonl", record);
  const { prompts, problems } = readImageFolder(folder);
  expect(prompts.map(({ index }) => index)).toEqual([2, 9, 10]);
  expect(prompts[1]!.samples.map(({ path }) => path)).toEqual(
    ["0001.png", "0002.png", "9.JPG", "10.png"].map((name) => join("9", "samples", name)),
  );
  expect(problems.map(({ path }) => path)).toEqual([
    "3a",
    "9/samples/1.webp",
    "9/samples/3.png.bak",
    "9/samples/x.png",
  ]);
  expect(missingSamples(prompts, 2).map(({ path }) => path)).toEqual([
    samplePath(2, 1),
    samplePath(9, 0),
    samplePath(10, 1),
  ]);
});
