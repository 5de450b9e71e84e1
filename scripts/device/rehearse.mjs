#!/usr/bin/env node
/**
 * `node scripts/device/rehearse.mjs`: packs the device check into a temporary folder and runs all of its phases there
 * on the CPU, then the benchmarks for a GPU with a tiny network, where calling npm, or a Node or module that did not
 * travel, fails. Exit code 0: all came through.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { PHASE_NAMES } from "../../tests/dist/device/phases.js";
import { chosenLibtorch } from "../setup/libtorch.mjs";

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));
/** The device check, then what a GPU is measured by, once in each way. */
const CALLS = [
  ["--device", "cpu", "--budget", "240"],
  ["bench", "sampling", "--size", "tiny", "--rounds", "1"],
  ["bench", "training", "--size", "tiny", "--rounds", "1", "--steps", "1"],
  ["bench", "checkpoint", "--size", "tiny", "--rounds", "1"],
];

const work = mkdtempSync(path.join(tmpdir(), "miro-rehearsal-"));
try {
  process.exitCode = main();
} finally {
  rmSync(work, { recursive: true, force: true });
}

function main() {
  const packed = path.join(work, "packed");
  const pack = path.join(root, "scripts", "device", "pack.mjs");
  const { status } = spawnSync(process.execPath, [pack, "--output", packed], { stdio: "inherit" });
  if (status !== 0) return 1;
  const [refusing, home, out] = ["bin", "home", "out"].map((name) => path.join(work, name));
  for (const folder of [refusing, home, out]) mkdirSync(folder);
  for (const name of ["node", "npm", "npx"]) {
    writeFileSync(path.join(refusing, name), `#!/bin/sh\necho "${name} is not to be called here" >&2\nexit 1\n`);
    chmodSync(path.join(refusing, name), 0o755);
  }
  const env = {
    PATH: `${refusing}:${process.env.PATH}`,
    HOME: home,
    LIBTORCH: chosenLibtorch({ root, env: process.env }).folder,
    OUT: out,
    WORK: path.join(work, "unpacked"),
    ...(process.env.CXX && { CXX: process.env.CXX }),
    ...(process.env.OMP_NUM_THREADS && { OMP_NUM_THREADS: process.env.OMP_NUM_THREADS }),
  };
  for (const call of CALLS) {
    const run = spawnSync("bash", [path.join(packed, "run.sh"), ...call], { cwd: work, env, stdio: "inherit" });
    if (run.status === 0) continue;
    console.error(`run.sh ${call.join(" ")} failed`);
    return 1;
  }
  for (const [, name] of CALLS.slice(1)) {
    if (existsSync(path.join(out, `${name}-tiny.json`))) continue;
    console.error(`the figures of ${name} did not come back`);
    return 1;
  }
  const { phases } = JSON.parse(readFileSync(path.join(out, "results.json"), "utf8"));
  const [ran, all] = [phases.map(({ name }) => name), PHASE_NAMES].map((names) => names.join());
  if (ran === all) return 0;
  console.error(`results.json holds the phases ${ran}, not ${all}`);
  return 1;
}
