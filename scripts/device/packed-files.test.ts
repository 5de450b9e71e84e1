// Which modules the packed device check takes with it.
import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { neededModules, packedFiles } from "./packed-files.mjs";

const root = path.resolve(import.meta.dirname, "..", "..");
const lock = JSON.parse(readFileSync(path.join(root, "package-lock.json"), "utf8")).packages;

test("a module is found where Node finds it, with what it needs in turn", () => {
  const packages = {
    "packages/a": { dependencies: { b: "1", heavy: "1" }, optionalDependencies: { "not-installed": "1" } },
    "node_modules/b": { dependencies: { c: "1", a: "1" } },
    "node_modules/b/node_modules/c": { dependencies: { d: "1" } },
    "node_modules/c": {},
    "node_modules/d": {},
    "node_modules/heavy": { dependencies: { e: "1" } },
    "node_modules/e": {},
    "node_modules/a": { link: true },
  };
  const needed = ["node_modules/b", "node_modules/b/node_modules/c", "node_modules/d"];
  expect(neededModules(packages, ["packages/a"], /^heavy$/)).toEqual(needed);
});

test("what the check loads travels, and nothing with native code but the addon", () => {
  const files = packedFiles(root, lock);
  for (const file of [
    "scripts/setup.mjs",
    "packages/torch/native/CMakeLists.txt",
    "tests/reference/fixtures/tiny/reference.safetensors",
    "recipes/base/data.yaml",
  ])
    expect(files).toContain(file);
  const modules = ["zod", "commander", "yaml", "csv-parse", "node-api-headers"];
  for (const name of modules) expect(files.some((file) => file.startsWith(`node_modules/${name}/`))).toBe(true);
  expect(files.filter((file) => /\.(node|so)$/.test(file) && !file.startsWith("packages/torch/build/"))).toEqual([]);
});
