/** Runs of `miro train` as what a release is made from: the EMA weights of one of their checkpoints. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { scope } from "@miro-t2i/torch";
import { readNpy, SafetensorsFile } from "@miro-t2i/torch/io";
import { InvalidInputError } from "../errors.js";
import { readJson } from "../files/whole-files.js";
import { message, option } from "../message.js";
import { parseRinConfig } from "../networks/config.js";
import { uncondStates } from "../pipeline/loading/checkpoint.js";
import { openStored, type StoredCheckpoint } from "../pipeline/loading/run-checkpoint.js";
import { readModelDescription } from "../pipeline/loading/run-model.js";
import { sourceFacts } from "../training/batches/sources.js";
import { parseRecipe } from "../training/recipes/recipe.js";
import { checkTrainingCheckpoint, type TrainingState } from "../training/state/checkpoint.js";
import { readConstants } from "../training/state/data-constants.js";
import { copyFrozenParts, releaseConfigOf } from "../training/state/export.js";
import { type EmaChoice, emaFiles } from "./ema-choice.js";
import type { ReleaseSource } from "./source.js";
import type { Weight } from "./weights.js";

/** Options of {@link openRun}. */
export interface OpenRunOptions {
  /** Which EMA weights; default: those that the recipe releases. */
  ema?: EmaChoice | undefined;
  /** Which checkpoint; default: the newest that is whole. */
  step?: number | undefined;
  /** Text states of the empty prompt as `.npy`, where the run has stored none. */
  uncondEmbedding?: string | undefined;
  /** Told of damaged checkpoints that are passed over. */
  onMessage?: ((message: string) => void) | undefined;
}

/**
 * Opens the newest whole checkpoint of a run, or the one that is named. All of its files stay open until the source is
 * disposed of, whatever the run removes meanwhile.
 * @throws InvalidInputError when there is none; MiroError when the one that is meant is damaged
 */
export function openRun(path: string, { step, onMessage, ...options }: OpenRunOptions): ReleaseSource {
  return openStored(path, { step, onMessage }, (checkpoint) => openCheckpoint(checkpoint, options));
}

function openCheckpoint(
  { path, run }: StoredCheckpoint & { run: string },
  { ema, uncondEmbedding }: Pick<OpenRunOptions, "ema" | "uncondEmbedding">,
): ReleaseSource {
  const files = new Map<string, SafetensorsFile>();
  const close = () => {
    for (const file of files.values()) file.close();
  };
  try {
    for (const name of readdirSync(path).filter((name) => name.endsWith(".safetensors")))
      files.set(name, SafetensorsFile.open(join(path, name)));
    checkTrainingCheckpoint(path);
    const state = readJson(join(path, "state.json")) as TrainingState;
    const recipe = parseRecipe(state.recipe, join(path, "state.json"));
    const chosen = emaFiles(path, recipe, ema);
    const own = files.get("network.safetensors")!;
    const averaged = chosen.file === null ? own : files.get(chosen.file)!;
    const network = parseRinConfig(recipe.network);
    const constants = constantsOf(run, network.labelDim, uncondEmbedding);
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
    const facts = sourceFacts(recipe.data, network);
    // Names in a recipe are of the folder that it was trained in.
    const { textEncoder = facts.textEncoder, vae: autoencoder = facts.autoencoder } = readModelDescription(path) ?? {};
    return {
      path,
      config: releaseConfigOf(recipe, network),
      weights,
      uncondEmbedding: constants.uncondEmbedding,
      average: chosen.words,
      step: state.step,
      preset: null,
      training: {
        batchSize: recipe.trainer.batchSize,
        maxSteps: recipe.trainer.maxSteps,
        precision: recipe.trainer.precision,
        optimizer: recipe.optimizer.name,
        lr: recipe.optimizer.lr,
      },
      recipe,
      checkpoint: { state, files },
      copyParts: (folder, dtype, signal) =>
        copyFrozenParts({ ...facts, textEncoder, autoencoder }, folder, { half: dtype !== "float32", signal }),
      [Symbol.dispose]: close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

function constantsOf(run: string, width: number, uncondEmbedding: string | undefined) {
  const statesIn = (file: string) =>
    scope(() => uncondStates(readNpy(file), width, (problem) => new InvalidInputError(`${file}: ${problem}`)).keep());
  const constants = readConstants(run);
  if (constants !== null) {
    const states = uncondEmbedding === undefined ? constants.uncondEmbedding : statesIn(uncondEmbedding);
    if (states !== null) return { ...constants, uncondEmbedding: states };
    throw new InvalidInputError(
      message`${run}: knows no text states of the empty prompt; name a file with them with ${option("uncondEmbedding", "uncond_embedding.npy")}, or resume the run with data.text_encoder or data.uncond_embedding`,
    );
  }
  const exported = join(run, "export", "model.safetensors");
  if (existsSync(exported)) {
    using file = SafetensorsFile.open(exported);
    return {
      normalization: { scale: file.get("postprocessing.scale"), bias: file.get("postprocessing.bias") },
      uncondEmbedding: statesIn(uncondEmbedding ?? join(run, "export", "uncond_embedding.npy")),
    };
  }
  throw new InvalidInputError(
    message`${run}: stores no constants of its data (constants.safetensors): they were made up, or an early version wrote the run, and then ${option("resume", true)} of miro train stores them`,
  );
}
