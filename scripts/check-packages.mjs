#!/usr/bin/env node
/**
 * Packs each public package into a temporary folder and lets publint and "are the types wrong" look at what a user
 * would get. ESM only: a `require` of a package is not meant to work, so that attw's profile is `esm-only`.
 *
 *   node scripts/check-packages.mjs [packages/torch ...]
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const folders = process.argv.length > 2 ? process.argv.slice(2) : ["packages/torch", "packages/miro"];
const tool = (name) => path.join(root, "node_modules", ".bin", name);

let failed = false;
for (const folder of folders) {
  const target = mkdtempSync(path.join(tmpdir(), "miro-pack-"));
  try {
    execFileSync("npm", ["pack", "--silent", "--ignore-scripts", "--pack-destination", target], {
      cwd: path.join(root, folder),
      stdio: ["ignore", "ignore", "inherit"],
    });
    const tarball = path.join(
      target,
      readdirSync(target).find((name) => name.endsWith(".tgz")),
    );
    const checks = [
      ["publint", ["run", tarball, "--strict"]],
      ["attw", [tarball, "--profile", "esm-only", "--format", "ascii", "--no-emoji"]],
    ];
    for (const [name, args] of checks) {
      const { status, stdout, stderr, error } = spawnSync(tool(name), args, { cwd: root, encoding: "utf8" });
      if (status === 0) {
        console.log(`${folder}: ${name} finds nothing`);
      } else {
        failed = true;
        console.error(`${folder}: ${name} failed\n${error?.message ?? `${stdout}${stderr}`}`);
      }
    }
  } finally {
    rmSync(target, { recursive: true, force: true });
  }
}
process.exitCode = failed ? 1 : 0;
