/**
 * A model by what its user calls it, before anything of it is in memory: a release folder, a repository in that layout,
 * or a run of `miro train`, of which the newest whole checkpoint is taken.
 */
import { statSync } from "node:fs";
import { basename, isAbsolute, join, resolve } from "node:path";
import { InvalidInputError } from "../../errors.js";
import { readJson } from "../../files/whole-files.js";
import { about, message } from "../../message.js";
import { type CheckpointFiles, openReleaseFiles, weightFiles } from "./checkpoint.js";
import { type ModelSource, refuseRevision, resolveModel } from "./hub.js";
import type { HubOptions } from "./hub-repository.js";
import { identifyWeights, knownWeights, type PendingIdentity } from "./identity.js";
import { readReleaseConfig } from "./release-config.js";
import { isRun } from "./run-checkpoint.js";
import { openRunModel, type RunModel, runModelName } from "./run-model.js";
import { choosePart, fetchCheckpoint, type PartSource, variantPrefix } from "./sources.js";

/** A model whose files are at hand. */
export interface LocatedModel {
  /** What its pictures call it. */
  name: string;
  /** Folder of what lies beside the weights, such as the vocabulary. */
  folder: string;
  /** Opens the files, each time anew. */
  open(): CheckpointFiles;
  /** Begins to hash the weights, where their hashes are not known. */
  identify(): PendingIdentity;
  /** Where a part comes from. @param given what the caller has named in its place */
  part(parameter: "textEncoder" | "vae", given: string | undefined, fallback: string): PartSource;
  /** Closes what it keeps open. */
  close(): void;
}

/** What {@link locateModel} is told. */
export interface LocateOptions extends HubOptions {
  variant?: string | undefined;
}

/**
 * Finds a model and makes its files present.
 * @throws InvalidInputError when it is none; MiroError when its files are broken, or the Hub cannot be reached
 */
export async function locateModel(model: string, { variant, ...hub }: LocateOptions): Promise<LocatedModel> {
  if (isRun(model)) {
    refuseRevision(model, hub.revision);
    if (variant !== undefined && variant !== "")
      throw new InvalidInputError(message`${about("variant")}: ${model} is a run of miro train, which has no variants`);
    return runModel(openRunModel(model, { onMessage: hub.onMessage }));
  }
  const source = await resolveModel(model, "model", hub);
  const prefix = variantPrefix(source, variant);
  const folder = await fetchCheckpoint(source, prefix);
  const { text_encoder_repo: textEncoder, vae_repo: vae } = readReleaseConfig(folder).settings;
  return {
    name: source.folder === model ? basename(resolve(model)) : model,
    folder,
    open: () => openReleaseFiles(folder),
    identify: () => identifyWeights({ name: model }, folder, weightFiles(folder)),
    part: partChooser(source, prefix, { textEncoder, vae }),
    close: () => {},
  };
}

/** Decides where a part of a model comes from. */
export type PartChooser = LocatedModel["part"];

/**
 * The parts of a model for whoever needs no network of it: of a repository nothing but its configuration is fetched.
 *
 * @param model null for none: the parts that are named, or those of the published model
 * @throws InvalidInputError when it is none
 */
export async function locateParts(model: string | null, hub: HubOptions): Promise<PartChooser> {
  if (model === null) return partChooser({ name: "", folder: "", files: [], fetch: async () => {} }, "", {});
  if (isRun(model)) {
    using files = openRunModel(model, { onMessage: hub.onMessage });
    return partsOfRun(files);
  }
  const source = await resolveModel(model, "model", hub);
  const config: unknown = source.files.includes("config.json")
    ? await source.fetch(["config.json"]).then(() => readJson(join(source.folder, "config.json")))
    : null;
  const named = (field: string): string | undefined => {
    const value = (config as Record<string, unknown> | null)?.[field];
    return typeof value === "string" ? value : undefined;
  };
  return partChooser(source, "", { textEncoder: named("text_encoder_repo"), vae: named("vae_repo") });
}

const PART_FOLDERS = { textEncoder: "text_encoder", vae: "vae" } as const;

/** @param configured what the model's configuration names */
function partChooser(
  source: ModelSource,
  prefix: string,
  configured: { textEncoder?: string | undefined; vae?: string | undefined },
): PartChooser {
  return (parameter, given, fallback) =>
    choosePart(source, `${prefix}${PART_FOLDERS[parameter]}/`, parameter, given, configured[parameter], fallback);
}

function runModel(files: RunModel): LocatedModel {
  const { path, weights } = files;
  const isKnown = [...weights.values()].every((hash) => hash !== null);
  return {
    name: runModelName(files),
    folder: path,
    // They stay open: the run may remove the checkpoint meanwhile.
    open: () => ({ ...files, [Symbol.dispose]: () => {} }),
    identify: () =>
      isKnown
        ? knownWeights(path, weights as ReadonlyMap<string, string>)
        : identifyWeights({ name: path }, path, [...weights.keys()]),
    part: partsOfRun(files),
    close: () => files[Symbol.dispose](),
  };
}

function partsOfRun(files: Pick<RunModel, "path" | "textEncoder" | "vae">): PartChooser {
  return (parameter, given, fallback) => {
    const named = files[parameter];
    const isGone =
      given === undefined && named !== undefined && isAbsolute(named) && !statSync(named, { throwIfNoEntry: false });
    if (isGone)
      throw new InvalidInputError(
        message`${about(parameter)}: ${files.path} was trained with ${named}, which is not there; name the folder where it is now`,
      );
    return { name: given ?? named ?? fallback, parameter, source: null, prefix: "" };
  };
}
