/** Which pictures a command line stands for. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { afterAll, expect, it } from "vitest";
import { askedPictures } from "./score-inputs.js";

const folder = mkdtempSync(join(tmpdir(), "miro-inputs-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("pairs come behind the pictures that are named, however many they are", () => {
  const pairs = join(folder, "pairs.jsonl");
  writeFileSync(pairs, '{"image":"b.png","prompt":"a fox"}\n'.repeat(200_000));
  const asked = askedPictures(["a.png"], { pairs });
  expect(asked.length).toBe(200_001);
  expect(asked[0]).toMatchObject({ path: "a.png", prompt: null });
  expect(asked.at(-1)).toMatchObject({ prompt: "a fox", unlessSheet: false });
});

it("a path of a pair is relative to its file, and is named from where the program runs, as the file is", () => {
  writeFileSync(join(folder, "beside.png"), "");
  const pairs = join(folder, "beside.csv");
  const absolute = join(folder, "elsewhere.png");
  writeFileSync(pairs, `image,prompt\nbeside.png,a fox\n${absolute},a cat\n`);
  const paths = (file: string) => askedPictures([], { pairs: file }).map(({ path }) => path);
  expect(paths(pairs)).toEqual([join(folder, "beside.png"), absolute]);
  const near = relative(resolve("."), pairs);
  expect(paths(near)).toEqual([relative(resolve("."), join(folder, "beside.png")), absolute]);
});

it("a file without pairs is named", () => {
  const pairs = join(folder, "none.csv");
  for (const text of ["", "image,prompt\n"]) {
    writeFileSync(pairs, text);
    expect(() => askedPictures(["a.png"], { pairs })).toThrow(/none\.csv: (?:line 1: expected columns|holds no pairs)/);
  }
});
