import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { makeFolder } from "./make-folder.js";

const folder = mkdtempSync(join(tmpdir(), "miro-folder-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("folders are made with those above them, and the first that was new is told", () => {
  expect(makeFolder(join(folder, "a/b/c"))).toBe(join(folder, "a"));
  expect(existsSync(join(folder, "a/b/c"))).toBe(true);
  expect(makeFolder(join(folder, "a/b"))).toBeUndefined();
});

it("a file in the way and a place where no folder can be are errors, and the call ends", () => {
  writeFileSync(join(folder, "file"), "");
  for (const path of [join(folder, "file"), join(folder, "file/below"), "/proc/none", "/proc/none/below"])
    expect(() => makeFolder(path)).toThrow(/EEXIST|ENOTDIR|ENOENT|EACCES|EPERM/);
});
