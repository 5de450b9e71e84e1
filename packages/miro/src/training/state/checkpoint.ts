/**
 * Training checkpoints: everything that decides the rest of a run.
 *
 *   RUN/checkpoints/step-00001000/
 *     network.safetensors     network.* and preconditioning.*, float32
 *     ema.safetensors         the averaged network; a further average of decay 0.999 is ema_0_999.safetensors
 *     optimizer.safetensors   moments, one tensor for each parameter
 *     state.json              step, EMA updates, samples seen, the resolved recipe, versions
 *     model.json              what `miro generate --model RUN` needs to know, see pipeline/loading/run-model.ts; with
 *                             it what a release has beside its weights, such as vocabulary.json
 *     SHA256SUMS              the hashes of these files, as sha256sum writes and checks them
 *   RUN/checkpoints/last      a link to the newest of them
 *
 * Randomness and the position in the data have no files: both are functions of the recipe's seed, the step and the
 * sizes that the global batch has had, whatever the number of processes.
 *
 * A checkpoint is written into a temporary folder, flushed to the disk and renamed, so that a folder with a final name
 * is whole whenever the process is killed. Removal renames first, for the same reason. The link is replaced by renaming
 * too, after the folder is in place and before older ones go; who resumes takes the newest folder and needs no link.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { scope, type Tensor, TorchError } from "@miro-t2i/torch";
import { beginFile, flushFolder, publishFolder, removeKilledWrites } from "@miro-t2i/torch/atomic-write";
import { readSafetensors, writeSafetensors } from "@miro-t2i/torch/io";
import type { GradScalerState } from "@miro-t2i/torch/optim";
import { checkName, checkObject, isObject } from "../../arguments.js";
import type { BatchSpan } from "../../data/shards/order.js";
import { describe, InvalidInputError, isOutOfMemory, MiroError, systemReason } from "../../errors.js";
import { checkSum, readSums, SUMS_FILE, sumsOf } from "../../files/checksums.js";
import { makeFolder } from "../../files/make-folder.js";
import { about, message, option } from "../../message.js";
import { listCheckpoints, STATE_FILE, type StoredCheckpoint } from "../../pipeline/loading/run-checkpoint.js";
import type { StepReport } from "../logging/meter.js";

export { listCheckpoints } from "../../pipeline/loading/run-checkpoint.js";

/** The plain part of a checkpoint, `state.json`. */
export interface TrainingState {
  format: 1;
  /** Optimizer steps done. */
  step: number;
  emaUpdates: number;
  /** Steps left out because of gradients that were not finite. */
  skippedSteps: number;
  /** Seconds of training so far, cumulative over resumed runs. */
  seconds: number;
  /** Updates that the optimizer has made: `step` without the skipped ones. */
  optimizerStep: number;
  /** With `16-mixed`. */
  scaler?: GradScalerState;
  /** The sizes that the batches of the run have had: with them the position in the data follows from the step. */
  batches?: readonly BatchSpan[];
  /** What the steps since the last line of the log have found: the next line is the mean over them too. */
  unlogged?: readonly StepReport[];
  /** The resolved recipe of the run. */
  recipe: unknown;
  /** What is known beside of the run that wrote it; checkpoints of early versions lack it. */
  origin?: CheckpointOrigin;
}

/** Who wrote a checkpoint, and where in the data it stands. */
export interface CheckpointOrigin {
  /** Samples of one optimizer step, all processes together. */
  globalBatch: number;
  /** Samples that the run has been trained on: the position in the stream of data. */
  samplesSeen: number;
  /** Processes that shared the batch. */
  processes: number;
  /** Versions of this package and of libtorch. */
  code: { miro: string; torch: string };
}

export type NamedTensors = Record<string, Tensor>;

/** Everything that a training resumes from. */
export interface TrainingCheckpoint {
  state: TrainingState;
  network: NamedTensors;
  /** The averaged networks by their published names, `ema_network` and `ema_network_0_999`. */
  emas: Record<string, NamedTensors>;
  optimizer: NamedTensors;
  /** Texts that lie beside them, by the names of their files: what the network is as a model. */
  texts?: Readonly<Record<string, string>> | undefined;
}

/** The file of EMA weights, by their published name. */
export const emaFile = (name: string) => `${name.replace(/^ema_network/, "ema")}.safetensors`;
const emaFilePattern = /^ema(_[\w-]+)?\.safetensors$/;

/** Which checkpoints stay when a new one is written. */
export interface RetentionOptions {
  /** The newest so many stay, default 2. */
  keepLast?: number | undefined;
  /** So do those whose step is a multiple of this; 0 (default): none. */
  keepEveryNSteps?: number | undefined;
}

const LAST = "last";
/** What a checkpoint is called that a run has gone back behind. */
const REPLACED = "replaced-";
/**
 * Writes one checkpoint, points `last` at it and removes older ones.
 * @returns its path
 * @throws MiroError naming it and the reason; the folder then holds the checkpoints that it held before
 */
