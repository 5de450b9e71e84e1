/** Writes what a job needs into its folder and hands it to `sbatch`. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { checkObject } from "../../arguments.js";
import { InvalidInputError, MiroError, systemReason } from "../../errors.js";
import { FileLock, whenFree } from "../../files/file-lock.js";
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

/** How {@link submitJob} and {@link writeJob} go about it. */
interface WriteOptions {
  /** Stops before the job is submitted. */
  signal?: AbortSignal | undefined;
  /** Told what a person should know. */
  onMessage?: ((message: string) => void) | undefined;
}

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
 * Submits a job; another launch of the same run waits meanwhile, so that each submits its own script.
 * @throws MiroError with what sbatch says; the signal's reason when it is aborted
 */
export async function submitJob(plan: JobPlan, options: WriteOptions = {}): Promise<SubmittedJob> {
  return withFolder(plan, options, async () => {
    const written = await writeFiles(plan, options);
    await breathe(options.signal);
    const job = await sbatch(written.script);
    try {
      writeRecord(plan, job);
    } catch (error) {
      throw new MiroError(message`job ${job} was submitted, and is not noted: ${error}`, { cause: error });
    }
    return { job, ...written };
  });
}

/**
 * Writes the script and all that it refers to.
 * @throws InvalidInputError where the folder is for people and holds another script, which somebody may have edited
 */
export async function writeJob(plan: JobPlan, options: WriteOptions = {}): Promise<WrittenJob> {
  return withFolder(plan, options, () => writeFiles(plan, options));
}

/** Does something while no other launch writes to the folder of the job. */
async function withFolder<T>(plan: JobPlan, { signal, onMessage }: WriteOptions, use: () => Promise<T>): Promise<T> {
  checkObject("plan", plan, "a plan, as planJob gives it", ["job"]);
  const lock = await whenFree(() => FileLock.acquire(plan.folder, "launch"), {
    signal,
    onWait: ({ text }) => onMessage?.(`${plan.folder}: waiting for ${text}, which launches this run`),
  });
  try {
    return await use();
  } finally {
    lock.release();
  }
}

async function writeFiles(plan: JobPlan, { signal }: WriteOptions): Promise<WrittenJob> {
  const { job, folder, environment, recipes } = plan;
  const script = join(folder, "job.sh");
  const text = jobScript(job);
  if (plan.isForEditing && existsSync(script) && readTextFile(script) !== text)
    throw new InvalidInputError(
      message`${script}: is another script, which may have been edited; remove it, or choose another ${option("write")}`,
    );
  makeLogsFolder(job.logs);
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

function makeLogsFolder(path: string): void {
  try {
    makeFolder(path);
  } catch (error) {
    throw new MiroError(`${path}: cannot be made: ${systemReason(error)}`, { cause: error });
  }
}
