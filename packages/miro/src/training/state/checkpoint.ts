/**
 * Training checkpoints: everything that decides the rest of a run.
 *
 *   RUN/checkpoints/step-00001000/
 *     network.safetensors     network.* and preconditioning.*, float32
 *     ema.safetensors         the averaged network; a further average of decay 0.999 is ema_0_999.safetensors
 *     optimizer.safetensors   moments, one tensor for each parameter
 *     state.json              step, EMA updates, samples seen, the resolved recipe, versions
 *   RUN/checkpoints/last      a link to the newest of them
 *
 * Randomness and the position in the data have no files: both are functions of the recipe's seed, the step and the global batch, whatever
 * the number of processes.
 *
 * A checkpoint is written into a temporary folder, flushed to the disk and renamed, so that a folder with a final name is whole
 * whenever the process is killed. Removal renames first, for the same reason. The link is replaced by renaming too, after the folder is
 * in place and before older ones go; who resumes takes the newest folder and needs no link.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import type { Tensor } from "@miro-t2i/torch";
import { beginFile, flushFolder, removeKilledWrites } from "@miro-t2i/torch/atomic-write";
import { readSafetensors, writeSafetensors } from "@miro-t2i/torch/io";
import type { GradScalerState } from "@miro-t2i/torch/optim";
import { describe, MiroError, systemReason } from "../../errors.js";

/** The plain part of a checkpoint, `state.json`. */
export interface TrainingState {
  format: 1;
  /** Optimiser steps done. */
  step: number;
  emaUpdates: number;
  /** Steps left out because of gradients that were not finite. */
  skippedSteps: number;
  /** Seconds of training so far, all sittings together. */
  seconds: number;
  /** Updates that the optimiser has made: `step` without the skipped ones. */
  optimizerStep: number;
  /** With `16-mixed`. */
  scaler?: GradScalerState;
  /** The resolved recipe of the run. */
  recipe: unknown;
  /** What is known beside of the run that wrote it; checkpoints of early versions lack it. */
  origin?: CheckpointOrigin;
}

/** Who wrote a checkpoint, and where in the data it stands. */
export interface CheckpointOrigin {
  /** Samples of one optimiser step, all processes together. */
  globalBatch: number;
  /** Samples that the run has been trained on: the position in the stream of data. */
  samplesSeen: number;
  /** Processes that shared the batch. */
  processes: number;
  /** Versions of this package and of libtorch. */
  code: { miro: string; torch: string };
}

export type NamedTensors = Record<string, Tensor>;

export interface TrainingCheckpoint {
  state: TrainingState;
  network: NamedTensors;
  /** The averaged networks by their published names, `ema_network` and `ema_network_0_999`. */
  emas: Record<string, NamedTensors>;
  optimizer: NamedTensors;
}

/** The file of an average. */
const emaFile = (name: string) => `${name.replace(/^ema_network/, "ema")}.safetensors`;
const emaFilePattern = /^ema(_[\w-]+)?\.safetensors$/;

/** Which checkpoints stay when a new one is written. */
export interface RetentionOptions {
  /** The newest so many stay, default 2. */
  keepLast?: number;
  /** So do those whose step is a multiple of this; 0 (default): none. */
  keepEveryNSteps?: number;
}

const LAST = "last";
const finalName = /^step-(\d{8,})$/;

/** Complete checkpoints below `folder`, oldest first. */
export function listCheckpoints(folder: string): { step: number; path: string }[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .flatMap((name) => {
      const step = finalName.exec(name)?.[1];
      return step === undefined ? [] : [{ step: Number(step), path: join(folder, name) }];
    })
    .sort((a, b) => a.step - b.step);
}

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
  const name = `step-${String(checkpoint.state.step).padStart(8, "0")}`;
  const path = join(folder, name);
  const temporary = beginFile(path);
  try {
    mkdirSync(folder, { recursive: true });
    removeKilledWrites(folder);
    mkdirSync(temporary);
    writeSafetensors(join(temporary, "network.safetensors"), checkpoint.network);
    for (const [name, average] of Object.entries(checkpoint.emas))
      writeSafetensors(join(temporary, emaFile(name)), average);
    writeSafetensors(join(temporary, "optimizer.safetensors"), checkpoint.optimizer);
    writeFileSync(join(temporary, "state.json"), `${JSON.stringify(checkpoint.state, null, 2)}\n`, { flush: true });
    flushFolder(temporary);
    if (existsSync(path)) removeFolder(folder, name);
    renameSync(temporary, path);
    flushFolder(folder);
    pointTo(folder, name);
  } catch (error) {
    try {
      rmSync(temporary, { recursive: true, force: true });
    } catch {
      // what kept the checkpoint from being written may keep this too; the next one removes it
    }
    const reason = (error as Error).cause ?? error;
    throw new MiroError(
      `${path}: the checkpoint could not be written: ${systemReason(reason)}; earlier ones are intact, --resume continues from the newest`,
      { cause: error },
    );
  }
  const stored = listCheckpoints(folder);
  for (const old of stored.slice(0, -Math.max(1, keepLast)))
    if (keepEveryNSteps === 0 || old.step % keepEveryNSteps !== 0) removeFolder(folder, basename(old.path));
  return path;
}

/**
 * Reads a checkpoint. The tensors are views of the mapped files: copy them into the modules (`loadStateDict` does), inside a
 * `scope()` that frees them.
 */
export function loadTrainingCheckpoint(path: string): TrainingCheckpoint {
  const statePath = join(path, "state.json");
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

function removeFolder(folder: string, name: string): void {
  const doomed = beginFile(join(folder, name));
  renameSync(join(folder, name), doomed);
  rmSync(doomed, { recursive: true, force: true });
}

/** Replaces the link `last`. Some file systems know no links: there is none then. */
function pointTo(folder: string, name: string): void {
  const temporary = beginFile(join(folder, LAST));
  try {
    symlinkSync(name, temporary);
    renameSync(temporary, join(folder, LAST));
  } catch (error) {
    rmSync(temporary, { force: true });
    if (!["EPERM", "ENOTSUP", "ENOSYS"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
  }
  flushFolder(folder);
}
