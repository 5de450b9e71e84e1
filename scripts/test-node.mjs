#!/usr/bin/env node
/**
 * Runs tests on other releases of Node. The binaries come from the npm package `node` and are kept in .cache/node.
 *
 *   npm run test:node                      the unit tests on every supported release but the one that is running
 *   npm run test:node -- 22                on one release
 *   npm run test:node -- 22 24 -- PATH     other tests
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { argumentsOf } from "./setup/command-line.mjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
/** The oldest release that `engines` allows, and the newest of each later line. */
const RELEASES = ["20.19.0", "22", "24", "26"];

/** Whether this Node is of the line that a release names; it has `npm test` for that. */
const isRunning = (release) =>
  release === process.versions.node.split(".").slice(0, release.split(".").length).join(".");

argumentsOf(import.meta.url, {}, true);
const given = process.argv.slice(2);
const cut = given.includes("--") ? given.indexOf("--") : given.length;
const releases = cut > 0 ? given.slice(0, cut) : RELEASES.filter((release) => !isRunning(release));
const tests = given.length > cut + 1 ? given.slice(cut + 1) : ["--project", "unit"];
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
