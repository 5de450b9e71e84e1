/**
 * Drawing a stored picture again: from the settings in its file to a pipeline and the options of a call, and the
 * comparison of what drew it with what is here.
 *
 * Other weights cannot give the same picture, so they are an error, unless the caller names the part on purpose; then,
 * as with other versions (where differences are small, if there are any), a warning says so.
 */
import { buildInfo } from "@miro-t2i/torch";
import { describe, InvalidInputError } from "../../errors.js";
import { checkSamplerOptions } from "../../flow/samplers/index.js";
import { about, message, option } from "../../message.js";
import { parseOptions } from "../../options.js";
import { readImageFile } from "../../pictures/image-files.js";
import { version } from "../../version.js";
import type { PictureSource } from "../edit.js";
import { generateSchema } from "../generate-options.js";
import { bundledModel } from "../loading/bundled.js";
import { availableDevices } from "../loading/device.js";
import { expandTilde, type WeightsIdentity } from "../loading/identity.js";
import type { FromPretrainedOptions } from "../loading/load-options.js";
import type { RewardTargets } from "../picture-options.js";
import { type ImageSettings, type PictureIdentity, readSettings } from "../settings.js";
import type { PromptRequest } from "./prompt-file.js";

/** The parts of a pipeline that a caller may name instead of those that drew the picture. */
export interface ChosenParts {
  model?: string | undefined;
  variant?: string | undefined;
  revision?: string | undefined;
  textEncoder?: string | undefined;
  vae?: string | undefined;
  device?: string | undefined;
  /** What is drawn over, instead of the files that the picture names. */
  image?: PictureSource | undefined;
  mask?: PictureSource | undefined;
}

/** How to draw a picture again. */
export interface Redrawing {
  settings: ImageSettings;
  model: string;
  load: Pick<
    FromPretrainedOptions,
    "variant" | "revision" | "device" | "dtype" | "quantization" | "textEncoderDtype" | "textEncoder" | "vae"
  >;
  request: PromptRequest;
}

/**
 * Reads how a picture was drawn.
 *
 * @param chosen parts to use instead of those that the picture names
 * @throws InvalidInputError when the file holds no settings, or holds some that cannot be; MiroError when it is damaged
 */
export async function readRedrawing(path: string, chosen: ChosenParts = {}): Promise<Redrawing> {
  const settings = readSettings((await readImageFile(path)).text, path);
  const { weights, variant, prompt, seed, device, dtype, quantization, textEncoderDtype } = settings;
  if (weights === undefined && chosen.model === undefined) {
    throw new InvalidInputError(
      message`${path}: does not say which weights drew it; name them with ${option("model")}`,
    );
  }
  if (chosen.device === undefined && !availableDevices().includes(device)) {
    const remedy = `name one that is (${availableDevices().join(", ")}), on which the picture may differ a little`;
    throw new InvalidInputError(
      message`${about("device")}: ${path} was drawn on ${describe(device)}, which is not available here; ${remedy}`,
    );
  }
  const own = chosen.model === undefined && weights ? locate(path, "model", weights.checkpoint) : null;
  const textEncoder =
    chosen.textEncoder ?? (own && weights?.textEncoder && partOf(path, "textEncoder", weights.textEncoder));
  const vae = chosen.vae ?? (own && weights && partOf(path, "vae", weights.autoencoder));
  return {
    settings,
    model: chosen.model ?? own!.model,
    load: {
      device,
      dtype,
      ...(quantization && { quantization }),
      ...(textEncoderDtype && { textEncoderDtype }),
      ...(own?.revision && { revision: own.revision }),
      ...(own && variant !== undefined && { variant }),
      ...(textEncoder && { textEncoder }),
      ...(vae && { vae }),
    },
    request: { prompt, options: storedOptions(settings, path, chosen), ...(seed !== null && { seed }) },
  };
}

/** Where the weights of a part are to be found on this machine. */
function locate(path: string, parameter: string, weights: WeightsIdentity): { model: string; revision?: string } {
  const { source, name, commit } = weights;
  if (source === "bundled") {
    const bundled = bundledModel();
    if (bundled !== null) return { model: bundled };
    throw new InvalidInputError(
      message`${about(parameter)}: ${path} was drawn by the bundled model, which is not in this copy; name its folder`,
    );
  }
  if (name === undefined) throw new InvalidInputError(`${path}: does not name the ${parameter} that drew it; name it`);
  return source === "hub" ? { model: name, ...(commit && { revision: commit }) } : { model: expandTilde(name) };
}

