import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { InvalidInputError, MiroError } from "../errors.js";
import { readBytes, readJson, writeFileAtomic } from "./files.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-files-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("writeFileAtomic", () => {
  it("creates folders and leaves nothing beside the file", () => {
    const path = join(folder, "a", "b.bin");
    writeFileAtomic(path, Uint8Array.of(1, 2, 3));
    expect([...readFileSync(path)]).toEqual([1, 2, 3]);
    expect(readdirSync(join(folder, "a"))).toEqual(["b.bin"]);
  });

  it("refuses to replace a file unless told to", () => {
    const path = join(folder, "x");
    writeFileAtomic(path, "old");
    expect(() => writeFileAtomic(path, "new")).toThrow(InvalidInputError);
    expect(readFileSync(path, "utf8")).toBe("old");
    writeFileAtomic(path, "new", { overwrite: true });
    expect(readFileSync(path, "utf8")).toBe("new");
    expect(readdirSync(folder)).toEqual(["x"]);
  });

  it("names the file when the disk refuses, and leaves nothing", () => {
    // a name longer than file systems allow
    expect(() => writeFileAtomic(join(folder, "n".repeat(300)), "x")).toThrow(MiroError);
    writeFileSync(join(folder, "file"), "");
    expect(() => writeFileAtomic(join(folder, "file", "below"), "x")).toThrow(/file\/below: cannot be written: /);
    expect(readdirSync(folder)).toEqual(["file"]);
  });

  it.skipIf(process.getuid?.() === 0)("says when permission is missing", () => {
    chmodSync(folder, 0o500);
    expect(() => writeFileAtomic(join(folder, "x"), "x")).toThrow(/permission denied/);
    chmodSync(folder, 0o700);
  });
});

describe("reading", () => {
  it("names the file that is missing or no JSON", () => {
    const path = join(folder, "config.json");
    expect(() => readBytes(path)).toThrow(`${path}: cannot be read: no such file or directory`);
    writeFileSync(path, '{\n  "a": 1,\n}');
    expect(() => readJson(path)).toThrow(`${path}: not valid JSON: `);
  });
});
