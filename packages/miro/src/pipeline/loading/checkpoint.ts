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
import { type DType, empty, isFloatingPoint, nn, scope, type Tensor } from "@miro-t2i/torch";
import {
  loadModule,
  readNpy,
  SafetensorsFile,
  type StoredTensor,
  writeNpy,
  writeSafetensors,
} from "@miro-t2i/torch/io";
import { z } from "zod";
import { defaultNormalization, type LatentNormalization } from "../../autoencoder/normalization.js";
import { InvalidInputError, MiroError, systemReason } from "../../errors.js";
import { readJson, writeFileAtomic } from "../../files/files.js";
import { checkPlainData } from "../../files/plain-data.js";
import { release } from "../../flow/release.js";
import {
  type FlowPrecondConfig,
  parsePrecondConfig,
  parseRinConfig,
  precondConfigToJson,
  type RinConfig,
  rinConfigToJson,
} from "../../networks/config.js";
import { FlowPrecond } from "../../networks/precond.js";
import { Rin } from "../../networks/rin.js";
import { oneLine } from "../../printable.js";

/** The files every checkpoint has. */
export const CHECKPOINT_FILES = ["config.json", "model.safetensors", "uncond_embedding.npy"] as const;

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
      shift: finite.positive().optional(),
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
  checkPlainData(json, (place) => `${path}: ${place}`);
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

/** A release folder whose files were found to fit each other; all of it is in memory but the network. */
export interface OpenedCheckpoint extends Omit<Checkpoint, "network"> {
  /** Reads the network, each time anew; the caller owns it. @throws MiroError or TorchError naming the file */
  loadNetwork(): Rin;
}

/**
 * Opens a release folder. What `config.json` describes is compared with what the tensor file holds before anything is
 * allocated. `network.` and `preconditioning.` load strictly; missing normalisation constants take their defaults; other
 * tensors, such as `postprocessing.vae.*`, are ignored. Values that are not finite are refused.
 *
 * @throws MiroError naming the file and what is wrong with it
 */
export function openCheckpoint(
  folder: string,
  { device = "cpu", dtype = "float32" }: LoadCheckpointOptions = {},
): OpenedCheckpoint {
  for (const name of CHECKPOINT_FILES) requireFile(folder, name);
  const config = readReleaseConfig(folder);
  const path = join(folder, "model.safetensors");
  const load = <M extends nn.Module>(file: SafetensorsFile, name: string, create: () => M): M => {
    // Without the random draws of a fresh network: every value comes from the file.
    const module = scope(() => nn.init.skipped(create));
    try {
      inFile(path, () => loadModule(module, tensorsOf(file, name), { device, dtype }));
    } catch (error) {
      module.dispose();
      throw error;
    }
    return module.requiresGrad_(false).eval();
  };
  using file = SafetensorsFile.open(path);
  checkAgainstConfig(path, file, config);
  const { numInputChannels: channels, labelDim } = config.network;
  const owned: { dispose(): void }[] = [];
  const own = <T extends { dispose(): void }>(value: T): T => {
    owned.push(value);
    return value;
  };
  try {
    const normalization = (name: "data_preprocessing" | "postprocessing") => {
      const loaded = loadNormalization(file, name, config.settings[name], channels, device);
      own(loaded.scale);
      own(loaded.bias);
      return loaded;
    };
    return {
      config,
      preprocessing: normalization("data_preprocessing"),
      postprocessing: normalization("postprocessing"),
      uncondEmbedding: own(
        loadUncondEmbedding(join(folder, "uncond_embedding.npy"), labelDim, config.settings.max_text_len, device),
      ),
      preconditioning: own(load(file, "preconditioning", () => new FlowPrecond(config.preconditioning))),
      loadNetwork: () => {
        using again = SafetensorsFile.open(path);
        return load(again, "network", () => new Rin(config.network));
      },
    };
  } catch (error) {
    for (const value of owned) value.dispose();
    throw error;
  }
}

