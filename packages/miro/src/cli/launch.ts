/**
 * `miro launch`: submits a training to SLURM. Parses, calls {@link planJob} and {@link submitJob} or {@link writeJob},
 * prints.
 */
import "./extensions.js";
import { z } from "zod";
import { flag } from "../options.js";
import { breathe } from "../pipeline/interruption.js";
import { loadScorerModules } from "../rewards/scorer-modules.js";
import type { DataCheck } from "../training/batches/finding.js";
import { jobScript } from "../training/cluster/job-script.js";
import { type JobPlan, type LaunchOptions, launchOptionsSchema, planJob } from "../training/cluster/plan.js";
import { submitJob, writeJob } from "../training/cluster/submission.js";
import { blocking, checkRun } from "../training/planning/dry-run.js";
import { declare } from "./add-options.js";
import { json } from "./common-options.js";
import type { CliContext, Register } from "./context.js";
import { checkLines, refuseBlocked } from "./dry-run-text.js";
import { helpText } from "./help-text.js";
import { untilStopped } from "./interruption.js";

const EXAMPLES = `
Examples:
  miro launch multi_cad_synth trainer.devices=8 trainer.num_nodes=2 --partition gpu --time 24:00:00
  miro launch multi_cad_synth data.dir=/data trainer.devices=8 --time 1-0 --print      the whole script, nothing is submitted
  miro launch multi_cad_synth data.dir=/data --print --write job                       the script and its files, to be edited: sbatch job/job.sh
  miro launch multi_cad_synth trainer.devices=8 --prologue modules.sh --account vision --gpus-per-node a100:8 --mem 0
  miro launch multi_cad_synth trainer.devices=8 --container miro.sif --network-interface ib0
  miro launch multi_cad_synth trainer.devices=8 --stage-to '$SLURM_TMPDIR'
  miro launch emoji --array optimizer.lr=1e-3,2e-3 --array seed=0,1 --max-simultaneous 2 --cpus-per-task 4
  miro launch emoji --dependency afterok:1234 --sbatch --reservation=vision

The job has one process for each of trainer.devices on each of trainer.num_nodes. Before its time limit the run stores a checkpoint and
the job goes back into the queue, until all steps are done; a run that fails, or that scancel ends, does not. The script, and the recipe as
it is now, are kept in RUN/slurm/, logs are in MIRO_SLURM_OUTPUT_DIR. docs/cluster.md tells more.
`;

const schema = z.strictObject({
  ...launchOptionsSchema.shape,
  print: flag("print the script, and submit nothing", "--print"),
  json,
});

export const register: Register = (command, context) => {
  declare(command, schema, (options) => launch(options, context)).addHelpText("after", helpText(EXAMPLES));
};

async function launch({ print, json, ...options }: z.output<typeof schema>, context: CliContext): Promise<void> {
  const { stdout, note, signal } = context;
  const onMessage = (message: string) => note(`${message}\n`);
  await loadScorerModules(options.scorerModules);
  const plan = planJob(options);
  if (!print && options.write === undefined) {
    const submit = async () => {
      await refuseUnready(plan, options, context);
      return submitJob(plan, { signal, onMessage });
    };
    const submitted = await untilStopped(context, () => "nothing was submitted", submit);
    if (json) return stdout(`${JSON.stringify(submitted)}\n`);
    stdout(`${submitted.job}\n`);
    return note(`submitted ${submitted.script}; logs are in ${submitted.logs}\n`);
  }
  const script = jobScript(plan.job);
  const written = options.write === undefined ? null : await writeJob(plan, { signal, onMessage });
  if (json) return stdout(`${JSON.stringify({ ...(print && { script }), ...(written && { written }) })}\n`);
  if (print) stdout(script);
  if (written !== null) {
    if (!print) stdout(`${written.script}\n`);
    note(`wrote ${written.script} and what it refers to; submit it with sbatch ${written.script}\n`);
  }
}

/**
 * Submits nothing that could not start, as `miro train --dry-run` finds it; all of it is told at once. What a job waits
 * for may still make what is missing, or end the run that trains in its folder.
 */
async function refuseUnready(
  { tasks }: JobPlan,
  { allowChanges, dependency }: Pick<LaunchOptions, "allowChanges" | "dependency">,
  { stderr, note, signal }: CliContext,
): Promise<void> {
  const found = new Map<string, DataCheck>();
  for (const { recipe, output } of tasks) {
    await breathe(signal);
    for (const check of blocking(await checkRun(recipe, { output, resume: true, allowChanges, here: false })))
      found.set(`${check.subject}: ${check.finding}`, check);
  }
  const checks = [...found.values()];
  if (checks.length > 0) stderr(`${checkLines(checks).join("\n")}\n`);
  if (dependency === undefined) refuseBlocked("the job", checks);
  else if (checks.length > 0) note(`the job is submitted all the same, as it waits for ${dependency}\n`);
}
