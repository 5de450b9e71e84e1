/**
 * Training checkpoints of the published code (`last.ckpt`) as what a release is made from. Its configuration is told
 * from the tensors, and from `config.yaml` or `config.json` beside it.
 */
import { existsSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { scope, type Tensor } from "@miro-t2i/torch";
import { readNpy } from "@miro-t2i/torch/io";
import { defaultNormalization } from "../autoencoder/normalization.js";
import { InvalidInputError, MiroError } from "../errors.js";
import { message, option } from "../message.js";
import { precondConfigToJson, rinConfigToJson } from "../networks/config.js";
import { uncondStates } from "../pipeline/loading/checkpoint.js";
import { DEFAULT_TEXT_ENCODER, DEFAULT_VAE } from "../pipeline/loading/parts.js";
import { type ReleaseConfig, readReleaseConfig, sdxlSettings } from "../pipeline/loading/release-config.js";
import { PublishedCheckpoint } from "../training/state/published-checkpoint.js";
import { type RunConfiguration, readRunConfiguration } from "./config-yaml.js";
import { type EmaChoice, emaModule } from "./ema-choice.js";
import { inferNetwork, inferPreconditioning } from "./infer-network.js";
import { PRESETS } from "./presets.js";
import type { ReleaseSource } from "./source.js";
import { infoOf, read, type Weight } from "./weights.js";

/** Options of {@link openCkpt}. */
export interface OpenCkptOptions {
  /** Which EMA weights; default: those that the run's configuration samples with, else the first. */
  ema?: EmaChoice | undefined;
  /** Text states of the empty prompt as `.npy`; default: the checkpoint's own, or a file beside it. */
  uncondEmbedding?: string | undefined;
}

/** Files with the empty prompt's text states that may lie beside a checkpoint. */
const UNCOND_FILES = ["uncond_embedding.npy", "flan_t5_xl_uncond.npy"];
/** Of pictures per latent, of the SDXL autoencoder. */
const VAE_SCALE = 8;
const SDXL_CHANNELS = 4;

/** Opens a checkpoint. Nothing in it is executed. @throws MiroError naming the file and what is wrong with it */
export function openCkpt(path: string, { ema, uncondEmbedding }: OpenCkptOptions): ReleaseSource {
  const checkpoint = PublishedCheckpoint.open(path);
  try {
    const folder = dirname(resolve(path));
    const yaml = readRunConfiguration(folder);
    const json = existsSync(join(folder, "config.json")) ? readReleaseConfig(folder) : null;
    const preset = PRESETS.get(basename(folder)) ?? null;
    const { name, words } = emaModule(path, checkpoint.averages, ema ?? yaml?.defaultEma ?? 0);
    if (!checkpoint.modules.includes(name))
      throw new MiroError(`${path}: holds no ${name}; it holds ${checkpoint.modules.join(", ") || "nothing"}`);
    const weights = new Map<string, Weight>();
    const take = (module: string, as: string): ReadonlyMap<string, Weight> => {
      const tensors = checkpoint.tensors(module);
      // The autoencoder lies below postprocessing.
      for (const [key, weight] of tensors) if (!key.startsWith("vae.")) weights.set(`${as}.${key}`, weight);
      return tensors;
    };
    const tensors = take(name, "network");
    const logvar = take("preconditioning", "preconditioning");
    for (const module of ["data_preprocessing", "postprocessing"]) take(module, module);
    const scale = weights.get("postprocessing.scale");
    const channels = scale === undefined ? SDXL_CHANNELS : channelsOf(path, scale);
    const network = inferNetwork({ path, module: name }, tensors, channels, {
      ...(json && rinConfigToJson(json.network)),
      ...yaml?.network,
    });
    const preconditioning = inferPreconditioning(path, logvar, network, {
      ...(json && precondConfigToJson(json.preconditioning)),
      ...yaml?.preconditioning,
    });
    if (preset !== null && String(preset.rewards) !== String(network.coherenceKeys))
      throw new MiroError(
        `${path}: the folder is named as ${preset.title} of ${preset.repository}, which knows ${preset.rewards.join(", ")}; the checkpoint knows ${network.coherenceKeys.join(", ")}; rename the folder to convert it as a model of its own`,
      );
    if (scale === undefined) normalise(path, weights, yaml?.channelWise);
    return {
      path,
      config: json ?? {
        network,
        preconditioning,
        coherenceKeys: network.coherenceKeys,
        settings: settingsOf(network.dataSize, network.numCondTokens, yaml),
      },
      weights,
      uncondEmbedding: uncondOf(path, checkpoint, network.labelDim, uncondEmbedding),
      average: words,
      step: checkpoint.step,
      preset,
      training: null,
      recipe: null,
      checkpoint: null,
      copyParts: () => undefined,
      [Symbol.dispose]: () => checkpoint.close(),
    };
  } catch (error) {
    checkpoint.close();
    throw error;
  }
}

/** Channels of the latents that the scale of their normalization is for. */
function channelsOf(path: string, scale: Weight): number {
  const { shape } = infoOf(scale);
  const [, channels] = shape;
  if (channels !== undefined && channels > 0) return channels;
  throw new MiroError(`${path}: postprocessing.scale: expected shape [1, channels, 1, 1], found [${shape}]`);
}

/** The constants that a checkpoint without its own was trained with. */
function normalise(path: string, weights: Map<string, Weight>, channelWise: boolean | undefined): void {
  if (channelWise === undefined)
    throw new InvalidInputError(
      `${path}: holds no normalization of latents (postprocessing.scale), and there is no config.yaml beside it that says which one the run had`,
    );
  const { scale, bias } = defaultNormalization({ channel_wise_normalisation: channelWise });
  for (const module of ["data_preprocessing", "postprocessing"]) {
    weights.set(`${module}.scale`, scale);
    weights.set(`${module}.bias`, bias);
  }
}

function settingsOf(dataSize: number, textTokens: number, yaml: RunConfiguration | null): ReleaseConfig["settings"] {
  return {
    ...sdxlSettings({ channelWise: yaml?.channelWise ?? true }),
    scheduler: { start: 1, end: 0, clip_min: 1e-9, ...yaml?.scheduler },
    sampler_defaults: { num_steps: 50, guidance_scale: yaml?.cfgRate ?? 7 },
    data_resolution: dataSize,
    img_resolution: yaml?.imgResolution ?? dataSize * VAE_SCALE,
    max_text_len: yaml?.textTokens ?? textTokens,
    vae_repo: DEFAULT_VAE,
    text_encoder_repo: DEFAULT_TEXT_ENCODER,
  };
}

/** Text states of the empty prompt: of the file that is named, of the checkpoint, of a file beside it. */
function uncondOf(path: string, checkpoint: PublishedCheckpoint, width: number, named: string | undefined): Tensor {
  const stored = checkpoint.tensors("uncond_conditioning").get("");
  const beside = UNCOND_FILES.map((name) => join(dirname(resolve(path)), name)).find((file) => existsSync(file));
  const file = named ?? (stored === undefined ? beside : undefined);
  if (file === undefined && stored === undefined)
    throw new InvalidInputError(
      message`${path}: holds no text states of the empty prompt; name a file with them with ${option("uncondEmbedding", "uncond_embedding.npy")}: the published checkpoints have it`,
    );
  return scope(() => {
    const fail = (problem: string) =>
      new InvalidInputError(`${file ?? path}: text states of the empty prompt: ${problem}`);
    return uncondStates(file === undefined ? read(stored!, "float32") : readNpy(file), width, fail).clone();
  });
}
