/**
 * Which checkpoint of a run is taken, while the run may go on:
 *
 *   RUN/checkpoints/step-00001000/   whole whenever it has this name (see training/state/checkpoint.ts)
 *   RUN/checkpoints/last             a link to the newest
 *
 * A run removes its older checkpoints. Whoever reads one therefore opens all of its files before it reads any of them:
 * an open file stays what it was. Where one was removed in between, a newer one is there.
 */
import { existsSync, readdirSync, realpathSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { TorchError } from "@miro-t2i/torch";
import { InvalidInputError, MiroError, systemReason } from "../../errors.js";
import { isFolder } from "../../files/make-folder.js";
import { about, message } from "../../message.js";

/** A checkpoint of a run. */
export interface StoredCheckpoint {
  /** Optimizer steps done. */
  step: number;
  path: string;
}

/** The file that says what a checkpoint is; every one has it. */
export const STATE_FILE = "state.json";

const finalName = /^step-(\d{8,})$/;

/** Complete checkpoints below `folder`, oldest first. */
export function listCheckpoints(folder: string): StoredCheckpoint[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .flatMap((name) => {
      const step = finalName.exec(name)?.[1];
      return step === undefined ? [] : [{ step: Number(step), path: join(folder, name) }];
    })
    .sort((a, b) => a.step - b.step);
}

/** Whether a path is a run, also one without a checkpoint yet, one of its checkpoints, or the folder of them. */
export function isRun(path: string): boolean {
  if (!isFolder(path)) return false;
  const has = (name: string) => existsSync(join(path, name));
  if (has(STATE_FILE) || (has("recipe.yaml") && !has("config.json"))) return true;
  return [path, join(path, "checkpoints")].some((folder) => isFolder(folder) && listCheckpoints(folder).length > 0);
}

/** What {@link openStored} is told. */
export interface OpenStoredOptions {
  /** Which checkpoint; default: the newest that is whole. */
  step?: number | undefined;
  /** Told of damaged checkpoints that are passed over. */
  onMessage?: ((message: string) => void) | undefined;
}

/** Attempts before a run that removes its checkpoints faster than they are opened is given up. */
const ATTEMPTS = 20;

/**
 * Opens the newest whole checkpoint of a run, or the one that the path or `step` names.
 * @param open opens all files that it needs, and throws MiroError or TorchError where the checkpoint is damaged
 * @throws InvalidInputError when there is none; MiroError when the one that is meant, or each of them, is damaged
 */
export function openStored<T>(
  path: string,
  { step, onMessage = () => {} }: OpenStoredOptions,
  open: (checkpoint: StoredCheckpoint & { run: string }) => T,
): T {
  for (let attempt = 1; ; attempt++) {
    const place = placeOf(path);
    if (place === null && attempt < ATTEMPTS) continue;
    if (place === null) throw changing(path);
    const { run, folder, named } = place;
    if (named !== null && step !== undefined)
      throw new InvalidInputError(message`${about("step")}: ${path} is one checkpoint; name its run to choose a step`);
    const stored = isFolder(folder) ? listCheckpoints(folder) : [];
    const wanted = named ?? step;
    const candidates = wanted === undefined ? [...stored].reverse() : stored.filter((one) => one.step === wanted);
    if (candidates.length === 0) throw nothingStored(path, folder, stored, wanted);
    const faults: Error[] = [];
    let isRemoved = false;
    for (const checkpoint of candidates) {
      try {
        const opened = open({ ...checkpoint, run });
        if (faults.length > 0)
          onMessage(`${faults[0]!.message}; the newest checkpoint that is whole is taken: step ${checkpoint.step}`);
        return opened;
      } catch (error) {
        isRemoved = !existsSync(checkpoint.path);
        if (isRemoved) break;
        faults.push(faultOf(checkpoint.path, error));
      }
    }
    if (!isRemoved || attempt === ATTEMPTS) throw faults[0] ?? changing(path);
  }
}

function changing(path: string): MiroError {
  return new MiroError(`${path}: its checkpoints change faster than they can be opened`);
}

/**
 * The run, the folder of its checkpoints, and the step of the one that the path names; null where the link `last`
 * changes in this moment.
 */
function placeOf(path: string): { run: string; folder: string; named: number | null } | null {
  if (existsSync(join(path, STATE_FILE))) {
    const own = finalName.test(basename(resolve(path))) ? resolve(path) : targetOf(path);
    if (own === null) return null;
    const step = finalName.exec(basename(own))?.[1];
    if (step === undefined) throw new MiroError(`${path}: the folder of a checkpoint is named step-NNNNNNNN`);
    return { run: dirname(dirname(own)), folder: dirname(own), named: Number(step) };
  }
  const inside = listCheckpoints(path).length > 0;
  return {
    run: inside ? dirname(resolve(path)) : path,
    folder: inside ? path : join(path, "checkpoints"),
    named: null,
  };
}

function targetOf(link: string): string | null {
  try {
    return realpathSync(link);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

function nothingStored(path: string, folder: string, stored: StoredCheckpoint[], wanted?: number): InvalidInputError {
  if (wanted === undefined)
    return new InvalidInputError(
      `${path}: holds no checkpoint yet; the run stores one every trainer.checkpoint_every_n_steps steps, and when it is stopped with Ctrl-C`,
    );
  const there = stored.map(({ step }) => step).join(", ");
  return new InvalidInputError(
    message`${about("step")}: ${folder} holds no checkpoint of step ${wanted}; ${there === "" ? "it holds none" : `there are those of ${there}`}`,
  );
}

/** An error that says what is wrong with a checkpoint. What a caller has chosen wrongly is thrown at once. */
function faultOf(path: string, error: unknown): Error {
  if (error instanceof InvalidInputError) throw error;
  if (error instanceof MiroError || error instanceof TorchError) return error;
  if ((error as NodeJS.ErrnoException).code === undefined) throw error;
  return new MiroError(`${path}: cannot be read: ${systemReason(error)}`, { cause: error });
}
