/**
 * A checkpoint of a run as a model. Beside the weights of a training checkpoint lies `model.json`, which says what they
 * are as a model, so that a run can be drawn with at any moment and by programs that do not know its data:
 *
 *   network         the file with the EMA weights that draw
 *   config          as `config.json` of a release
 *   text_encoder    folder or repository of the frozen text encoder, where the recipe names one
 *   vae             the same of the autoencoder
 *
 * The run's own folder has `constants.safetensors`: the normalization of its latents, and the empty prompt where it is
 * known.
 */
import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { SafetensorsFile, type StoredTensor } from "@miro-t2i/torch/io";
import { z } from "zod";
import { InvalidInputError, type MiroError } from "../../errors.js";
import { checkSum, readSums } from "../../files/checksums.js";
import { parseJsonFile } from "../../files/json-file.js";
import { readJson } from "../../files/whole-files.js";
import { message, option } from "../../message.js";
import type { CheckpointFiles } from "./checkpoint.js";
import { checkLinks } from "./hub-cache.js";
import { parseReleaseConfig, type ReleaseConfig, releaseConfigToJson } from "./release-config.js";
import { isRun, type OpenStoredOptions, openStored, type StoredCheckpoint } from "./run-checkpoint.js";

/** The description beside the weights. */
export const MODEL_FILE = "model.json";

/** What a release says of a run's data, in the folder of the run. */
export const CONSTANTS_FILE = "constants.safetensors";

const NETWORK_FILE = "network.safetensors";

const modelSchema = z.object({
  network: z.string().regex(/^ema(_[\w-]+)?\.safetensors$/, "expected the name of a file with EMA weights"),
  config: z.unknown(),
  text_encoder: z.string().min(1).optional(),
  vae: z.string().min(1).optional(),
});

/** What {@link MODEL_FILE} says. */
export interface ModelDescription {
  /** The file with the EMA weights that draw. */
  network: string;
  config: ReleaseConfig;
  /** Folder or repository of the frozen text encoder. */
  textEncoder?: string | undefined;
  /** Folder or repository of the frozen autoencoder. */
  vae?: string | undefined;
}

/** The text of the file. */
export function modelText({ network, config, textEncoder, vae }: ModelDescription): string {
  const json = { network, config: releaseConfigToJson(config), text_encoder: textEncoder, vae };
  return `${JSON.stringify(json, null, 2)}\n`;
}

/** Reads the description of a checkpoint; null where it has none. @throws InvalidInputError */
export function readModelDescription(checkpoint: string): ModelDescription | null {
  const path = join(checkpoint, MODEL_FILE);
  if (!existsSync(path)) return null;
  const { network, config, text_encoder: textEncoder, vae } = parseJsonFile(path, modelSchema);
  return { network, config: parseReleaseConfig(config, path), textEncoder, vae };
}

/** A checkpoint of a run that is open as a model. */
export interface RunModel extends Omit<ModelDescription, "network">, CheckpointFiles {
  checkpoint: StoredCheckpoint;
  /** Folder of the run. */
  run: string;
  /** Files of the weights, and their SHA-256 where the checkpoint has it. */
  weights: ReadonlyMap<string, string | null>;
}

/**
 * Opens the newest whole checkpoint of a run, or the one that the path names. Its files stay open until it is disposed
 * of, whatever the run removes.
 *
 * @throws InvalidInputError when there is none, or none that is a model; MiroError when it is damaged
 */
