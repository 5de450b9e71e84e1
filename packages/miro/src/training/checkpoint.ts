/**
 * Training checkpoints: everything that decides the rest of a run.
 *
 *   RUN/checkpoints/step-00001000/
 *     network.safetensors     network.* and preconditioning.*, float32
 *     ema.safetensors         the averaged network; a further average of decay 0.999 is ema_0_999.safetensors
 *     optimizer.safetensors   moments, one tensor for each parameter
 *     state.json              step, EMA updates, the resolved recipe
 *
 * A checkpoint is written into a temporary folder, flushed to the disk and renamed, so that a folder with a final name is whole
 * whenever the process is killed. Removal renames first, for the same reason.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { type GradScalerState, readSafetensors, type Tensor, writeSafetensors } from "@miro-t2i/torch";
import { MiroError } from "../errors.js";

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

/** Writes one checkpoint and removes all but the newest `keepLast`. Returns its path. */
export function saveTrainingCheckpoint(folder: string, checkpoint: TrainingCheckpoint, keepLast = 2): string {
  const name = `step-${String(checkpoint.state.step).padStart(8, "0")}`;
  const path = join(folder, name);
  const temporary = join(folder, `.writing-${name}`);
  mkdirSync(folder, { recursive: true });
  removeLeftovers(folder);
  try {
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
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    throw new MiroError(
      `${path}: the checkpoint could not be written (${(error as Error).message}); earlier ones are intact`,
    );
  }
  for (const old of listCheckpoints(folder).slice(0, -Math.max(1, keepLast)))
    removeFolder(folder, `step-${String(old.step).padStart(8, "0")}`);
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

/** Removes what an earlier process left half-written or half-removed. */
function removeLeftovers(folder: string): void {
  for (const name of readdirSync(folder))
    if (name.startsWith(".writing-") || name.startsWith(".removing-"))
      rmSync(join(folder, name), { recursive: true, force: true });
}

function removeFolder(folder: string, name: string): void {
  const doomed = join(folder, `.removing-${name}`);
  renameSync(join(folder, name), doomed);
  rmSync(doomed, { recursive: true, force: true });
}

function flushFolder(path: string): void {
  const descriptor = openSync(path, "r");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