function partOf(path: string, parameter: string, weights: WeightsIdentity): string | null {
  return weights.source === "checkpoint" ? null : locate(path, parameter, weights).model;
}

/**
 * Settings that are options of `generate` by the same name; targets of which nothing was asked are left to their
 * defaults.
 */
function storedOptions(settings: ImageSettings, path: string, chosen: ChosenParts): PromptRequest["options"] {
  const { seed: _, image, mask, ...rest } = settings;
  const options: Record<string, unknown> = Object.fromEntries(
    Object.entries({
      ...rest,
      ...(image && { image: chosen.image ?? sourceOf(path, "image", image) }),
      ...(mask && { mask: chosen.mask ?? sourceOf(path, "mask", mask) }),
      rewardTargets: without(settings.rewardTargets, 1),
      negativeRewardTargets: without(settings.negativeRewardTargets, 0),
    }).filter(([key]) => Object.hasOwn(generateSchema.shape, key)),
  );
  try {
    const { sampler, samplerOptions } = parseOptions(generateSchema, options);
    checkSamplerOptions(sampler, samplerOptions);
  } catch (error) {
    if (!(error instanceof InvalidInputError)) throw error;
    throw new InvalidInputError(`${path}: the stored setting ${error.message}`, { cause: error });
  }
  return options;
}

/** Where a picture that was drawn over is to be found. */
function sourceOf(path: string, parameter: string, { file }: PictureIdentity): string {
  if (file !== undefined) return expandTilde(file);
  throw new InvalidInputError(
    message`${about(parameter)}: ${path} does not name the file that it was drawn over; name it`,
  );
}

function without(targets: RewardTargets, fallback: number): RewardTargets {
  return Object.fromEntries(Object.entries(targets).filter(([, target]) => target !== fallback));
}

/**
 * Compares the weights and the versions that drew a picture with those that are going to.
 *
 * @param actual settings of the picture as it would be drawn now
 * @param chosen parts that the caller named on purpose
 * @returns what the caller should know
 * @throws InvalidInputError when weights differ and none were named
 */
export function compareOrigin(
  path: string,
  stored: ImageSettings,
  actual: ImageSettings,
  chosen: ChosenParts = {},
): string[] {
  const warnings: string[] = [];
  const model = chosen.model ?? chosen.variant ?? chosen.revision;
  const parts = [
    ["checkpoint", "model", model],
    ["textEncoder", "textEncoder", chosen.textEncoder ?? model],
    ["autoencoder", "vae", chosen.vae ?? model],
  ] as const;
  for (const [part, parameter, given] of parts) {
    const [was, is] = [stored.weights?.[part], actual.weights?.[part]];
    if (!was || was.sha256 === is?.sha256) continue;
    const hashes = `SHA-256 ${was.sha256.slice(0, 10)}… then, ${is ? `${is.sha256.slice(0, 10)}…` : "none"} now`;
    if (given === undefined) {
      throw new InvalidInputError(
        message`${about(parameter)}: ${path} was drawn by other weights than are here (${hashes}), so it cannot be drawn again; name the right ones, or name these to draw another picture with its settings`,
      );
    }
    warnings.push(`${given} is not what drew ${path} (${hashes}): the picture will be another one`);
  }
  for (const parameter of ["image", "mask"] as const) {
    const [was, is] = [stored[parameter], actual[parameter]];
    if (!was || !is || was.sha256 === is.sha256) continue;
    if (chosen[parameter] === undefined) {
      throw new InvalidInputError(
        message`${about(parameter)}: ${is.file} is not what ${path} was drawn over: its pixels have changed; name the right file, or this one to draw another picture`,
      );
    }
    warnings.push(`the ${parameter} is not what ${path} was drawn over: the picture will be another one`);
  }
  const here = { miro: version(), torch: buildInfo().torchVersion };
  const then = stored.versions;
  if (then.miro !== here.miro || then.torch !== here.torch) {
    warnings.push(
      `${path} was drawn by miro-t2i ${then.miro} with torch ${then.torch}, this is ${here.miro} with ${here.torch}: the picture may differ a little`,
    );
  }
  return warnings;
}
