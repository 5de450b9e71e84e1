/** `miro launch`: submits a training to SLURM. Parses, calls {@link planJob} and {@link submitJob}, prints. */

import "./extensions.js";
import { z } from "zod";
import { flag } from "../options.js";
import { jobScript } from "../training/cluster/job-script.js";
import { launchOptionsSchema, planJob } from "../training/cluster/plan.js";
import { submitJob } from "../training/cluster/submission.js";
import { declare } from "./add-options.js";
import { json } from "./common-options.js";
import type { CliContext, Register } from "./context.js";

const EXAMPLES = `
Examples:
  miro launch multi_cad_synth trainer.devices=8 trainer.num_nodes=2 --partition gpu --time 24:00:00
  miro launch multi_cad_synth trainer.devices=8 --partition gpu --time 1-0 --print          the whole script, nothing is submitted
  miro launch emoji --array optimizer.lr=1e-3,2e-3 --array seed=0,1 --max-simultaneous 2 --cpus-per-task 4
  miro launch emoji --dependency afterok:1234 --sbatch --account=vision --sbatch --mem=64G

The job has one process for each of trainer.devices on each of trainer.num_nodes. Before its time limit the run stores a checkpoint and
the job goes back into the queue, until all steps are done; a run that fails, or that scancel ends, does not. The script, and the recipe as
it is now, are kept in RUN/slurm/, logs are in MIRO_SLURM_OUTPUT_DIR. docs/training.md tells more.
`;

const schema = z.strictObject({
  ...launchOptionsSchema.shape,
  print: flag("print the script, and do nothing else", "--print"),
  json,
});

export const register: Register = (command, context) => {
  declare(command, schema, (options) => launch(options, context)).addHelpText("after", EXAMPLES);
};

async function launch(
  { print, json, ...options }: z.output<typeof schema>,
  { stdout, stderr }: CliContext,
): Promise<void> {
  const plan = planJob(options);
  if (print) {
    const script = jobScript(plan.job);
    stdout(json ? `${JSON.stringify({ script })}\n` : script);
    return;
  }
  const submitted = await submitJob(plan);
  if (json) stdout(`${JSON.stringify(submitted)}\n`);
  else {
    stdout(`${submitted.job}\n`);
    stderr(`submitted ${submitted.script}; logs are in ${submitted.logs}\n`);
  }
}
