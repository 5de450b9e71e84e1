#!/usr/bin/env node
/**
 * The installer: brings a fresh clone to a state where `miro` and the tests run.
 *
 *   1. dependencies   node_modules as package-lock.json says (npm, as configured)
 *   2. libtorch MIRO_LIBTORCH or LIBTORCH, else an installed Python torch, else a private copy (pip, as configured)
 *   3. native addon   packages/torch/build/miro_torch.node (CMake)
 *   4. TypeScript     dist folders of the packages (tsc -b)
 *   5. studio's page  packages/miro/web (Vite)
 *
 * Plain Node, no dependencies. A step whose inputs have not changed is skipped; when all are skipped nothing is
 * printed. `--help` prints this and does nothing else. `--only libtorch,addon` looks at these steps alone, as a machine
 * without npm needs it. Writes to stderr only: the steps, the addon's files as they are compiled, and now and then how
 * long a step has been at work. Exit code 0 or 1; 2 for wrong usage.
 *
 * Environment: MIRO_LIBTORCH or LIBTORCH (folder with libtorch's lib/ and include/), MIRO_CACHE (where the private copy
 * of libtorch goes; default ${XDG_CACHE_HOME:-~/.cache}/miro-t2i), MIRO_PYTHON (default python3), CXX, CMAKE,
 * MIRO_JOBS.
 */
import { mkdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { argumentsOf } from "./setup/command-line.mjs";
import { dependenciesStep } from "./setup/dependencies.mjs";
import { libtorchStep } from "./setup/libtorch.mjs";
import { withLock } from "./setup/lock.mjs";
import { nativeStep } from "./setup/native.mjs";
import { pageStep } from "./setup/page.mjs";
import { requireNode, SetupError } from "./setup/report.mjs";
import { typescriptStep } from "./setup/typescript.mjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const log = (text) => process.stderr.write(text);

/** What every step is given: the clone's root, the environment and where to write. */
const context = { root, env: process.env, log };

/** All steps in their order, by the names that `--only` takes. */
const STEPS = {
  dependencies: dependenciesStep,
  libtorch: libtorchStep,
  addon: nativeStep,
  typescript: typescriptStep,
  page: pageStep,
};

/** Seconds between two signs of life of a step that takes long. */
const SIGN_SECONDS = 15;

/** The steps that the arguments ask for; null, with a line about it, when they are wrong. */
function askedSteps() {
  const names = Object.keys(STEPS);
  const { only } = argumentsOf(import.meta.url, { only: { type: "string", default: names.join() } }).values;
  const unknown = only.split(",").find((name) => !names.includes(name));
  if (unknown === undefined) return names.filter((name) => only.split(",").includes(name)).map((name) => STEPS[name]);
  log(`setup: --only: expected some of ${names.join()} (received ${JSON.stringify(unknown)})\n`);
  return null;
}

/** Tools that some steps lack, all of them in one error: they are told before anything is downloaded or built. */
async function checkTools(steps) {
  const missing = [];
  for (const step of steps) {
    try {
      await step.check?.(context);
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      missing.push(error.message);
    }
  }
  if (missing.length > 0) throw new SetupError(missing.join("\n"));
}

async function main() {
  requireNode(process.versions.node);
  const steps = askedSteps();
  if (steps === null) {
    process.exitCode = 2;
    return;
  }
  const open = steps.filter((step) => !step.isDone(context));
  if (open.length === 0) return;
  await checkTools(open);
  mkdirSync(path.join(root, ".setup"), { recursive: true });
  await withLock(path.join(root, ".setup", "lock"), log, async () => {
    for (const step of steps) {
      if (step.isDone(context)) continue;
      const start = performance.now();
      log(`setup: ${step.title(context)} ...\n`);
      const seconds = () => (performance.now() - start) / 1000;
      const sign = setInterval(
        () => log(`setup: ${step.name}: at work for ${Math.round(seconds())} s\n`),
        SIGN_SECONDS * 1000,
      );
      await step.run(context).finally(() => clearInterval(sign));
      // A step that never counts as done would run again before every program.
      if (!step.isDone(context)) throw new SetupError(`${step.name}: what was made does not fit what was asked for`);
      log(`setup: ${step.name} ready (${seconds().toFixed(1)} s)\n`);
    }
  });
}

try {
  await main();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  log(`setup: ${error.message}\n`);
  process.exitCode = 1;
}
