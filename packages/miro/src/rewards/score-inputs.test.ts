/** Which pictures a command line stands for. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
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
