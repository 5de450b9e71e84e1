/**
 * The script that `sbatch` gets for a training. One process for each device runs `miro train … --resume`, so that the
 * job may begin again at any time and goes on where the run is.
 *
 * Before its time limit SLURM sends SIGUSR1 to the script, which hands it to the processes (by way of `srun`); they
 * store a checkpoint and end with 130, and the job goes back into the queue. The script gets the signal, not the
 * processes directly, because it must know why they have ended: 130 is also how they end when the job is cancelled.
 *
 * The processes end at slightly different times. When one fails, the others notice; what hangs is ended by `srun` a
 * minute after the first has gone (`--wait`). `--kill-on-bad-exit` would take the first that has stored and ended with
 * 130 for a failure and kill the rest, so that neither their exit codes nor that of a failure could be told from the
 * kill.
 *
 * A job that is preempted with a grace time gets SIGTERM, which its processes take as a request to stop: they end
 * before SLURM would put the job back into the queue, so that the script does it.
 *
 * A prologue runs before everything else, as the site wrote it; what it has set of the shell (`set -e`, `IFS`, the
 * folder) is set back, its variables and limits reach the processes.
 */
import { checkObject } from "../../arguments.js";
import { shellWord } from "../../shell-word.js";
import { containerWords, type JobContainer } from "./container.js";
import { directiveValue, patternPath } from "./directives.js";
import type { Prologue } from "./prologue.js";
import type { Staging } from "./staging.js";

/** All that the script says. Paths are absolute. */
export interface Job {
  name: string;
  /** The site's default where it is left out; so are account, quality of service, features and memory. */
  partition?: string | undefined;
  account?: string | undefined;
  qos?: string | undefined;
  constraint?: string | undefined;
  mem?: string | undefined;
  nodes: number;
  /** Processes on each node. */
  tasksPerNode: number;
  cpusPerTask: number;
  /** GPUs of each node as `sbatch --gpus-per-node` takes them. */
  gpusPerNode?: string | undefined;
  /** Generic resources of each node as `sbatch --gres` takes them. */
  gres?: string | undefined;
  /** Whether the processes compute on GPUs. */
  usesGpus: boolean;
  /** As `sbatch --time` takes it; the partition's where it is left out. */
  time?: string | undefined;
  /** Seconds before the limit at which the training is told to stop. */
  signalBefore: number;
  dependency?: string | undefined;
  /** Options of sbatch as they are written: `--account=x`. */
  sbatch: readonly string[];
  /** Tasks of an array that run at the same time. */
  maxSimultaneous?: number | undefined;
  /** Folder of the logs. */
  logs: string;
  /** Where the job was submitted; relative paths in the recipe start here. */
  workingDirectory: string;
  /** File of variables for a shell to source. */
  environmentFile: string;
  prologue?: Prologue | undefined;
  node: string;
  /** The file of the `miro` command. */
  miro: string;
  /** Where the processes run in containers; these have a `miro` of their own. */
  container?: JobContainer | undefined;
  /** Where the nodes copy Node, libtorch and `miro` to disks of their own. */
  staging?: Staging | undefined;
  /** One training, or those of an array. */
  runs: readonly JobRun[];
  isArray: boolean;
}

/** What one task of the job trains. */
export interface JobRun {
  /** Folder of the run. */
  output: string;
  /** Arguments of `miro train` but for `--output` and `--resume`. */
  arguments: readonly string[];
}

/** The text of the script. */
export function jobScript(job: Job): string {
  checkObject("job", job, "a job, as planJob gives it", ["runs"]);
  const { srun, command } = startOf(job);
  const options = ["--kill-on-bad-exit=0", "--wait=60", `--cpus-per-task=${job.cpusPerTask}`, "--export=ALL", ...srun];
  return `#!/bin/bash
${directives(job).join("\n")}

set -u
cd -- ${shellWord(job.workingDirectory)} || exit 1
set -a
. ${shellWord(job.environmentFile)} || exit 1
set +a

# The warning of the time limit may come before the training begins, as while the copies are made.
warned=0
trap 'warned=1' USR1
${lines(prologueLines(job))}
${job.isArray ? chooseRun(job.runs) : setRun(job.runs[0]!).join("\n")}
${lines([...stagingLines(job), ...containerLines(job)])}
# Each job, and each time that it begins again, meets at a port of its own.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((10000 + (SLURM_JOB_ID * 97 + \${SLURM_RESTART_COUNT:-0}) % 20000))
export MASTER_ADDR MASTER_PORT OMP_NUM_THREADS=${job.cpusPerTask}

newest() { readlink -- "$run/checkpoints/last"; }
before=$(newest)
no_step() {
  echo "not queued again: no step was done within the time limit; give the job more --time" >&2
  exit 1
}
if [ "$warned" -eq 1 ]; then no_step; fi

srun ${options.join(" ")} \\
  ${command.join(" ")} train "$@" --output "$run" --resume &
step=$!
trap 'warned=1; again=1; kill -USR1 "$step"' USR1
# A signal ends the wait, not what is waited for.
while again=0; wait "$step"; code=$?; [ "$again" -eq 1 ]; do :; done

# The last task of an array has the number of the array, which stands for all of its tasks.
job=${job.isArray ? '"$SLURM_ARRAY_JOB_ID"_"$SLURM_ARRAY_TASK_ID"' : '"$SLURM_JOB_ID"'}
preempted() { scontrol show job "$job" | grep -q 'PreemptTime=[0-9]'; }
if [ "$code" -eq 130 ] && { [ "$warned" -eq 1 ] || preempted; }; then
  if [ "$warned" -eq 1 ] && [ "$(newest)" = "$before" ]; then no_step; fi
  scontrol requeue "$job"
fi
exit "$code"
`;
}

