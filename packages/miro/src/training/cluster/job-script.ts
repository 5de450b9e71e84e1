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
 */
import { directiveValue, patternPath, shellWord } from "./quoting.js";

/** All that the script says. Paths are absolute. */
export interface Job {
  name: string;
  partition: string;
  nodes: number;
  /** Processes on each node. */
  tasksPerNode: number;
  cpusPerTask: number;
  /** 0: on the CPU. */
  gpusPerNode: number;
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
  node: string;
  /** The file of the `miro` command. */
  miro: string;
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
  return `#!/bin/bash
${directives(job).join("\n")}

set -u
cd -- ${shellWord(job.workingDirectory)} || exit 1
set -a
. ${shellWord(job.environmentFile)} || exit 1
set +a

${job.isArray ? chooseRun(job.runs) : setRun(job.runs[0]!).join("\n")}

# Each job, and each time that it begins again, meets at a port of its own.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((10000 + (SLURM_JOB_ID * 97 + \${SLURM_RESTART_COUNT:-0}) % 20000))
export MASTER_ADDR MASTER_PORT OMP_NUM_THREADS=${job.cpusPerTask}

newest() { readlink -- "$run/checkpoints/last"; }
before=$(newest)

srun --kill-on-bad-exit=0 --wait=60 --cpus-per-task=${job.cpusPerTask} --export=ALL \\
  ${shellWord(job.node)} ${shellWord(job.miro)} train "$@" --output "$run" --resume &
step=$!
warned=0
trap 'warned=1; again=1; kill -USR1 "$step"' USR1
# A signal ends the wait, not what is waited for.
while again=0; wait "$step"; code=$?; [ "$again" -eq 1 ]; do :; done

if [ "$code" -eq 130 ] && [ "$warned" -eq 1 ]; then
  if [ "$(newest)" = "$before" ]; then
    echo "not queued again: no step was done within the time limit; give the job more --time" >&2
    exit 1
  fi
  scontrol requeue ${job.isArray ? '"$SLURM_ARRAY_JOB_ID"_"$SLURM_ARRAY_TASK_ID"' : '"$SLURM_JOB_ID"'}
fi
exit "$code"
`;
}

function directives(job: Job): string[] {
  const log = `${patternPath(job.logs, "MIRO_SLURM_OUTPUT_DIR")}/${job.name}-${job.isArray ? "%A_%a" : "%j"}.log`;
  const options: [name: string, value: string | null, option?: string][] = [
    ["job-name", job.name],
    ["partition", job.partition, "partition"],
    ["nodes", String(job.nodes)],
    ["ntasks-per-node", String(job.tasksPerNode)],
    ["cpus-per-task", String(job.cpusPerTask)],
  ];
  if (job.gpusPerNode > 0) options.push(["gres", `gpu:${job.gpusPerNode}`]);
  if (job.time !== undefined) options.push(["time", job.time]);
  options.push(["signal", `B:USR1@${job.signalBefore}`], ["requeue", null], ["open-mode", "append"]);
  options.push(["output", log, "MIRO_SLURM_OUTPUT_DIR"]);
  if (job.isArray) {
    const limit = job.maxSimultaneous === undefined ? "" : `%${job.maxSimultaneous}`;
    options.push(["array", `0-${job.runs.length - 1}${limit}`]);
  }
  if (job.dependency !== undefined) options.push(["dependency", job.dependency, "dependency"]);
  return [
    ...options.map(([name, value, option = name]) =>
      value === null ? `#SBATCH --${name}` : `#SBATCH --${name}=${directiveValue(value, option)}`,
    ),
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
