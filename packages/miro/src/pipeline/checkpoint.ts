/**
 * Release folders, in the layout of the published checkpoints:
 *
 *   config.json              constructor arguments and settings, below
 *   model.safetensors        network.*, preconditioning.*, data_preprocessing.*, postprocessing.*
 *   uncond_embedding.npy     text encoder states of the empty string, (n, d) or (d,) float32
 *
 * A folder may also hold `text_encoder/` and `vae/`, which then come before any repository.
 */
import { existsSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import {
  type DType,
  nn,
  readNpy,
  SafetensorsFile,
  scope,
  type Tensor,
  writeNpy,
  writeSafetensors,
} from "@miro-t2i/torch";
import { z } from "zod";
import { InvalidInputError, MiroError, systemReason } from "../errors.js";
import { release } from "../flow/release.js";
import {
  type FlowPrecondConfig,
  parsePrecondConfig,
  parseRinConfig,
  precondConfigToJson,
  type RinConfig,
  rinConfigToJson,
} from "../networks/config.js";
import { FlowPrecond } from "../networks/precond.js";
import { Rin } from "../networks/rin.js";
import { readJson, writeFileAtomic } from "./files.js";
import { defaultNormalization, type LatentNormalization } from "./normalization.js";

/** The files every checkpoint has. */
export const CHECKPOINT_FILES = ["config.json", "model.safetensors", "uncond_embedding.npy"] as const;

const latentProcessing = z.looseObject({
  channel_wise_normalisation: z.boolean().optional(),
  model_type: z.string().optional(),
});

const finite = z.number();

const settingsSchema = z.looseObject({
  data_preprocessing: latentProcessing.optional(),
  postprocessing: latentProcessing.optional(),
  scheduler: z
    .strictObject({
      start: finite.optional(),
      end: finite.optional(),
      shift: finite.positive().optional(),
      clip_min: finite.min(0).max(1).optional(),
    })
    .optional(),
  coherence_keys: z.array(z.string()).optional(),
  sampler_defaults: z
    .looseObject({
      num_steps: z.int().min(1).optional(),
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

/** A checkpoint in memory. The modules are in evaluation mode and record no gradients. */
export interface Checkpoint {
  config: ReleaseConfig;
  network: Rin;
  preconditioning: FlowPrecond;
  /** Latents of the autoencoder → network. */
  preprocessing: LatentNormalization;
  /** Network → latents of the autoencoder. */
  postprocessing: LatentNormalization;
  /** Text of the unconditional branch, (n, label width) float32. */
  uncondEmbedding: Tensor;
}

/**
 * Reads and checks `FOLDER/config.json`.
 * @throws MiroError naming the file, when it cannot be read; InvalidInputError naming the field, when it makes no sense
 */
export function readReleaseConfig(folder: string): ReleaseConfig {
  const path = join(folder, "config.json");
  const json = readJson(path);
  if (typeof json !== "object" || json === null || Array.isArray(json))
    throw new InvalidInputError(`${path}: expected an object`);
  const { network: networkJson, preconditioning: precondJson, ...rest } = json as Record<string, unknown>;
  const result = settingsSchema.safeParse(rest);
  if (!result.success) {
    const { path: at, message } = result.error.issues[0]!;
    throw new InvalidInputError(`${path}: ${at.length > 0 ? `${at.join(".")}: ` : ""}${message}`);
  }
  const settings = result.data;
  const network = inFile(path, () => parseRinConfig(networkJson));
  const preconditioning = inFile(path, () => parsePrecondConfig(precondJson ?? {}));
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

/** The `config.json` of a configuration. */
export function releaseConfigToJson(config: ReleaseConfig): Record<string, unknown> {
  return {
    network: rinConfigToJson(config.network),
    preconditioning: precondConfigToJson(config.preconditioning),
    ...config.settings,
    coherence_keys: [...config.coherenceKeys],
  };
}

/** Options of {@link loadCheckpoint}. */
export interface LoadCheckpointOptions {
  /** Where the networks go, default `cpu`. */
  device?: string;
  /** What their weights become, whatever the file holds; default float32. */
  dtype?: DType;
}

/**
 * Loads a release folder. Names, shapes and dtypes are checked against `config.json` before anything large is allocated.
 * `network.` and `preconditioning.` load strictly; missing normalisation constants take their defaults;
 * `postprocessing.vae.*` is ignored.
 *
 * @throws MiroError naming the file and what is wrong with it
 */
export function loadCheckpoint(
  folder: string,
  { device = "cpu", dtype = "float32" }: LoadCheckpointOptions = {},
): Checkpoint {
  for (const name of CHECKPOINT_FILES) requireFile(folder, name);
  const config = readReleaseConfig(folder);
  const path = join(folder, "model.safetensors");
  const file = SafetensorsFile.open(path);
  try {
    const groups = groupByModule(file);
    checkAgainstConfig(path, file, config);
    const small = scope(() => ({
      preprocessing: loadNormalization(file, "data_preprocessing", config.settings.data_preprocessing, device),
      postprocessing: loadNormalization(file, "postprocessing", config.settings.postprocessing, device),
      uncondEmbedding: loadUncondEmbedding(join(folder, "uncond_embedding.npy"), config.network.labelDim, device),
    }));
    const modules: nn.Module[] = [];
    const load = <M extends nn.Module>(name: string, create: () => M): M => {
      // Without the random draws of a fresh network: every value comes from the file.
      const module = scope(() => nn.init.skipped(create));
      modules.push(module);
      const names = groups.get(name) ?? [];
      inFile(path, () =>
        scope(() => module.loadStateDict(new Map(names.map((key) => [key, file.get(`${name}.${key}`)])))),
      );
      return module.requiresGrad_(false).eval().to({ device, dtype });
    };
    try {
      const network = load("network", () => new Rin(config.network));
      const preconditioning = load("preconditioning", () => new FlowPrecond(config.preconditioning));
      return { config, network, preconditioning, ...small };
    } catch (error) {
      for (const module of modules) module.dispose();
      release(small);
      throw error;
    }
  } finally {
    file.close();
  }
}

/** Number of the network's floating values in a release folder, from the header of its tensor file. */
export function countParameters(folder: string): number {
  const file = SafetensorsFile.open(join(folder, "model.safetensors"));
  try {
    return file
      .keys()
      .filter((key) => key.startsWith("network.") && file.info(key).dtype !== "bool")
      .reduce((sum, key) => sum + file.info(key).shape.reduce((product, size) => product * size, 1), 0);
  } finally {
    file.close();
  }
}

/** What {@link saveCheckpoint} writes. */
export interface SaveCheckpointOptions extends Omit<Checkpoint, "preprocessing"> {
  /** Default: the same map as `postprocessing`. */
  preprocessing?: LatentNormalization;
  /** Dtype of the parameters in the file, default float32. Buffers (Fourier frequencies, constants) stay as they are. */
  dtype?: "float32" | "float16";
}

/** Writes a release folder. Each file appears whole; `config.json`, the one that readers look for, comes last. */
export function saveCheckpoint(folder: string, checkpoint: SaveCheckpointOptions): void {
  const {
    config,
    network,
    preconditioning,
    postprocessing,
    preprocessing = postprocessing,
    dtype = "float32",
  } = checkpoint;
  try {
    mkdirSync(folder, { recursive: true });
  } catch (error) {
    throw new MiroError(`${folder}: cannot be created: ${systemReason(error)}`, { cause: error });
  }
  scope(() => {
    const tensors = new Map<string, Tensor>();
    for (const [prefix, module] of [
      ["network", network],
      ["preconditioning", preconditioning],
    ] as const) {
      const parameters = new Set(module.parameters());
      for (const [name, tensor] of module.stateDict()) {
        tensors.set(`${prefix}.${name}`, hostCopy(tensor, parameters.has(tensor) ? dtype : "float32"));
      }
    }
    for (const [prefix, { scale, bias }] of [
      ["data_preprocessing", preprocessing],
      ["postprocessing", postprocessing],
    ] as const) {
      tensors.set(`${prefix}.scale`, hostCopy(scale, "float32"));
      tensors.set(`${prefix}.bias`, hostCopy(bias, "float32"));
    }
    writeSafetensors(join(folder, "model.safetensors"), tensors, { format: "pt" });
    writeNpy(join(folder, "uncond_embedding.npy"), hostCopy(checkpoint.uncondEmbedding, "float32"));
  });
  writeFileAtomic(join(folder, "config.json"), `${JSON.stringify(releaseConfigToJson(config), null, 2)}\n`, {
    overwrite: true,
  });
}

/** Floating tensors in `dtype`, others as they are; contiguous, on the host. */
function hostCopy(tensor: Tensor, dtype: DType): Tensor {
  const host = tensor.detach().to({ device: "cpu" });
  const floating = host.dtype.startsWith("float") || host.dtype === "bfloat16";
  return (floating ? host.to(dtype) : host).contiguous();
}

/** Tensor names by the module that they belong to, without the prefix. */
function groupByModule(file: SafetensorsFile): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  for (const key of file.keys()) {
    const dot = key.indexOf(".");
    if (dot < 0) continue;
    const prefix = key.slice(0, dot);
    groups.set(prefix, [...(groups.get(prefix) ?? []), key.slice(dot + 1)]);
  }
  return groups;
}

/**
 * Compares the sizes that `config.json` states with the tensors that they decide, before the network is allocated: a
 * configuration may state any size, the file is as large as it is.
 */
function checkAgainstConfig(path: string, file: SafetensorsFile, { network: c }: ReleaseConfig): void {
  const learned = c.concatCondTokenToLatents ? c.numLatents - c.numCondTokens - 1 : c.numLatents;
  const expected: Record<string, number[]> = {
    latents: [learned, c.latentsDim],
    data_pos_embedding: [(c.dataSize / c.patchSize) ** 2, c.dataDim],
    text_registers: [c.numTextRegisters, c.latentsDim],
    map_text_tokens: [c.latentsDim, c.labelDim],
    patch_extractor: [c.dataDim, c.patchSize ** 2 * c.numInputChannels],
  };
  for (const [name, shape] of Object.entries(expected)) {
    const key = `network.${name}${name.startsWith("map") || name.startsWith("patch") ? ".weight" : ""}`;
    if (!file.has(key)) throw new MiroError(`${path}: the tensor ${key} is missing`);
    const found = file.info(key).shape;
    if (found.length !== shape.length || found.some((size, i) => size !== shape[i])) {
      throw new MiroError(`${path}: tensor ${key}: expected shape [${shape}] as config.json says, found [${found}]`);
    }
  }
  const blocks = new Set(file.keys().flatMap((key) => /^network\.rin_blocks\.(\d+)\./.exec(key)?.[1] ?? []));
  if (blocks.size !== c.numBlocks) {
    throw new MiroError(`${path}: expected ${c.numBlocks} RIN blocks as config.json says, found ${blocks.size}`);
  }
}

function loadNormalization(
  file: SafetensorsFile,
  prefix: string,
  config: z.output<typeof latentProcessing> | undefined,
  device: string,
): LatentNormalization {
  return scope(() => {
    const stored = (name: string) =>
      file.has(`${prefix}.${name}`) ? file.get(`${prefix}.${name}`).to("float32").clone() : undefined;
    const scale = stored("scale");
    const bias = stored("bias");
    const fallback = scale && bias ? { scale, bias } : defaultNormalization(config ?? {});
    return {
      scale: (scale ?? fallback.scale).to({ device }),
      bias: (bias ?? fallback.bias).to({ device }),
    };
  });
}

/** (d,) or (n, d), any floating dtype → (n, d) float32. */
function loadUncondEmbedding(path: string, width: number, device: string): Tensor {
  return scope(() => {
    const stored = readNpy(path);
    const rows = stored.ndim === 1 ? stored.unsqueeze(0) : stored;
    if (rows.ndim !== 2 || rows.size(1) !== width || rows.size(0) === 0) {
      throw new MiroError(`${path}: expected shape (${width},) or (n, ${width}), found (${stored.shape.join(", ")})`);
    }
    return rows.to({ device, dtype: "float32" }).clone();
  });
}

function requireFile(folder: string, name: string): void {
  if (!existsSync(join(folder, name))) throw new InvalidInputError(`${join(folder, name)}: ${missingReason(folder)}`);
}

/** Why a checkpoint's file is not there, with the variants that are. */
function missingReason(folder: string): string {
  if (!existsSync(folder)) return "no such folder";
  const variants = listVariants(folder);
  const hint = variants.length > 0 ? `; the folder has the variants ${variants.join(", ")}` : "";
  return `not found; a checkpoint folder holds ${CHECKPOINT_FILES.join(", ")}${hint}`;
}

/** Sub-folders that hold checkpoints. */
export function listVariants(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => statSync(join(folder, name), { throwIfNoEntry: false })?.isDirectory())
      .filter((name) => CHECKPOINT_FILES.every((file) => existsSync(join(folder, name, file))))
      .sort();
  } catch {
    return [];
  }
}

/** Runs `work`; an error that does not name the file is made to. */
function inFile<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof Error) || error.message.includes(path)) throw error;
    const message = `${path}: ${error.message.replace(/\s*\n\s*/g, "; ")}`;
    throw error instanceof InvalidInputError
      ? new InvalidInputError(message)
      : new MiroError(message, { cause: error });
  }
}
