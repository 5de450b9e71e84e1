/** `config.json` of a release folder: constructor arguments of the network and settings, with upstream's names. */
import { join } from "node:path";
import { z } from "zod";
import { checkName } from "../../arguments.js";
import { InvalidInputError, MiroError } from "../../errors.js";
import { checkContent } from "../../expectations.js";
import { checkPlainData } from "../../files/plain-data.js";
import { readJson } from "../../files/whole-files.js";
import {
  type FlowPrecondConfig,
  parsePrecondConfig,
  parseRinConfig,
  precondConfigToJson,
  type RinConfig,
  rinConfigToJson,
} from "../../networks/config.js";
import { oneLine } from "../../printable.js";

const latentProcessing = z.looseObject({
  channel_wise_normalisation: z.boolean().optional(),
  model_type: z.string().optional(),
});

const finite = z.number();
/** More steps than anyone draws with; a configuration that asks for more is damaged. */
const MAX_STEPS = 10_000;

const settingsSchema = z.looseObject({
  data_preprocessing: latentProcessing.optional(),
  postprocessing: latentProcessing.optional(),
  scheduler: z
    .strictObject({
      start: finite.optional(),
      end: finite.optional(),
      shift: finite.optional(),
      clip_min: finite.min(0).max(1).optional(),
    })
    .optional(),
  coherence_keys: z.array(z.string()).optional(),
  sampler_defaults: z
    .looseObject({
      num_steps: z.int().min(1).max(MAX_STEPS).optional(),
      guidance_scale: finite.optional(),
      shift: finite.positive().optional(),
    })
    .optional(),
  data_resolution: z.int().min(1).max(8192),
  img_resolution: z.int().min(1).optional(),
  max_text_len: z.int().min(1).max(65536).default(77),
  model_type: z.string().optional(),
  vae_repo: z.string().optional(),
  text_encoder_repo: z.string().optional(),
});

/** The settings of a `config.json` besides the network's, with upstream's names. Unknown ones are kept. */
export type ReleaseSettings = z.output<typeof settingsSchema>;

/** A parsed `config.json`. */
export interface ReleaseConfig {
  network: RinConfig;
  preconditioning: FlowPrecondConfig;
  settings: ReleaseSettings;
  /** The rewards that the checkpoint was trained on, in the order of its tokens. */
  coherenceKeys: readonly string[];
}

/**
 * Reads and checks `FOLDER/config.json`.
 * @throws MiroError naming the file, when it cannot be read; InvalidInputError naming the field, when it makes no sense
 */
export function readReleaseConfig(folder: string): ReleaseConfig {
  checkName("folder", folder, "the name of a folder");
  const path = join(folder, "config.json");
  return parseReleaseConfig(readJson(path), path);
}

/** Checks the content of a `config.json`. @param path of the file that it comes from, for errors */
export function parseReleaseConfig(json: unknown, path: string): ReleaseConfig {
  checkPlainData(json, (place) => `${path}: ${place}`);
  if (typeof json !== "object" || json === null || Array.isArray(json))
    throw new InvalidInputError(`${path}: expected an object`);
  const { network: networkJson, preconditioning: precondJson, ...rest } = json as Record<string, unknown>;
  const settings = checkContent(settingsSchema, rest, path);
  const network = inFile(path, () => parseRinConfig(networkJson));
  const parsed = inFile(path, () => parsePrecondConfig(precondJson ?? {}));
  const preconditioning = { ...parsed, numLatents: network.numLatents, latentsDim: network.latentsDim };
  if (settings.data_resolution !== network.dataSize) {
    throw new InvalidInputError(
      `${path}: data_resolution (${settings.data_resolution}) differs from network.data_size (${network.dataSize})`,
    );
  }
  const coherenceKeys = settings.coherence_keys ?? network.coherenceKeys;
  const missing = network.coherenceKeys.filter((key) => !coherenceKeys.includes(key));
  if (missing.length > 0 || coherenceKeys.length !== network.coherenceKeys.length) {
    throw new InvalidInputError(`${path}: coherence_keys differ from network.coherence_keys`);
  }
  return { network, preconditioning, settings, coherenceKeys: network.coherenceKeys };
}

/** Which latents of the SDXL autoencoder a network was trained on. */
export interface SdxlLatents {
  /** Normalised by the statistics of each channel, or by one factor. */
  channelWise: boolean;
  /** Drawn from mean and deviation, or the mean alone. */
  vaeSample?: boolean;
  /** The samples' members that hold them, without `.npy`. */
  mean?: string;
  std?: string | null;
}

/** What the published package asks of a `config.json` about latents; it knows those of the SDXL autoencoder alone. */
export function sdxlSettings({
  channelWise,
  vaeSample = true,
  mean = "vae_embeddings_mean_256",
  std = "vae_embeddings_std_256",
}: SdxlLatents): Pick<ReleaseSettings, "data_preprocessing" | "postprocessing" | "model_type"> {
  const latents = { channel_wise_normalisation: channelWise, model_type: "sdxl" };
  return {
    data_preprocessing: {
      input_key_mean: mean,
      ...(std !== null && { input_key_std: std }),
      output_key_root: "x_0",
      vae_sample: vaeSample,
      ...latents,
    },
    postprocessing: latents,
    model_type: "sdxl",
  };
}

/** The `config.json` of a configuration. */
export function releaseConfigToJson(config: ReleaseConfig): Record<string, unknown> {
  return {
    network: rinConfigToJson(config.network),
    preconditioning: precondConfigToJson(config.preconditioning),
    ...config.settings,
    coherence_keys: [...config.coherenceKeys],
  };
}

/** How a model is sampled where a call does not say. */
export interface SamplerDefaults {
  steps: number;
  guidanceScale: number;
  /** Of the schedule. */
  shift: number;
}

/**
 * The defaults of a model; where its configuration says none, those that the published models are sampled with. The
 * published schedule leaves a shift below 1 out; `sampler_defaults`, which it does not read, may have one.
 */
export function samplerDefaults({ sampler_defaults: own = {}, scheduler }: ReleaseSettings): SamplerDefaults {
  const { num_steps: steps = 50, guidance_scale: guidanceScale = 7 } = own;
  const { shift = Math.max(1, scheduler?.shift ?? 1) } = own;
  return { steps, guidanceScale, shift };
}

/** Runs `work`; an error that does not name the file is made to. */
function inFile<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw ofFile(path, error);
  }
}

/** What is thrown, naming the file. */
export function ofFile(path: string, error: unknown): unknown {
  if (!(error instanceof Error) || error.message.includes(path)) return error;
  const message = `${path}: ${oneLine(error.message)}`;
  return error instanceof InvalidInputError ? new InvalidInputError(message) : new MiroError(message, { cause: error });
}
