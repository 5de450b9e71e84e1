import { mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { InvalidInputError, MiroError } from "../errors.js";
import { behindLinks, proveWritable, withoutParents } from "./writable.js";

const folder = mkdtempSync(join(tmpdir(), "miro-writable-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
mkdirSync(join(folder, "there"));
writeFileSync(join(folder, "file"), "");

it("what can be written is proven without a trace", () => {
  for (const path of ["a", "a/b/c", "there", "there/a"]) proveWritable(join(folder, path), "folder", "output");
  for (const path of ["a", "a/b", "there/a", "file"]) proveWritable(join(folder, path), "file", "output");
  proveWritable("/dev/null", "file", "output");
  expect([readdirSync(folder).sort(), readdirSync(join(folder, "there"))]).toEqual([["file", "there"], []]);
});

it("a file in the place of a folder, and the reverse, are wrong usage that names the option", () => {
  for (const [path, kind] of [
    ["file", "folder"],
    ["file/a/b", "folder"],
    ["file/a", "file"],
    ["there", "file"],
  ] as const) {
    const prove = () => proveWritable(join(folder, path), kind, "output");
    expect(prove).toThrow(InvalidInputError);
    expect(prove).toThrow(/^output: .*(?:is a file, not a folder|is a folder, expected a file)$/);
  }
});

it("what the system refuses is told with its reason", () => {
  const prove = () => proveWritable("/proc/none/a", "folder", "output");
  expect(prove).toThrow(MiroError);
  expect(prove).not.toThrow(InvalidInputError);
  expect(prove).toThrow(/^output: \/proc\/none\/a cannot be created: ./);
});

it("a file is written where a link leads to, and what is no file is left to be told", () => {
  mkdirSync(join(folder, "places", "far"), { recursive: true });
  const at = (name: string) => join(folder, "places", name);
  writeFileSync(at("far/file"), "");
  symlinkSync("far/file", at("link"));
  symlinkSync("link", at("second"));
  symlinkSync(at("far/none"), at("dangling"));
  symlinkSync("circle", at("circle"));
  symlinkSync("far", at("folder"));
  symlinkSync("/dev/null", at("device"));
  expect(["link", "second", "far/file"].map((name) => behindLinks(at(name)))).toEqual(Array(3).fill(at("far/file")));
  expect(behindLinks(at("dangling"))).toBe(at("far/none"));
  expect(() => behindLinks(at("circle"))).toThrow(/ELOOP/);
  for (const name of ["folder", "device", "none"]) expect(behindLinks(at(name))).toBe(at(name));
});

it("a path without its parents is the place that the system takes it for", () => {
  mkdirSync(join(folder, "far", "away"), { recursive: true });
  symlinkSync(join(folder, "far", "away"), join(folder, "link"));
  symlinkSync(join(folder, "none"), join(folder, "dangling"));
  const real = realpathSync(folder);
  const places: [string, string][] = [
    [`${folder}/link/../out`, join(real, "far", "out")],
    [`${folder}/link/a/../../out`, join(real, "far", "out")],
    [`${folder}/there/../out`, join(folder, "out")],
    [`${folder}/missing/../out`, join(folder, "out")],
    [`${folder}/dangling/../out`, join(folder, "out")],
    [`${folder}/file/a/../../out`, join(folder, "out")],
    [`${folder}/link/out/`, `${folder}/link/out/`],
    ["../../out", "../../out"],
    ["/../out", "/out"],
    ["", ""],
  ];
  for (const [path, place] of places) expect(withoutParents(path), path).toBe(place);
});
