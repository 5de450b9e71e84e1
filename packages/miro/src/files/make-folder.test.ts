import fs, { existsSync, mkdtempSync, readdirSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it, vi } from "vitest";
import { createFolder, makeFolder, makeFolderAside, removeIfEmpty } from "./make-folder.js";

const folder = mkdtempSync(join(tmpdir(), "miro-folder-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("folders are made with those above them, and the first that was new is told", () => {
  expect(makeFolder(join(folder, "a/b/c"))).toBe(join(folder, "a"));
  expect(existsSync(join(folder, "a/b/c"))).toBe(true);
  expect(makeFolder(join(folder, "a/b"))).toBeUndefined();
  expect(() => createFolder("")).toThrow(/^expected the name of a folder, received ""$/);
});

it.each([
  ["at once", async (path: string) => makeFolder(path)],
  ["beside the event loop", makeFolderAside],
])("folders that were made %s and stayed empty are removed, and no others", async (_, make) => {
  const top = join(folder, "top");
  const path = join(top, "b", "c");
  const made = await make(path);
  expect(made).toBe(top);
  removeIfEmpty(path, made);
  expect(readdirSync(folder)).not.toContain("top");
  expect(await make(top)).toBe(top);
  const below = await make(path);
  expect(below).toBe(join(top, "b"));
  removeIfEmpty(path, below);
  expect(readdirSync(top)).toEqual([]);
  removeIfEmpty(top, await make(top));
  expect(existsSync(top)).toBe(true);
  await make(path);
  writeFileSync(join(top, "b", "file"), "");
  removeIfEmpty(path, top);
  expect(readdirSync(join(top, "b"))).toEqual(["file"]);
  rmSync(top, { recursive: true });
});

it("a folder above that another process removes meanwhile is made again", () => {
  const mkdir = fs.mkdirSync;
  const made = vi.spyOn(fs, "mkdirSync").mockImplementationOnce((path) => {
    rmdirSync(join(folder, "shared"));
    return mkdir(path) as undefined;
  });
  mkdir(join(folder, "shared"));
  expect(makeFolder(join(folder, "shared", "own"))).toBe(join(folder, "shared"));
  expect(made).toHaveBeenCalledTimes(3);
  made.mockRestore();
  expect(readdirSync(join(folder, "shared"))).toEqual(["own"]);
});

it("a file in the way and a place where no folder can be are errors, and the call ends", () => {
  writeFileSync(join(folder, "file"), "");
  for (const path of [join(folder, "file"), join(folder, "file/below"), "/proc/none", "/proc/none/below"])
    expect(() => makeFolder(path)).toThrow(/EEXIST|ENOTDIR|ENOENT|EACCES|EPERM/);
});
