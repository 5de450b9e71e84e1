import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { encodePng } from "../../../pictures/png.js";
import { type Failure, failureSheet } from "./failure-sheet.js";

const folder = mkdtempSync(join(tmpdir(), "miro-failures-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("has room for many failures of prompts that are as long as books", async () => {
  writeFileSync(join(folder, "a.png"), encodePng(new Uint8Array(3 * 8 * 8).fill(90), 8, 8));
  const failure = (tag: string): Failure => ({
    path: "a.png",
    tag,
    prompt: "a zebra in tall golden grass ".repeat(700),
    reason: "expected zebra>=1, found 0",
    objects: [],
  });
  const failures = Array.from({ length: 60 }, (_, i) => failure(i % 2 === 0 ? "single_object" : "counting"));
  const [few, many] = await Promise.all([6, 60].map((most) => failureSheet(folder, failures, most, "long prompts")));
  expect(many!.width).toBeGreaterThan(few!.width);
  expect(many!.height).toBeLessThan(8 * few!.height);
  expect(await failureSheet(folder, [], 6, "none")).toBeNull();
});
