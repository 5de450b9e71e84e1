/** The folder of a run, whatever is trained: who may write there, and from which checkpoint and data it goes on. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { TorchError } from "@miro-t2i/torch";
import { InvalidInputError, MiroError } from "../../errors.js";
import { readJson, writeFileAtomic } from "../../files/whole-files.js";
import { replaceFolder } from "../../files/whole-folders.js";
import { message, option } from "../../message.js";
import { counted, plural } from "../../numbers.js";
import { listed } from "../../printable.js";
import type { BatchSource } from "../batches/batches.js";
import type { DataParallelGroup } from "../process-group/process-group.js";
import { checkpointToResume, listCheckpoints } from "../state/checkpoint.js";
import { RunLock } from "../state/run-lock.js";
import type { RunOptions } from "./run-options.js";

/** Runs `use` with the lock of the run's folder. */
export async function withRunLock<T>(
  options: Pick<RunOptions, "output" | "signal" | "onMessage">,
  use: (lock: RunLock) => Promise<T>,
): Promise<T> {
  const lock = await RunLock.acquire(options.output, options);
  try {
    return await use(lock);
  } finally {
    lock.release();
  }
}

/**
 * The checkpoint that a run goes on from, the same for all processes.
 * @throws InvalidInputError when the folder holds a run that is not to be resumed
 */
export async function openRunFolder(
  { output, resume = false }: Pick<RunOptions, "output" | "resume">,
  group: DataParallelGroup,
): Promise<{ step: number; path: string } | undefined> {
  const newest = await startingCheckpoint(join(output, "checkpoints"), resume, group);
  if (newest && resume === false)
    throw new InvalidInputError(
      message`${output}: holds a run at step ${newest.step}; continue it with ${option("resume", true)}, or name another ${option("output")}`,
    );
  return newest;
}

/**
 * The checkpoint that a run continues from, or the newest of a folder that is refused for it; the same for all
 * processes.
 */
async function startingCheckpoint(
  folder: string,
  resume: boolean | number,
  group: DataParallelGroup,
): Promise<{ step: number; path: string } | undefined> {
  const own = () => (resume === false ? listCheckpoints(folder).at(-1) : checkpointToResume(folder, resume));
  const [step] = await group.sum([group.isFirst ? (own()?.step ?? -1) : 0]);
  if (step === -1) return undefined;
  const same = listCheckpoints(folder).find((checkpoint) => checkpoint.step === step);
  if (same !== undefined) return same;
  throw new MiroError(
    `${folder}: rank 0 sees a checkpoint of step ${step}, rank ${group.rank} does not; the folder of the run must be one that all machines share`,
  );
}

/**
 * Writes what a run leaves at its end, after its last checkpoint.
 * @param fill writes into a folder that is not yet in its place
 * @returns its path
 * @throws MiroError that says how the export is had where it cannot be written
 */
export async function writeExport(output: string, fill: (folder: string) => void | Promise<void>): Promise<string> {
  const path = join(output, "export");
  try {
    await replaceFolder(path, fill);
  } catch (error) {
    if (!(error instanceof MiroError || error instanceof TorchError)) throw error;
    throw new MiroError(
      message`${error}; the checkpoint of the last step is stored, and ${option("resume", true)} writes the export`,
      { cause: error },
    );
  }
  return path;
}

/** `data.json`: which data the run was made from, from which step on. */
interface DataNote {
  since: { step: number; identity: string }[];
  /** Samples of each of the newest data's shards. */
  shards?: Record<string, number>;
}

/**
 * Keeps which data the run is made from.
 * @throws InvalidInputError when a run would go on with other data and that is not allowed; else the difference is a
 *   message and kept
 */
export function noteData(
  path: string,
  { identity, shards = {} }: BatchSource,
  { step, allowChanges, onMessage }: { step: number; allowChanges: boolean; onMessage: (message: string) => void },
): void {
  const earlier: DataNote = existsSync(path) && step > 0 ? (readJson(path) as DataNote) : { since: [] };
  if (identity === undefined || earlier.since.at(-1)?.identity === identity) return;
  if (earlier.since.length > 0) {
    const missing = Object.keys(earlier.shards ?? {}).filter((name) => !Object.hasOwn(shards, name));
    const all = counted(Object.keys(earlier.shards ?? {}).length, "shard");
    const what =
      missing.length > 0
        ? `${missing.length} of the run's ${all} ${plural(missing.length, "is", "are")} missing: ${listed(missing, 5)}`
        : "the data are not those of the run so far";
    const then = `from step ${step} on it would see other samples than it would have seen`;
    if (!allowChanges)
      throw new InvalidInputError(
        message`${what}; ${then}. Restore the data, or continue anyway with ${option("allowChanges", true)}; the checkpoints are untouched`,
      );
    onMessage(`${what}; ${then}`);
  }
  const note: DataNote = { since: [...earlier.since, { step, identity }], shards };
  writeFileAtomic(path, `${JSON.stringify(note, null, 2)}\n`, { overwrite: true });
}