export function saveTrainingCheckpoint(
  folder: string,
  checkpoint: TrainingCheckpoint,
  { keepLast = 2, keepEveryNSteps = 0 }: RetentionOptions = {},
): string {
  checkName("folder", folder, "the name of a folder");
  checkObject("checkpoint", checkpoint, "{ state, network, emas, … }", ["state", "network", "emas"]);
  const name = `step-${String(checkpoint.state.step).padStart(8, "0")}`;
  const path = join(folder, name);
  const temporary = beginFile(path);
  try {
    makeFolder(folder);
    removeKilledWrites(folder);
    mkdirSync(temporary);
    writeSafetensors(join(temporary, "network.safetensors"), checkpoint.network);
    for (const [name, average] of Object.entries(checkpoint.emas))
      writeSafetensors(join(temporary, emaFile(name)), average);
    writeSafetensors(join(temporary, "optimizer.safetensors"), checkpoint.optimizer);
    writeFileSync(join(temporary, STATE_FILE), `${JSON.stringify(checkpoint.state, null, 2)}\n`);
    for (const [name, text] of Object.entries(checkpoint.texts ?? {})) writeFileSync(join(temporary, name), text);
    writeFileSync(join(temporary, SUMS_FILE), sumsOf(temporary));
    publishFolder(temporary, path);
    pointTo(folder, name);
  } catch (error) {
    try {
      rmSync(temporary, { recursive: true, force: true });
    } catch {
      // what kept the checkpoint from being written may keep this too; the next one removes it
    }
    const reason = (error as Error).cause ?? error;
    throw new MiroError(
      message`${path}: the checkpoint could not be written: ${systemReason(reason)}; earlier ones are intact, ${option("resume", true)} continues from the newest`,
      { cause: error },
    );
  }
  const stored = listCheckpoints(folder);
  for (const old of stored.slice(0, -Math.max(1, keepLast)))
    if (keepEveryNSteps === 0 || old.step % keepEveryNSteps !== 0) removeFolder(folder, basename(old.path));
  return path;
}

/**
 * Compares a checkpoint with its hashes and reads what describes it. One of an early version has no hashes: its tensors
 * are described well, and more is not known.
 * @throws MiroError or TorchError naming the file that is missing, damaged or one too many
 */
export function checkTrainingCheckpoint(path: string): void {
  const sums = readSums(path);
  if (sums !== null) {
    const names = readdirSync(path).filter((name) => name !== SUMS_FILE);
    for (const name of new Set([...names, ...sums.keys()])) checkSum(path, name, sums);
    for (const name of [STATE_FILE, "network.safetensors", "optimizer.safetensors"])
      if (!sums.has(name)) throw new MiroError(`${join(path, SUMS_FILE)}: is damaged: it does not list ${name}`);
  }
  scope(() => void loadTrainingCheckpoint(path));
}

/**
 * The checkpoint that a run continues from, whole.
 * @param resume true for the newest, or the step of one
 * @returns undefined when there is none and none is named
 * @throws InvalidInputError when there is none of that step; MiroError when it is damaged, naming the newest that is
 *   whole
 */
export function checkpointToResume(folder: string, resume: true | number): StoredCheckpoint | undefined {
  const stored = listCheckpoints(folder);
  const chosen = resume === true ? stored.at(-1) : stored.find(({ step }) => step === resume);
  if (chosen === undefined) {
    if (resume === true) return undefined;
    const there = stored.map(({ step }) => step).join(", ");
    throw new InvalidInputError(
      message`${about("resume")}: ${folder} holds no checkpoint of step ${resume}; ${there === "" ? "it holds none" : `there are those of ${there}`}`,
    );
  }
  const fault = faultOf(chosen.path);
  if (fault === null) return chosen;
  const whole = stored.findLast(({ step, path }) => step < chosen.step && faultOf(path) === null);
  throw new MiroError(
    whole === undefined
      ? message`${fault}; no earlier checkpoint is whole, so the run cannot be continued: begin anew with another ${option("output")}`
      : message`${fault}; the newest whole checkpoint before it is of step ${whole.step}: ${option("resume", whole.step)} continues from there`,
    { cause: fault },
  );
}

function faultOf(path: string): Error | null {
  try {
    checkTrainingCheckpoint(path);
    return null;
  } catch (error) {
    if (error instanceof MiroError || error instanceof TorchError) return error;
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    return new MiroError(`${path}: cannot be read: ${systemReason(error)}`, { cause: error });
  }
}

/**
 * Sets aside what a run has written behind the step from which it goes on: `--resume` would take it for the newest, and
 * the run for one of its own. It is renamed, not removed.
 * @returns the new paths
 */
export function setAsideNewer(folder: string, step: number): string[] {
  const newer = listCheckpoints(folder).filter((checkpoint) => checkpoint.step > step);
  if (newer.length === 0) return [];
  const moved = newer.map(({ path }) => {
    const target = join(folder, `${REPLACED}${basename(path)}`);
    rmSync(target, { recursive: true, force: true });
    renameSync(path, target);
    return target;
  });
  pointTo(folder, basename(listCheckpoints(folder).at(-1)!.path));
  return moved;
}

