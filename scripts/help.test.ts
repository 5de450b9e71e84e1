/**
 * Every program that package.json names helps with `--help`, and does nothing else: it runs without the permission to
 * write a file or to start another program.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";

const root = path.resolve(import.meta.dirname, "..");
const scripts = ["", "packages/torch", "packages/miro"].flatMap((folder) => {
  const manifest = JSON.parse(readFileSync(path.join(root, folder, "package.json"), "utf8"));
  return Object.values((manifest.scripts ?? {}) as Record<string, string>);
});
/** The calls of our own programs; those of others (`vitest`, `biome`) help by themselves. */
const programs = [...new Set(scripts.flatMap((script) => script.split("&&").map((part) => part.trim())))]
  .filter((call) => call.startsWith("node "))
  .map((call) => call.slice("node ".length));

const permission = process.allowedNodeEnvironmentFlags.has("--permission")
  ? "--permission"
  : "--experimental-permission";
const sandbox = [permission, "--allow-fs-read=*", "--allow-addons", "--no-warnings"];

it("are more than a few", () => {
  expect(programs.length).toBeGreaterThan(15);
});

it.each(programs)("node %s --help", (call) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...sandbox, ...call.split(" "), "--help"], {
    cwd: root,
    encoding: "utf8",
  });
  expect([status, stderr]).toEqual([0, ""]);
  expect(stdout.split("\n").length).toBeGreaterThan(3);
});

it("a wrong argument is one line and exit code 2, and nothing is done", () => {
  for (const call of programs) {
    if (/bin\/miro|dist\//.test(call)) continue; // tests of their own
    const { status, stdout, stderr } = spawnSync(process.execPath, [...sandbox, ...call.split(" "), "--nonsense"], {
      cwd: root,
      encoding: "utf8",
    });
    expect([call, status, stdout]).toEqual([call, 2, ""]);
    expect(stderr).toMatch(/^[^\n]*--nonsense[^\n]*\n$/);
  }
}, 120_000);
