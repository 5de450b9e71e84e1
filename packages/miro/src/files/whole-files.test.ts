import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { InvalidInputError, MiroError } from "../errors.js";
import { readBytes, readJson, writeFileAtomic } from "./whole-files.js";

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

  it("takes JSON in UTF-8 with and without a mark and in UTF-16, and no other encoding", () => {
    const path = join(folder, "config.json");
    const text = '{"name":"café"}';
    const utf16 = Buffer.from(`\ufeff${text}`, "utf16le");
    for (const bytes of [Buffer.from(text), Buffer.from(`\ufeff${text}`), utf16, Buffer.from(utf16).swap16()]) {
      writeFileSync(path, bytes);
      expect(readJson(path)).toEqual({ name: "café" });
    }
    writeFileSync(path, Buffer.from(text, "latin1"));
    expect(() => readJson(path)).toThrow(`${path}: is not UTF-8 text: 0xe9 at byte 12`);
  });

  it("refuses JSON in which a key stands twice in one object, however it is written", () => {
    const path = join(folder, "config.json");
    writeFileSync(path, '{"a":{"b":1},"c":[{"b":1},{"b":":","\\u0062":2}]}');
    expect(() => readJson(path)).toThrow(`${path}: the key "b" stands twice in one object`);
    writeFileSync(path, '{"a":{"b":1},"b":["b","b"],"c":{"b":"\\"b\\":"}}');
    expect(readJson(path)).toMatchObject({ b: ["b", "b"] });
  });
});
