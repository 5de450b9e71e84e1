import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { link } from "./hub-cache.js";

let cache: string;
beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), "miro-hub-cache-"));
  mkdirSync(join(cache, "blobs"));
  writeFileSync(blob(), "contents");
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(cache, { recursive: true, force: true });
});

const blob = () => join(cache, "blobs", "abcd");
const folder = () => join(cache, "snapshots", "1");
const path = () => join(folder(), "model.bin");

describe.each([["a link"], ["a file of its own"]])("a file of a snapshot that is %s", (kind) => {
  beforeEach(() => vi.stubEnv("HF_HUB_DISABLE_SYMLINKS", kind === "a link" ? "0" : "1"));

  it("may be brought again, by another process too", async () => {
    for (let round = 0; round < 2; round++) {
      await Promise.all([link(blob(), path()), link(blob(), path())]);
      expect([readdirSync(folder()), readFileSync(path(), "utf8")]).toEqual([["model.bin"], "contents"]);
      expect(lstatSync(path()).isSymbolicLink()).toBe(kind === "a link");
    }
    if (kind !== "a link") expect(statSync(path()).ino).toBe(statSync(blob()).ino);
  });
});

it("a file of a snapshot is there all the time while it is brought again", async () => {
  vi.stubEnv("HF_HUB_DISABLE_SYMLINKS", "1");
  await link(blob(), path());
  rmSync(blob());
  await expect(link(blob(), path())).rejects.toThrow(/model\.bin: cannot be written: no such file/);
  expect([readdirSync(folder()), readFileSync(path(), "utf8")]).toEqual([["model.bin"], "contents"]);
});
