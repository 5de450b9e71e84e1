/** Writes what a job needs into its folder and hands it to `sbatch`. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { MiroError, systemReason } from "../../errors.js";
import { makeFolder } from "../../files/make-folder.js";
import { writeFileAtomic } from "../../files/whole-files.js";
import { message, option } from "../../message.js";
import { jobVariables } from "../recipes/environment.js";
import { jobScript } from "./job-script.js";
import type { JobPlan } from "./plan.js";
import { shellWord } from "./quoting.js";

/** A job that SLURM has taken. */
export interface SubmittedJob {
  /** Its id. */
  job: string;
  script: string;
  environment: string;
  /** Folder of the logs. */
  logs: string;
  /** Folders of the runs. */
  runs: string[];
}

/**
 * Submits a job.
 * @throws MiroError with what sbatch says
 */
export async function submitJob({ job, folder, recipes }: JobPlan, variables = jobVariables()): Promise<SubmittedJob> {
  const script = join(folder, "job.sh");
  makeJobFolder(job.logs);
  // Variables may be secrets.
  writeFileAtomic(job.environmentFile, environmentText(variables), { overwrite: true, mode: 0o600 });
  for (const [path, text] of recipes) writeFileAtomic(path, text, { overwrite: true });
  writeFileAtomic(script, jobScript(job), { overwrite: true });
  return {
    job: await sbatch(script),
    script,
    environment: job.environmentFile,
    logs: job.logs,
    runs: job.runs.map(({ output }) => output),
  };
}

function environmentText(variables: ReadonlyMap<string, string>): string {
  return [...variables].map(([name, value]) => `${name}=${shellWord(value)}\n`).join("");
}

async function sbatch(script: string): Promise<string> {
  // Inside of another job its variables describe that job; srun would take them for those of the new one.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith("SLURM_") || name === "SLURM_CONF"),
  );
  let printed: string;
  try {
    printed = (await promisify(execFile)("sbatch", ["--parsable", script], { env })).stdout;
  } catch (error) {
    const { code, stderr } = error as { code?: unknown; stderr?: string };
    if (code === "ENOENT")
      throw new MiroError(
        message`sbatch: not found; launch where SLURM's commands are, or show the script with ${option("print", true)}`,
      );
    const said = (stderr ?? "").replaceAll("sbatch: error: ", "").trim();
    throw new MiroError(`sbatch: ${said === "" ? systemReason(error) : said} (${script})`);
  }
  // ID, or ID;CLUSTER
  const id = /^(\d+)(;.*)?$/.exec(printed.trim())?.[1];
  if (id === undefined) throw new MiroError(`sbatch: expected the id of a job, received ${JSON.stringify(printed)}`);
  return id;
}

function makeJobFolder(path: string): void {
  try {
    makeFolder(path);
  } catch (error) {
    throw new MiroError(`${path}: cannot be made: ${systemReason(error)}`, { cause: error });
  }
}
