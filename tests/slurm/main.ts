/**
 * `npm run test:slurm -- [--only A,B] [--seconds N] [--keep]`: trainings of two processes through `miro launch` on a
 * real SLURM, set up for the occasion on this machine (cluster.ts). All trials take some fifteen minutes, because
 * SLURM's shortest limit is one, and need Debian's `slurm-wlm` and `munge`.
 *
 *   --only A,B    some of the trials
 *   --seconds N   how long the training takes that does not fit into its limit (default 90)
 *   --keep        keep the folder of the runs
 *
 * Exit code 0: everything held; 1: something did not; 2: wrong usage, or SLURM is missing.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { commaSeparated, field, flag, runProgram } from "miro-t2i/cli";
import { z } from "zod";
import { Cluster, missingTools } from "./cluster.js";
import { Jobs } from "./jobs.js";
import { containers, edited, nodes, options, prologue, staging } from "./site-trials.js";
import {
  array,
  cancelled,
  longerThanItsLimit,
  nodeThatIsLost,
  preempted,
  rankThatDies,
  recipeThatFails,
} from "./training-trials.js";

/** All trials in their order, by the names that `--only` takes. */
const TRIALS = {
  fails: recipeThatFails,
  dies: rankThatDies,
  cancelled,
  preempted,
  lost: nodeThatIsLost,
  array,
  options,
  prologue,
  nodes,
  edited,
  containers,
  staging,
  limit: longerThanItsLimit,
};

const names = Object.keys(TRIALS) as (keyof typeof TRIALS)[];

const schema = z.strictObject({
  only: field(z.array(z.enum(names)).default([]), {
    expected: `some of ${names.join(",")}`,
    help: `some of the trials: ${names.join(",")}`,
    flag: "--only <trials>",
    otherwise: "all",
    parse: commaSeparated,
  }),
  seconds: field(z.number().min(60).default(90), {
    expected: "at least 60 seconds",
    help: "how long the training takes that does not fit into its limit",
    flag: "--seconds <n>",
  }),
  keep: flag("keep the folder of the runs", "--keep"),
});

async function main({ only, seconds, keep }: z.output<typeof schema>): Promise<number> {
  const missing = missingTools();
  if (missing.length > 0) {
    console.error(`no ${missing.join(", ")} on this machine; install them: apt-get install slurm-wlm munge`);
    return 2;
  }
  const folder = mkdtempSync(join(tmpdir(), "miro-slurm-runs-"));
  const cluster = await Cluster.start();
  let interrupted = false;
  const interrupt = () => {
    interrupted = true;
  };
  process.on("SIGINT", interrupt).on("SIGTERM", interrupt);
  try {
    const jobs = new Jobs(cluster, folder, () => interrupted);
    for (const name of names) if (only.length === 0 || only.includes(name)) await TRIALS[name](jobs, seconds);
    if (!keep) rmSync(folder, { recursive: true, force: true });
    return 0;
  } catch (error) {
    console.log(`FAILED: ${(error as Error).message}`);
    console.log(`what the runs have left: ${folder}`);
    return interrupted ? 130 : 1;
  } finally {
    await cluster.stop();
  }
}

process.exitCode = await runProgram({
  name: "npm run test:slurm --",
  summary: "Trains through `miro launch` on a real SLURM, set up on this machine for the occasion.",
  schema,
  notes: "Exit code 0: everything held; 1: something did not; 2: wrong usage, or SLURM is missing.",
  run: main,
});
