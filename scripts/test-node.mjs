#!/usr/bin/env node
/**
 * Runs tests on other releases of Node. The binaries come from the npm package `node` and are kept in .cache/node.
 *
 *   npm run test:node                      the engine's unit tests on every release that is supported, the oldest exactly
 *   npm run test:node -- 22                on one release
 *   npm run test:node -- 22 24 -- PATH     other tests
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
/** The floor that `engines` names, and the newest of each line. */
const RELEASES = ["20.19.0", "20", "22", "24", "26"];
/** Every kind of call into the addon, threads, files and the imports; about half a minute a release. */
const TESTS = [
  "packages/torch/src/tensor.test.ts",
  "packages/torch/src/scope.test.ts",
  "packages/torch/src/memory.test.ts",
  "packages/torch/src/threads.test.ts",
  "packages/torch/src/autograd.test.ts",
  "packages/torch/src/random.test.ts",
  "packages/torch/src/nn",
  "packages/torch/src/io/npy.test.ts",
  "packages/torch/src/io/safetensors.test.ts",
  "packages/miro/src/pictures",
  "tests/cold-import.test.ts",
];

const given = process.argv.slice(2);
const cut = given.includes("--") ? given.indexOf("--") : given.length;
const releases = cut > 0 ? given.slice(0, cut) : RELEASES;
const tests = given.length > cut + 1 ? given.slice(cut + 1) : TESTS;
const wrong = releases.find((release) => !/^\d+(\.\d+){0,2}$/.test(release));
if (wrong !== undefined) {
  console.error(`test:node: expected releases of Node such as 22 or 20.19.0, got ${wrong}`);
  process.exit(2);
}

/** The binary of a release; installed when it is not there yet. */
function binary(release) {
  const home = path.join(root, ".cache", "node", release);
  const file = path.join(home, "node_modules", "node", "bin", "node");
  if (existsSync(file)) return file;
  mkdirSync(home, { recursive: true });
  const options = ["--prefix", home, "--no-audit", "--no-fund", "--no-save"];
  const { status } = spawnSync("npm", ["install", ...options, `node@${release}`], { stdio: ["ignore", 2, 2] });
  if (status !== 0 || !existsSync(file)) throw new Error(`test:node: node@${release} could not be installed`);
  return file;
}

const failed = [];
for (const release of releases) {
  const node = binary(release);
  const version = spawnSync(node, ["--version"], { encoding: "utf8" }).stdout.trim();
  console.log(`== Node ${version}`);
  const vitest = path.join(root, "node_modules", "vitest", "vitest.mjs");
  // Tests that start "node" by name get the same one.
  const env = { ...process.env, PATH: `${path.dirname(node)}${path.delimiter}${process.env.PATH}` };
  const { status } = spawnSync(node, [vitest, "run", ...tests], { cwd: root, env, stdio: "inherit" });
  if (status !== 0) failed.push(version);
}
if (failed.length > 0) console.error(`test:node: failed on ${failed.join(", ")}`);
process.exitCode = failed.length > 0 ? 1 : 0;
