import { execFileSync, spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { InvalidInputError, MiroError } from "../errors.js";
import { readTextFile } from "./text-file.js";
import { readBytes, readBytesAside, readJson, readLinesOf, writeFileAside, writeFileAtomic } from "./whole-files.js";
import { readYamlFile } from "./yaml-file.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-files-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("what is no regular file", () => {
  it("is read to its end where it has one, and else is an error that names it", async () => {
    const pipe = join(folder, "pipe");
    execFileSync("mkfifo", [pipe]);
    for (const read of [async (path: string) => readBytes(path), readBytesAside]) {
      const writer = spawn("sh", ["-c", `head -c 3000000 /dev/zero > ${pipe}`]);
      const closed = new Promise((resolve) => writer.on("close", resolve));
      expect((await read(pipe)).equals(Buffer.alloc(3_000_000))).toBe(true);
      await closed;
      await expect(read("/dev/zero")).rejects.toThrow(
        /^\/dev\/zero: is no regular file and has more than 268435456 bytes/,
      );
      await expect(read(folder)).rejects.toThrow(/cannot be read: /);
    }
    expect(() => readTextFile("/dev/zero")).toThrow(/is no regular file/);
    expect(() => [...readLinesOf("/dev/zero")]).toThrow(/^\/dev\/zero: is no regular file and has more than 26843/);
    expect(() => [...readLinesOf(folder)]).toThrow(/cannot be read: /);
    expect(() => readYamlFile("/dev/zero")).toThrow(/is no regular file and has more than 4194304 bytes/);
  });
});

describe.each([
  ["writeFileAtomic", async (...args: Parameters<typeof writeFileAtomic>) => writeFileAtomic(...args)],
  [
    "writeFileAside",
    (path: string, data: Uint8Array | string, options?: Parameters<typeof writeFileAside>[2]) =>
      writeFileAside(path, Buffer.from(data as string), options),
  ],
])("%s", (_, write) => {
  it("creates folders and leaves nothing beside the file", async () => {
    const path = join(folder, "a", "b", "c.bin");
    await write(path, Uint8Array.of(1, 2, 3));
    expect([...readFileSync(path)]).toEqual([1, 2, 3]);
    expect(readdirSync(join(folder, "a", "b"))).toEqual(["c.bin"]);
  });

  it("refuses to replace a file unless told to", async () => {
    const path = join(folder, "x");
    await write(path, "old");
    await expect(write(path, "new")).rejects.toThrow(InvalidInputError);
    expect(readFileSync(path, "utf8")).toBe("old");
    await write(path, "new", { overwrite: true, mode: 0o600 });
    expect(readFileSync(path, "utf8")).toBe("new");
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readdirSync(folder)).toEqual(["x"]);
  });

  it("names the file when the disk refuses, and leaves nothing", async () => {
    // a name longer than file systems allow
    await expect(write(join(folder, "n".repeat(300)), "x")).rejects.toThrow(MiroError);
    writeFileSync(join(folder, "file"), "");
    await expect(write(join(folder, "file", "below"), "x")).rejects.toThrow(
      /file\/below: cannot be written: a part of/,
    );
    await expect(write(join(folder, "file", "b", "c"), "x")).rejects.toThrow(/file\/b\/c: cannot be written: /);
    await expect(write("/proc/nothing/x", "x")).rejects.toThrow(/^\/proc\/nothing\/x: cannot be written: /);
    expect(readdirSync(folder)).toEqual(["file"]);
  });

  it("lets several files appear in a folder that none of them found", async () => {
    const paths = Array.from({ length: 8 }, (_, i) => join(folder, "new", "folder", `${i}`));
    await Promise.all(paths.map((path) => write(path, "x")));
    expect(readdirSync(join(folder, "new", "folder"))).toHaveLength(8);
  });

  it.skipIf(process.getuid?.() === 0)("says when permission is missing", async () => {
    chmodSync(folder, 0o500);
    await expect(write(join(folder, "x"), "x")).rejects.toThrow(/permission denied/);
    chmodSync(folder, 0o700);
  });
});

describe("reading", () => {
  it("gives the lines of a file however they lie in what is read at once, and whatever their length", () => {
    const path = join(folder, "lines");
    const block = 2 ** 20;
    // Lengths in bytes with the end of the line; ä has two, which a block may divide.
    for (const lengths of [[], [1], [block], [block - 1, 3, 1], [block + 1, block], [3 * block + 5, 1, 1, 7]]) {
      const lines = lengths.map((length) => `${"ä".repeat((length - 1) >> 1)}${(length - 1) % 2 === 1 ? "x" : ""}`);
      writeFileSync(path, lines.map((line) => `${line}\n`).join(""));
      expect([...readLinesOf(path)].map((line, i) => line === lines[i])).toEqual(lines.map(() => true));
      writeFileSync(path, `${lines.map((line) => `${line}\n`).join("")}cut`);
      expect([...readLinesOf(path)].map((line, i) => line === (lines[i] ?? "cut"))).toEqual([
        ...lines.map(() => true),
        true,
      ]);
    }
  });

  it("names the file that is missing or no JSON", async () => {
    const path = join(folder, "config.json");
    expect(() => readBytes(path)).toThrow(`${path}: cannot be read: no such file or directory`);
    await expect(readBytesAside(path)).rejects.toThrow(`${path}: cannot be read: no such file or directory`);
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

  it("reads JSON however many escapes a text of it holds", () => {
    const path = join(folder, "escapes.json");
    const text = '"\n'.repeat(5_000_000);
    writeFileSync(path, JSON.stringify({ text }));
    expect(readJson(path)).toEqual({ text });
  });
});