export function openRunModel(path: string, options: OpenStoredOptions = {}): RunModel {
  return openStored(path, options, ({ run, ...checkpoint }) => {
    const files: SafetensorsFile[] = [];
    const close = () => {
      for (const file of files) file.close();
    };
    const open = (folder: string, name: string): SafetensorsFile => {
      const file = SafetensorsFile.open(join(folder, name));
      files.push(file);
      return file;
    };
    try {
      const sums = readSums(checkpoint.path);
      if (sums?.has(MODEL_FILE)) checkSum(checkpoint.path, MODEL_FILE, sums);
      const description = readModelDescription(checkpoint.path);
      if (description === null) throw noModel(checkpoint.path);
      const names = [description.network, NETWORK_FILE];
      checkLinks(checkpoint.path, [MODEL_FILE, ...names], "model");
      const [average, own] = names.map((name) => open(checkpoint.path, name)) as [SafetensorsFile, SafetensorsFile];
      for (const name of names) if (sums !== null) checkSum(checkpoint.path, name, sums);
      if (!existsSync(join(run, CONSTANTS_FILE))) throw noConstants(run);
      const constants = open(run, CONSTANTS_FILE);
      return {
        ...description,
        checkpoint,
        run,
        path: checkpoint.path,
        tensors: tensorsOf(average, own, constants),
        weights: new Map(names.map((name) => [name, sums?.get(name) ?? null])),
        uncondPath: constants.path,
        readUncondEmbedding: () => {
          if (!constants.keys().includes("uncond_embedding")) throw noEmptyPrompt(run, description.textEncoder);
          return constants.get("uncond_embedding");
        },
        [Symbol.dispose]: close,
      };
    } catch (error) {
      close();
      throw error;
    }
  });
}

/** By their names in a release: an average's own names have no prefix, the network's file holds other modules too. */
function tensorsOf(average: SafetensorsFile, own: SafetensorsFile, constants: SafetensorsFile) {
  const tensors = new Map<string, StoredTensor>();
  for (const key of average.keys()) tensors.set(`network.${key}`, { file: average, key });
  for (const key of own.keys()) if (key.startsWith("preconditioning.")) tensors.set(key, { file: own, key });
  for (const module of ["data_preprocessing", "postprocessing"])
    for (const part of ["scale", "bias"])
      tensors.set(`${module}.${part}`, { file: constants, key: `normalization.${part}` });
  return tensors;
}

/** Why a checkpoint does not say what it is as a model. */
function noModel(checkpoint: string): MiroError {
  const state = readJson(join(checkpoint, "state.json")) as { recipe?: { kind?: unknown } } | null;
  const kind = state?.recipe?.kind;
  if (typeof kind === "string")
    return new InvalidInputError(`${checkpoint}: is of a run that trains a part (kind ${kind}), no model that draws`);
  return new InvalidInputError(
    message`${checkpoint}: was written by a version that stored no ${MODEL_FILE}; miro convert makes a release of it, and ${option("resume", true)} of miro train writes new checkpoints`,
  );
}

function noConstants(run: string): MiroError {
  return new InvalidInputError(
    message`${run}: stores no ${CONSTANTS_FILE}, which holds what a model must know of its data: they were made up, or an early version wrote the run, and then ${option("resume", true)} of miro train stores it`,
  );
}

function noEmptyPrompt(run: string, textEncoder: string | undefined): MiroError {
  const [why, how] =
    textEncoder === undefined
      ? ["its recipe names neither data.text_encoder nor data.uncond_embedding", "one of them"]
      : [`it could not have its text encoder, ${textEncoder}`, "that at hand, or with data.uncond_embedding,"];
  const lack = message`${run}: knows no text states of the empty prompt, as ${why}`;
  return new InvalidInputError(message`${lack}; ${option("resume", true)} of miro train with ${how} stores them`);
}

/**
 * A model by a name that means the same weights however long the work with it takes: of a run, which goes on, the
 * checkpoint that is the newest now.
 *
 * @param onMessage told of damaged checkpoints that are passed over
 */
export function pinnedModel(model: string, onMessage?: (message: string) => void): string {
  if (!isRun(model)) return model;
  using opened = openRunModel(model, { onMessage });
  return opened.path;
}

/** What a checkpoint of a run is called in the settings of its pictures. */
export function runModelName({ run, checkpoint }: Pick<RunModel, "run" | "checkpoint">): string {
  return `${basename(resolve(run))} step ${checkpoint.step}`;
}
