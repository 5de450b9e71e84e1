import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { RunLock } from "./run-lock.js";

const root = mkdtempSync(join(tmpdir(), "miro-run-lock-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

it("a training that wrote nothing leaves no folder behind, one that wrote something does", async () => {
  const empty = join(root, "refused");
  (await RunLock.acquire(empty)).release();
  expect(existsSync(empty)).toBe(false);

  const used = join(root, "run");
  const lock = await RunLock.acquire(used);
  writeFileSync(join(used, "recipe.yaml"), "name: x\n");
  lock.release();
  expect(existsSync(join(used, "recipe.yaml"))).toBe(true);
});

it("a folder that was there before stays, empty as it is", async () => {
  const own = join(root, "own");
  mkdirSync(own);
  (await RunLock.acquire(own)).release();
  expect(existsSync(own)).toBe(true);
});
