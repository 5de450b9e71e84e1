#!/usr/bin/env node
/**
 * `node scripts/device/rehearse.mjs`: packs the device check into a temporary folder and runs it there on the CPU,
 * where calling npm, or a Node that did not travel, fails. Exit code 0: it came through.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { chosenLibtorch } from "../setup/libtorch.mjs";

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));
const PHASES = "smoke,parity";
const BUDGET_SECONDS = 60;

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
    ...(process.env.CXX && { CXX: process.env.CXX }),
    ...(process.env.OMP_NUM_THREADS && { OMP_NUM_THREADS: process.env.OMP_NUM_THREADS }),
  };
  const args = ["--device", "cpu", "--only", PHASES, "--budget", String(BUDGET_SECONDS)];
  const run = spawnSync("bash", [path.join(packed, "run.sh"), ...args], { cwd: work, env, stdio: "inherit" });
  if (run.status !== 0) return 1;
  const { phases } = JSON.parse(readFileSync(path.join(out, "results.json"), "utf8"));
  const ran = phases.map(({ name }) => name).join();
  if (ran === PHASES) return 0;
  console.error(`results.json holds the phases ${ran}, not ${PHASES}`);
  return 1;
}
