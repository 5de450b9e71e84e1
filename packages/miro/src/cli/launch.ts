/** `miro launch`: submits a training to SLURM. Parses, calls {@link planJob} and {@link submitJob}, prints. */

import "./extensions.js";
import { help } from "../options.js";
import { jobScript } from "../training/cluster/job-script.js";
import { LAUNCH_OPTION_NAMES, type LaunchOptions, launchOptionsSchema, planJob } from "../training/cluster/plan.js";
import { submitJob } from "../training/cluster/submission.js";
import { toNumber } from "./arguments.js";
import type { CliContext, Register } from "./context.js";
import { nameFlags } from "./flag-names.js";

const EXAMPLES = `
Examples:
  miro launch multi_cad_synth trainer.devices=8 trainer.num_nodes=2 --partition gpu --time 24:00:00
  miro launch multi_cad_synth trainer.devices=8 --time 1-0 --print          the whole script, nothing is submitted
  miro launch emoji --array optimizer.lr=1e-3,2e-3 --array seed=0,1 --max-simultaneous 2 --cpus-per-task 4
  miro launch emoji --dependency afterok:1234 --sbatch --account=vision --sbatch --mem=64G

The job has one process for each of trainer.devices on each of trainer.num_nodes. Before its time limit the run stores a checkpoint and
the job goes back into the queue, until all steps are done; a run that fails, or that scancel ends, does not. The script, and the recipe as
it is now, are kept in RUN/slurm/, logs are in MIRO_SLURM_OUTPUT_DIR. docs/training.md tells more.
`;

interface Flags extends Omit<LaunchOptions, "recipe" | "overrides"> {
  print?: boolean;
  json?: boolean;
}

export const register: Register = (command, context) => {
  nameFlags(command, LAUNCH_OPTION_NAMES);
  const h = (name: string) => help(launchOptionsSchema, name);
  const many = (value: string, earlier: string[] = []) => [...earlier, value];
  command
    .argument("<recipe>", h("recipe"))
    .argument("[key=value...]", h("overrides"))
    .option("--output <dir>", h("output"))
    .option("--partition <name>", h("partition"))
    .option("--time <limit>", h("time"))
    .option("--signal-before <seconds>", `${h("signalBefore")} (default: 180)`, toNumber("--signal-before"))
    .option("--cpus-per-task <n>", `${h("cpusPerTask")} (default: 8)`, toNumber("--cpus-per-task"))
    .option("--array <key=values>", h("array"), many)
    .option("--max-simultaneous <n>", h("maxSimultaneous"), toNumber("--max-simultaneous"))
    .option("--dependency <what>", h("dependency"))
    .option("--sbatch <option>", h("sbatch"), many)
    .option("--allow-changes", h("allowChanges"))
    .option("--print", "print the script, and do nothing else")
    .option("--json", "print one JSON object on stdout")
    .addHelpText("after", EXAMPLES)
    .action(async (recipe: string, overrides: string[], { print, json, ...flags }: Flags) => {
      await launch({ ...flags, recipe, overrides }, { print, json }, context);
    });
};

async function launch(
  options: LaunchOptions,
  { print, json }: Pick<Flags, "print" | "json">,
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
