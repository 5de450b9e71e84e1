/** Writes what a job needs into its folder and hands it to `sbatch`. */

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { checkObject } from "../../arguments.js";
import { InvalidInputError, MiroError, systemReason } from "../../errors.js";
import { makeFolder } from "../../files/make-folder.js";
import { sha256 } from "../../files/sha256.js";
import { readTextFile } from "../../files/text-file.js";
import { writeFileAtomic } from "../../files/whole-files.js";
import { message, option } from "../../message.js";
import { breathe } from "../../pipeline/interruption.js";
import { version } from "../../version.js";
import { jobScript } from "./job-script.js";
import type { JobPlan } from "./plan.js";
import { sbatchEnvironment } from "./site-options.js";
import { packRuntime, stagedScript } from "./staging.js";

/** A job whose files are written. */
export interface WrittenJob {
  script: string;
  environment: string;
  /** Folder of the logs. */
  logs: string;
  /** Folders of the runs. */
  runs: string[];
}

/** A job that SLURM has taken. */
export interface SubmittedJob extends WrittenJob {
  /** Its id. */
  job: string;
}

/**
 * Submits a job.
 * @param signal stops before the job is submitted
 * @throws MiroError with what sbatch says; the signal's reason when it is aborted
 */
export async function submitJob(
  plan: JobPlan,
  { signal }: { signal?: AbortSignal | undefined } = {},
): Promise<SubmittedJob> {
  checkObject("plan", plan, "a plan, as planJob gives it", ["job"]);
  const written = await writeJob(plan, { signal });
  await breathe(signal);
  const job = await sbatch(written.script);
  try {
    writeRecord(plan, job);
  } catch (error) {
    throw new MiroError(message`job ${job} was submitted, and is not noted: ${error}`, { cause: error });
  }
  return { job, ...written };
}

/**
 * Writes the script and all that it refers to.
 * @throws InvalidInputError where the folder is for people and holds another script, which somebody may have edited
 */
export async function writeJob(
  plan: JobPlan,
  { signal }: { signal?: AbortSignal | undefined } = {},
): Promise<WrittenJob> {
  checkObject("plan", plan, "a plan, as planJob gives it", ["job"]);
  const { job, folder, environment, recipes } = plan;
  const script = join(folder, "job.sh");
  const text = jobScript(job);
  if (plan.isForEditing && existsSync(script) && readTextFile(script) !== text)
    throw new InvalidInputError(
      message`${script}: is another script, which may have been edited; remove it, or choose another ${option("write")}`,
    );
  makeJobFolder(folder);
  makeJobFolder(job.logs);
  writeFileAtomic(environment.path, environment.text, { overwrite: true, mode: 0o600 });
  for (const [path, text] of recipes) writeFileAtomic(path, text, { overwrite: true });
  if (job.staging !== undefined) {
    await packRuntime(job.staging, signal);
    writeFileAtomic(job.staging.script, stagedScript(job.staging), { overwrite: true });
  }
  writeRecord(plan, null);
  writeFileAtomic(script, text, { overwrite: true });
  return { script, environment: environment.path, logs: job.logs, runs: job.runs.map(({ output }) => output) };
}

/** `launch.json`: what the job was made of. @param id null where it is not submitted (yet) */
function writeRecord({ job, folder, recipes }: JobPlan, id: string | null): void {
  const { prologue, container, staging } = job;
  const record = {
    job: id,
    miro: version(),
    script_sha256: sha256(jobScript(job)),
    recipes: [...recipes].map(([path, text]) => ({ path, sha256: sha256(text) })),
    prologue: prologue === undefined ? null : { path: prologue.path, sha256: prologue.sha256 },
    container: container ?? null,
    staging: staging === undefined ? null : { archive: staging.archive, script: staging.script },
    runs: job.runs.map(({ output }) => output),
  };
  writeFileAtomic(join(folder, "launch.json"), `${JSON.stringify(record, null, 2)}\n`, { overwrite: true });
}

async function sbatch(script: string): Promise<string> {
  let printed: string;
  try {
    printed = (await promisify(execFile)("sbatch", ["--parsable", script], { env: sbatchEnvironment() })).stdout;
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