/** How a process is started, as words of bash: options of `srun`, and what stands before the arguments of `miro`. */
function startOf(job: Job): { srun: string[]; command: string[] } {
  if (job.container !== undefined) return containerWords(job.container, job);
  if (job.staging !== undefined) return { srun: [], command: ["/bin/bash", shellWord(job.staging.script)] };
  return { srun: [], command: [shellWord(job.node), shellWord(job.miro)] };
}

/** A prologue may rely on variables that are not set. */
function prologueLines({ prologue, workingDirectory }: Job): string[] {
  if (prologue === undefined) return [];
  const { path, sha256, text } = prologue;
  return [
    "",
    `# prologue: ${shellWord(path)}, sha256 ${sha256}`,
    "set +u",
    text.trimEnd(),
    "# end of the prologue",
    "set +efx -u +o pipefail +o noclobber",
    "IFS=$' \\t\\n'",
    `cd -- ${shellWord(workingDirectory)} || exit 1`,
  ];
}

/** One process of each node makes the copy; it is there already where an earlier job has made it. */
function stagingLines({ staging, nodes }: Job): string[] {
  if (staging === undefined) return [];
  return [
    "",
    `srun --nodes=${nodes} --ntasks=${nodes} --ntasks-per-node=1 --kill-on-bad-exit=1 --export=ALL \\`,
    `  /bin/bash ${shellWord(staging.script)} || exit 1`,
  ];
}

/** Only a folder that exists can be mounted. */
function containerLines({ container }: Job): string[] {
  return container === undefined ? [] : ["", 'mkdir -p -- "$run" || exit 1'];
}

function lines(of: readonly string[]): string {
  return of.map((line) => `${line}\n`).join("");
}

function directives(job: Job): string[] {
  const log = `${patternPath(job.logs, "MIRO_SLURM_OUTPUT_DIR")}/${job.name}-${job.isArray ? "%A_%a" : "%j"}.log`;
  const array = job.maxSimultaneous === undefined ? "" : `%${job.maxSimultaneous}`;
  /** sbatch's name, its value, and what the user calls it; null is an option without a value. */
  const options: [name: string, value: string | null | undefined, option?: string][] = [
    ["job-name", job.name],
    ["partition", job.partition, "partition"],
    ["account", job.account, "account"],
    ["qos", job.qos, "qos"],
    ["nodes", String(job.nodes)],
    ["ntasks-per-node", String(job.tasksPerNode)],
    ["cpus-per-task", String(job.cpusPerTask)],
    ["gres", job.gres, "gres"],
    ["gpus-per-node", job.gpusPerNode, "gpusPerNode"],
    ["mem", job.mem, "mem"],
    ["constraint", job.constraint, "constraint"],
    ["time", job.time, "time"],
    ["signal", `B:USR1@${job.signalBefore}`],
    ["requeue", null],
    ["open-mode", "append"],
    ["output", log, "MIRO_SLURM_OUTPUT_DIR"],
    ["array", job.isArray ? `0-${job.runs.length - 1}${array}` : undefined],
    ["dependency", job.dependency, "dependency"],
  ];
  return [
    ...options.flatMap(([name, value, option = name]) => {
      if (value === undefined) return [];
      return value === null ? `#SBATCH --${name}` : `#SBATCH --${name}=${directiveValue(value, option)}`;
    }),
    ...job.sbatch.map((text) => `#SBATCH ${text}`),
  ];
}

function setRun({ output, arguments: words }: JobRun): string[] {
  return [`run=${shellWord(output)}`, `set -- ${words.map(shellWord).join(" ")}`];
}

function chooseRun(runs: readonly JobRun[]): string {
  const cases = runs.map((run, i) => `  ${i}) ${setRun(run).join("; ")} ;;`);
  return ['case "$SLURM_ARRAY_TASK_ID" in', ...cases, "  *) exit 1 ;;", "esac"].join("\n");
}
