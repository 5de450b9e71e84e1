/** The folder of a run, whatever is trained: whether it can be written and used, and whether the disk has room. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { MiroError } from "../../errors.js";
import { FileLock } from "../../files/file-lock.js";
import { freeBytes } from "../../files/free-space.js";
import { formatSize } from "../../files/sizes.js";
import { readJson } from "../../files/whole-files.js";
import { proveWritable } from "../../files/writable.js";
import { message, option } from "../../message.js";
import { counted, wholeNumber } from "../../numbers.js";
import { type DataCheck, finding } from "../batches/finding.js";
import type { RecipeChange } from "../recipes/recipe-changes.js";
import { checkpointToResume, listCheckpoints, type TrainingState } from "../state/checkpoint.js";
import { RUN_LOCK } from "../state/run-lock.js";

/** How a run would be started. */
export interface StartOptions {
  /** Folder of the run. */
  output: string;
  resume?: boolean | number | undefined;
  allowChanges?: boolean | undefined;
  /**
   * False: another machine will train, as those of a cluster do; the devices and the memory of this one say nothing.
   */
  here?: boolean | undefined;
}

/** Bytes that a run writes. */
export interface DiskNeeds {
  /** How many checkpoints are there at once. */
  checkpoints: number;
  /** Bytes of one. */
  checkpoint: number;
  /** Bytes of the finished model. */
  release: number;
}

/**
 * The folder of the run: whether it can be written, and what is in it.
 * @param changesSince how the recipe of a checkpoint that the run would go on from differs from the run's
 */
export function checkOutput(
  { output, resume = false, allowChanges = false }: StartOptions,
  changesSince: (storedRecipe: TrainingState["recipe"]) => readonly RecipeChange[],
): DataCheck[] {
  const writable = finding("output", () => {
    proveWritable(output, "folder", "output");
    return output;
  });
  if (writable.status === "missing")
    return [{ ...writable, remedy: message`${option("output", "DIR")} names another folder` }];
  const faults: DataCheck[] = [];
  const owner = existsSync(output) ? FileLock.holder(output, RUN_LOCK) : null;
  if (owner !== null)
    faults.push({
      status: "missing",
      subject: "output",
      finding: `${output}: ${owner.text} trains here`,
      remedy: message`wait for its end, or name another ${option("output")}`,
    });
  const stored = listCheckpoints(join(output, "checkpoints"));
  if (stored.length > 0 && resume === false)
    faults.push({
      status: "missing",
      subject: "output",
      finding: `${output}: holds a run at step ${wholeNumber(stored.at(-1)!.step)}`,
      remedy: message`continue it with ${option("resume", true)}, or name another ${option("output")}`,
    });
  const checks = faults.length > 0 ? faults : [writable];
  if (stored.length === 0 || resume === false) return checks;
  let differs = false;
  const checkpoint = finding("checkpoint", () => {
    const { path, step } = checkpointToResume(join(output, "checkpoints"), resume)!;
    const state = readJson(join(path, "state.json")) as TrainingState;
    const changes = allowChanges ? [] : changesSince(state.recipe).map(({ key }) => key);
    differs = changes.length > 0;
    if (differs)
      throw new MiroError(`${path}: the run was made by another recipe, which differs in ${changes.join(", ")}`);
    return `goes on at step ${wholeNumber(step)}`;
  });
  const remedy = message`give the recipe it was made with, or continue with ${option("allowChanges", true)}`;
  checks.push(differs ? { ...checkpoint, remedy } : checkpoint);
  return checks;
}

/** Whether there is room for all that is written, checkpoints that are there already counted in. */
export function checkDisk({ checkpoints: count, checkpoint, release }: DiskNeeds, output: string): DataCheck {
  const needed = count * checkpoint + release;
  const there = sizeBelow(join(output, "checkpoints"));
  const free = freeBytes(output);
  const words = `${counted(count, "checkpoint")} of ${formatSize(checkpoint)} and a release: ${formatSize(needed)}`;
  if (free === null) return { status: "note", subject: "disk", finding: `${words}; what is free is not known` };
  const finding = `${words}; ${formatSize(free)} are free${there > 0 ? `, ${formatSize(there)} are there already` : ""}`;
  if (needed <= free + there) return { status: "ok", subject: "disk", finding };
  return {
    status: "missing",
    subject: "disk",
    finding,
    remedy: message`free some, name an ${option("output")} on another disk, or keep fewer: trainer.keep_last, trainer.keep_every_n_steps`,
  };
}

function sizeBelow(folder: string): number {
  if (!existsSync(folder)) return 0;
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + (statSync(join(parentPath, name), NONE)?.size ?? 0), 0);
}

/** A run that goes on removes checkpoints meanwhile. */
const NONE = { throwIfNoEntry: false } as const;
