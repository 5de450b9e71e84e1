/** Runs of `miro train` as what a release is made from: the EMA weights of one of their checkpoints. */
import { existsSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { readNpy, SafetensorsFile } from "@miro-t2i/torch/io";
import { InvalidInputError, MiroError } from "../errors.js";
import { readJson } from "../files/whole-files.js";
import { about, message, option } from "../message.js";
import { parseRinConfig } from "../networks/config.js";
import { parseRecipe } from "../training/recipes/recipe.js";
import { checkpointToResume, listCheckpoints } from "../training/state/checkpoint.js";
import { readConstants } from "../training/state/data-constants.js";
import { copyFrozenParts, releaseConfigOf } from "../training/state/export.js";
import { type EmaChoice, emaFiles } from "./ema-choice.js";
import type { ReleaseSource } from "./source.js";
import type { Weight } from "./weights.js";

/** Options of {@link openRun}. */
export interface OpenRunOptions {
  /** Which EMA weights; default: those that the recipe releases. */
  ema?: EmaChoice | undefined;
  /** Which checkpoint; default: the newest. */
  step?: number | undefined;
  /** Text states of the empty prompt as `.npy`, where the run has stored none. */
  uncondEmbedding?: string | undefined;
}

/** Whether a folder is a run, or one of the checkpoints of a run. */
export function isRun(path: string): boolean {
  return listCheckpoints(join(path, "checkpoints")).length > 0 || existsSync(join(path, "state.json"));
}

/** Opens the newest checkpoint of a run, or the one that is named. @throws MiroError when it is damaged */
export function openRun(path: string, { ema, step, uncondEmbedding }: OpenRunOptions): ReleaseSource {
  const { checkpoint, run } = placeOf(path, step);
  const files: Disposable[] = [];
  const close = () => {
    for (const file of files) file[Symbol.dispose]();
  };
  try {
    const open = (name: string): SafetensorsFile => {
      const file = SafetensorsFile.open(join(checkpoint.path, name));
      files.push(file);
      return file;
    };
    const state = readJson(join(checkpoint.path, "state.json")) as { step: number; recipe: unknown };
    const recipe = parseRecipe(state.recipe, join(checkpoint.path, "state.json"));
    const chosen = emaFiles(checkpoint.path, recipe, ema);
    const own = open("network.safetensors");
    const averaged = chosen.file === null ? own : open(chosen.file);
    const constants = constantsOf(run, uncondEmbedding);
    const weights = new Map<string, Weight>();
    // An average's names have no prefix; the network's own have it, beside the preconditioning's.
    for (const key of averaged.keys())
      if (averaged !== own) weights.set(`network.${key}`, { file: averaged, key });
      else if (key.startsWith("network.")) weights.set(key, { file: own, key });
    for (const key of own.keys()) if (key.startsWith("preconditioning.")) weights.set(key, { file: own, key });
    for (const module of ["data_preprocessing", "postprocessing"]) {
      weights.set(`${module}.scale`, constants.normalization.scale);
      weights.set(`${module}.bias`, constants.normalization.bias);
    }
    return {
      path: checkpoint.path,
      config: releaseConfigOf(recipe, parseRinConfig(recipe.network)),
      weights,
      uncondEmbedding: constants.uncondEmbedding,
      average: chosen.words,
      step: state.step,
      preset: null,
      recipe,
      copyParts: (folder) => copyFrozenParts(recipe, folder),
      [Symbol.dispose]: close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

/** The checkpoint that is meant, compared with its hashes, and the folder of its run. */
function placeOf(path: string, step: number | undefined): { checkpoint: { step: number; path: string }; run: string } {
  const own = existsSync(join(path, "state.json"));
  const folder = own ? dirname(resolve(path)) : join(path, "checkpoints");
  const named = own ? Number(/^step-(\d{8,})$/.exec(basename(resolve(path)))?.[1] ?? Number.NaN) : step;
  if (own && step !== undefined)
    throw new InvalidInputError(message`${about("step")}: ${path} is one checkpoint; name its run to choose a step`);
  if (Number.isNaN(named)) throw new MiroError(`${path}: the folder of a checkpoint is named step-NNNNNNNN`);
  const checkpoint = checkpointToResume(folder, named ?? true);
  if (checkpoint === undefined) throw new InvalidInputError(`${path}: holds no checkpoint yet`);
  return { checkpoint, run: dirname(folder) };
}

function constantsOf(run: string, uncondEmbedding: string | undefined) {
  const constants = readConstants(run);
  if (constants !== null && uncondEmbedding === undefined) return constants;
  if (constants !== null) return { ...constants, uncondEmbedding: readNpy(uncondEmbedding!) };
  const exported = join(run, "export", "model.safetensors");
  if (existsSync(exported)) {
    using file = SafetensorsFile.open(exported);
    return {
      normalization: { scale: file.get("postprocessing.scale"), bias: file.get("postprocessing.bias") },
      uncondEmbedding: readNpy(uncondEmbedding ?? join(run, "export", "uncond_embedding.npy")),
    };
  }
  throw new InvalidInputError(
    message`${run}: stores no constants of its data (constants.safetensors): they were made up, or an early version wrote the run, and then ${option("resume", true)} of miro train stores them`,
  );
}
