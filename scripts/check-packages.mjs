#!/usr/bin/env node
/**
 * Packs the packages of JavaScript as they are published and lets publint and "are the types wrong" look at what a user
 * would get. ESM only: a `require` of a package is not meant to work, so that attw's profile is `esm-only`.
 *
 *   npm run check:packages
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { argumentsOf } from "./setup/command-line.mjs";

argumentsOf(import.meta.url);
const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const run = (command, args) => spawnSync(command, args, { cwd: root, encoding: "utf8" });
const tool = (name) => path.join(root, "node_modules", ".bin", name);

let failed = false;
const report = (what, { status, stdout, stderr, error }) => {
  if (status === 0) return console.log(`${what} finds nothing`);
  failed = true;
  console.error(`${what} failed\n${error?.message ?? `${stdout}${stderr}`}`);
};
const target = mkdtempSync(path.join(tmpdir(), "miro-pack-"));
try {
  report("packing", run(process.execPath, ["scripts/release/pack.mjs", "--js", "--output", target]));
  for (const name of readdirSync(target).filter((name) => name.endsWith(".tgz"))) {
    const tarball = path.join(target, name);
    report(`${name}: publint`, run(tool("publint"), ["run", tarball, "--strict"]));
    report(`${name}: attw`, run(tool("attw"), [tarball, "--profile", "esm-only", "--format", "ascii", "--no-emoji"]));
  }
} finally {
  rmSync(target, { recursive: true, force: true });
}
process.exitCode = failed ? 1 : 0;