/** Loads a release folder; see {@link openCheckpoint}. @throws MiroError naming the file and what is wrong with it */
export function loadCheckpoint(folder: string, options: LoadCheckpointOptions = {}): Checkpoint {
  const { loadNetwork, ...rest } = openCheckpoint(folder, options);
  try {
    return { ...rest, network: loadNetwork() };
  } catch (error) {
    rest.preconditioning.dispose();
    release([rest.preprocessing, rest.postprocessing, rest.uncondEmbedding]);
    throw error;
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
  return (isFloatingPoint(host.dtype) ? host.to(dtype) : host).contiguous();
}

/** The tensors of one module, without its prefix. */
function tensorsOf(file: SafetensorsFile, module: string): Map<string, StoredTensor> {
  const prefix = `${module}.`;
  const keys = file.keys().filter((key) => key.startsWith(prefix));
  return new Map(keys.map((key) => [key.slice(prefix.length), { file, key }]));
}

/**
 * Compares the sizes that `config.json` states with the tensors that they decide, before the network is allocated: a
 * configuration may state any size, the file is as large as it is.
 */
function checkAgainstConfig(path: string, file: SafetensorsFile, config: ReleaseConfig): void {
  const { network: c, preconditioning: p } = config;
  const learned = c.concatCondTokenToLatents ? c.numLatents - c.numCondTokens - 1 : c.numLatents;
  const expected: Record<string, number[]> = {
    "network.latents": [learned, c.latentsDim],
    "network.data_pos_embedding": [(c.dataSize / c.patchSize) ** 2, c.dataDim],
    "network.text_registers": [c.numTextRegisters, c.latentsDim],
    "network.map_text_tokens.weight": [c.latentsDim, c.labelDim],
    "network.patch_extractor.weight": [c.dataDim, c.patchSize ** 2 * c.numInputChannels],
    "network.coherence_positional_embedding": [c.coherenceKeys.length, c.latentsDim],
    "preconditioning.logvar_proj.0.freqs": [p.logvarChannels],
  };
  for (const [key, shape] of Object.entries(expected)) {
    if (!file.has(key)) throw new MiroError(`${path}: the tensor ${key} is missing`);
    const found = file.info(key).shape;
    if (found.length !== shape.length || found.some((size, i) => size !== shape[i])) {
      throw new MiroError(`${path}: tensor ${key}: expected shape [${shape}] as config.json says, found [${found}]`);
    }
  }
  const count = (pattern: RegExp) => new Set(file.keys().flatMap((key) => pattern.exec(key)?.[1] ?? [])).size;
  const layers: [what: string, described: number, found: number][] = [
    ["RIN blocks", c.numBlocks, count(/^network\.rin_blocks\.(\d+)\./)],
    ["processing layers", c.numProcessingLayers, count(/^network\.rin_blocks\.0\.processer_sa\.(\d+)\./)],
  ];
  for (const [what, described, found] of layers) {
    if (found !== described) {
      throw new MiroError(`${path}: expected ${described} ${what} as config.json says, found ${found}`);
    }
  }
}

function loadNormalization(
  file: SafetensorsFile,
  prefix: string,
  config: z.output<typeof latentProcessing> | undefined,
  channels: number,
  device: string,
): LatentNormalization {
  return scope(() => {
    const stored = (name: string) => {
      const key = `${prefix}.${name}`;
      if (!file.has(key)) return undefined;
      const shape = [1, channels, 1, 1];
      const found = file.info(key).shape;
      if (found.length !== 4 || found.some((size, i) => size !== shape[i])) {
        throw new MiroError(`${file.path}: tensor ${key}: expected shape [${shape}], found [${found}]`);
      }
      const values = empty(shape);
      file.copyTo(key, values);
      return values;
    };
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
function loadUncondEmbedding(path: string, width: number, maxRows: number, device: string): Tensor {
  const { size } = statSync(path);
  const most = Math.max(maxRows, 1024) * width * 8 + 16_384;
  if (size > most) throw new MiroError(`${path}: ${size} bytes are too many for rows of ${width} values`);
  return scope(() => {
    const stored = readNpy(path);
    const rows = stored.ndim === 1 ? stored.unsqueeze(0) : stored;
    if (rows.ndim !== 2 || rows.size(1) !== width || rows.size(0) === 0) {
      throw new MiroError(`${path}: expected shape (${width},) or (n, ${width}), found (${stored.shape.join(", ")})`);
    }
    if (!isFloatingPoint(rows.dtype)) throw new MiroError(`${path}: expected floating values, found ${rows.dtype}`);
    if (!rows.isfinite().all().item()) throw new MiroError(`${path}: holds values that are not finite`);
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
    const message = `${path}: ${oneLine(error.message)}`;
    throw error instanceof InvalidInputError
      ? new InvalidInputError(message)
      : new MiroError(message, { cause: error });
  }
}