/**
 * Reads a checkpoint. The tensors are views of the mapped files: copy them into the modules (`loadStateDict` does),
 * inside a `scope()` that frees them.
 */
export function loadTrainingCheckpoint(path: string): TrainingCheckpoint {
  const state = readTrainingState(path);
  const read = (file: string) => Object.fromEntries(readSafetensors(join(path, file)));
  const averages = readdirSync(path).flatMap((file) => {
    const suffix = emaFilePattern.exec(file);
    return suffix === null ? [] : [[`ema_network${suffix[1] ?? ""}`, read(file)] as const];
  });
  return {
    state,
    network: read("network.safetensors"),
    emas: Object.fromEntries(averages),
    optimizer: read("optimizer.safetensors"),
  };
}

/**
 * Reads a checkpoint for a training that goes on from it.
 * @param restore copies its tensors
 * @throws InvalidInputError naming the checkpoint where its tensors are not those of the training
 */
export function restoreFrom(path: string, restore: (checkpoint: TrainingCheckpoint) => void): void {
  scope(() => {
    const checkpoint = loadTrainingCheckpoint(path);
    try {
      restore(checkpoint);
    } catch (error) {
      if (!(error instanceof TorchError || error instanceof MiroError) || isOutOfMemory(error)) throw error;
      const lines = error.message.split("\n").map((line) => shortened(line.trim()));
      throw new InvalidInputError(`${path}: ${lines.join(" ")}; give the recipe it was made with`, { cause: error });
    }
  });
}

/** A line that may list all tensors of a network. */
function shortened(line: string): string {
  return line.length > 160 ? `${line.slice(0, 157)}...` : line;
}

/** What a checkpoint says of its run, without its tensors. @throws MiroError naming what is wrong with it */
export function readTrainingState(path: string): TrainingState {
  checkName("path", path, "the folder of a checkpoint");
  const statePath = join(path, STATE_FILE);
  let state: TrainingState;
  try {
    state = JSON.parse(readFileSync(statePath, "utf8")) as TrainingState;
  } catch (error) {
    throw new MiroError(`${statePath}: not a readable training state (${(error as Error).message})`);
  }
  if (state.format !== 1)
    throw new MiroError(`${statePath}: format ${String(state.format)}; this version reads format 1`);
  for (const key of ["step", "emaUpdates", "skippedSteps", "seconds", "optimizerStep"] as const)
    if (typeof state[key] !== "number" || !(state[key] >= 0))
      throw new MiroError(`${statePath}: ${key}: expected a number of 0 or more, found ${describe(state[key])}`);
  if (!isObject(state.recipe))
    throw new MiroError(`${statePath}: recipe: expected that of the run, found ${describe(state.recipe)}`);
  if (state.batches !== undefined && !areSpans(state.batches))
    throw new MiroError(
      `${statePath}: batches: expected [{ from: 0, batchSize }, { from, batchSize }, …], found ${describe(state.batches)}`,
    );
  if (state.unlogged !== undefined && !(Array.isArray(state.unlogged) && state.unlogged.every(isObject)))
    throw new MiroError(
      `${statePath}: unlogged: expected [{ loss, rawLoss, gradNorm }, …], found ${describe(state.unlogged)}`,
    );
  return state;
}

function areSpans(value: unknown): boolean {
  const isSpan = (span: unknown, i: number, spans: readonly unknown[]) =>
    isObject(span) &&
    Number.isSafeInteger(span.batchSize) &&
    Number(span.batchSize) > 0 &&
    Number.isSafeInteger(span.from) &&
    (i === 0 ? span.from === 0 : Number(span.from) > Number((spans[i - 1] as BatchSpan).from));
  return Array.isArray(value) && value.length > 0 && value.every(isSpan);
}

/**
 * The sizes that the batches of a run have had which goes on from a checkpoint with batches of a size. Early versions
 * counted all steps by one size.
 */
export function spansAfter({ step, batches, origin }: TrainingState, batchSize: number): BatchSpan[] {
  const stored = batches ?? [{ from: 0, batchSize: origin?.globalBatch ?? batchSize }];
  const before = stored.filter(({ from }) => from < step);
  return before.at(-1)?.batchSize === batchSize ? before : [...before, { from: step, batchSize }];
}

function removeFolder(folder: string, name: string): void {
  const doomed = beginFile(join(folder, name));
  renameSync(join(folder, name), doomed);
  rmSync(doomed, { recursive: true, force: true });
}

/**
 * Replaces the link `last`. Where it cannot be made, as on a file system without links or on a full disk, there is none
 * until the next checkpoint.
 */
function pointTo(folder: string, name: string): void {
  const temporary = beginFile(join(folder, LAST));
  try {
    symlinkSync(name, temporary);
    renameSync(temporary, join(folder, LAST));
    flushFolder(folder);
  } catch {
    for (const path of [temporary, join(folder, LAST)]) rmSync(path, { force: true });
  }
}
