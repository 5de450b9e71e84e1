/**
 * Release folders, in the layout of the published checkpoints:
 *
 *   config.json              constructor arguments and settings, below
 *   model.safetensors        network.*, preconditioning.*, data_preprocessing.*, postprocessing.*; or several files
 * with
 *                            model.safetensors.index.json
 *   uncond_embedding.npy     text encoder states of the empty string, (n, d) or (d,) float32
 *
 * A folder may also hold `text_encoder/` and `vae/`, which then come before any repository.
 */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { type DType, empty, isFloatingPoint, nn, scope, type Tensor } from "@miro-t2i/torch";
import { loadModuleInPieces, readNpy, type StoredTensor, takeAll } from "@miro-t2i/torch/io";
import { checkName, checkObject } from "../../arguments.js";
import { defaultNormalization, type LatentNormalization } from "../../autoencoder/normalization.js";
import { InvalidInputError, MiroError } from "../../errors.js";
import { isFolder } from "../../files/make-folder.js";
import { openTensorFile, shardNames } from "../../files/tensor-files.js";
import { release } from "../../flow/release.js";
import { FlowPrecond, isLogVariance } from "../../networks/precond.js";
import { Rin } from "../../networks/rin.js";
import { filled, type Pieces } from "../../pieces.js";
import { ofFile, type ReleaseConfig, type ReleaseSettings, readReleaseConfig } from "./release-config.js";

/** The files every checkpoint has; of the weights, the first of {@link WEIGHT_FILES} that is there. */
export const CHECKPOINT_FILES = ["config.json", "model.safetensors", "uncond_embedding.npy"] as const;

/** Which file of several holds which tensor, where the weights are not one file. */
export const WEIGHTS_INDEX = "model.safetensors.index.json";

const WEIGHT_FILES = ["model.safetensors", WEIGHTS_INDEX] as const;

/** The files of {@link CHECKPOINT_FILES} that are not among those that `has` knows. */
export function missingFiles(has: (name: string) => boolean): string[] {
  return CHECKPOINT_FILES.filter((name) => !has(name) && !(name === WEIGHT_FILES[0] && has(WEIGHT_FILES[1])));
}

/** Names of the files with the weights of a folder whose description is there. @throws MiroError naming the index */
export function weightFiles(folder: string): string[] {
  const [single, index] = WEIGHT_FILES;
  return existsSync(join(folder, single)) ? [single] : shardNames(join(folder, index));
}

/** A checkpoint in memory. The modules are in evaluation mode and record no gradients. */
export interface Checkpoint {
  /** What `config.json` says. */
  config: ReleaseConfig;
  /** The network. */
  network: Rin;
  /** Wraps the network's input and output. */
  preconditioning: FlowPrecond;
  /** Latents of the autoencoder → network. */
  preprocessing: LatentNormalization;
  /** Network → latents of the autoencoder. */
  postprocessing: LatentNormalization;
  /** Text of the unconditional branch, (n, label width) float32. */
  uncondEmbedding: Tensor;
}

/** The files of a model, open: what they hold is known, and nothing of it is in memory yet. */
export interface CheckpointFiles extends Disposable {
  /** What holds the tensors, for errors. */
  path: string;
  config: ReleaseConfig;
  /** By their names in a release. */
  tensors: ReadonlyMap<string, StoredTensor>;
  /** Text states of the empty prompt as they are stored; the caller owns them. */
  readUncondEmbedding(): Tensor;
  /** Where those are stored. */
  uncondPath: string;
}

/** Options of {@link loadCheckpoint}. */
export interface LoadCheckpointOptions {
  /** Where the networks go, default `cpu`. */
  device?: string | undefined;
  /** What their weights become, whatever the file holds; default float32. */
  dtype?: DType | undefined;
}

/** A release folder whose files were found to fit each other; all of it is in memory but the network. */
export interface OpenedCheckpoint extends Omit<Checkpoint, "network"> {
  /** Reads the network, each time anew; the caller owns it. @throws MiroError or TorchError naming the file */
  loadNetwork(): Pieces<Rin>;
}

/**
 * Opens a release folder. What `config.json` describes is compared with what the tensor file holds before anything is
 * allocated. `network.` and `preconditioning.` load strictly; missing normalisation constants take their defaults;
 * other tensors, such as `postprocessing.vae.*`, are ignored. Values that are not finite are refused.
 *
 * @throws MiroError naming the file and what is wrong with it
 */
function openCheckpoint(folder: string, options: LoadCheckpointOptions = {}): OpenedCheckpoint {
  return openCheckpointFiles(() => openReleaseFiles(folder), options);
}

/** The files of a release folder. @throws MiroError naming the file that is missing or broken */
export function openReleaseFiles(folder: string): CheckpointFiles {
  checkName("folder", folder, "the name of a folder");
  const [missing] = missingFiles((name) => existsSync(join(folder, name)));
  if (missing !== undefined) throw new InvalidInputError(`${join(folder, missing)}: ${missingReason(folder)}`);
  const config = readReleaseConfig(folder);
  const path = weightsPath(folder);
  const uncondPath = join(folder, "uncond_embedding.npy");
  const file = openTensorFile(path);
  return {
    path,
    config,
    tensors: new Map(file.keys().map((key) => [key, { file, key }])),
    uncondPath,
    readUncondEmbedding: () => {
      checkSize(uncondPath, config);
      return readNpy(uncondPath);
    },
    [Symbol.dispose]: () => file[Symbol.dispose](),
  };
}

/** As {@link openCheckpoint}, of files wherever they lie. @param open opens them, each time anew */
export function openCheckpointFiles(
  open: () => CheckpointFiles,
  options: LoadCheckpointOptions = {},
): OpenedCheckpoint {
  checkObject("options", options, "{ device, dtype }");
  const { device = "cpu", dtype = "float32" } = options;
  using files = open();
  const { config, path, tensors } = files;
  function* load<M extends nn.Module>(from: CheckpointFiles, name: string, create: () => M): Pieces<M> {
    // Without the random draws of a fresh network: every value comes from the file.
    const fresh = () => scope(() => nn.init.skipped(create));
    const module = yield* filled(fresh, function* (module) {
      try {
        yield* loadModuleInPieces(module, tensorsOf(from, name), { device, dtype });
      } catch (error) {
        throw ofFile(path, error);
      }
    });
    return module.requiresGrad_(false).eval();
  }
  checkAgainstConfig(path, tensors, config);
  const { numInputChannels: channels } = config.network;
  const owned: { dispose(): void }[] = [];
  const own = <T extends { dispose(): void }>(value: T): T => {
    owned.push(value);
    return value;
  };
  try {
    const normalization = (name: "data_preprocessing" | "postprocessing") => {
      const loaded = loadNormalization(tensors, name, config.settings[name], channels, device);
      own(loaded.scale);
      own(loaded.bias);
      return loaded;
    };
    return {
      config,
      preprocessing: normalization("data_preprocessing"),
      postprocessing: normalization("postprocessing"),
      uncondEmbedding: own(loadUncondEmbedding(files, device)),
      preconditioning: own(takeAll(load(files, "preconditioning", () => new FlowPrecond(config.preconditioning)))),
      *loadNetwork() {
        using again = open();
        return yield* load(again, "network", () => new Rin(config.network));
      },
    };
  } catch (error) {
    for (const value of owned) value.dispose();
    throw error;
  }
}

/** Loads a release folder; see `openCheckpoint`. @throws MiroError naming the file and what is wrong with it */
export function loadCheckpoint(folder: string, options: LoadCheckpointOptions = {}): Checkpoint {
  return loaded(openCheckpoint(folder, options));
}

/** Loads open files, and closes them. @throws MiroError naming the file and what is wrong with it */
export function loadCheckpointFiles(files: CheckpointFiles, options: LoadCheckpointOptions = {}): Checkpoint {
  using own = files;
  return loaded(openCheckpointFiles(() => ({ ...own, [Symbol.dispose]: () => {} }), options));
}

function loaded({ loadNetwork, ...rest }: OpenedCheckpoint): Checkpoint {
  try {
    return { ...rest, network: takeAll(loadNetwork()) };
  } catch (error) {
    rest.preconditioning.dispose();
    release([rest.preprocessing, rest.postprocessing, rest.uncondEmbedding]);
    throw error;
  }
}

/** Number of the network's floating values in a release folder, from the header of its tensor file. */
export function countParameters(folder: string): number {
  using file = openTensorFile(weightsPath(folder));
  return countNetwork(new Map(file.keys().map((key) => [key, { file, key }])));
}

/** The same of tensors by their names in a release. */
export function countNetwork(tensors: CheckpointFiles["tensors"]): number {
  return [...tensors]
    .map(([name, { file, key }]) => ({ name, ...file.info(key) }))
    .filter(({ name, dtype }) => name.startsWith("network.") && dtype !== "bool")
    .reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
}

function weightsPath(folder: string): string {
  return join(folder, WEIGHT_FILES.find((name) => existsSync(join(folder, name))) ?? WEIGHT_FILES[0]);
}

/** The tensors of one module, without its prefix; no log-variance where the configuration has no reweighting. */
function tensorsOf({ tensors, config }: CheckpointFiles, module: string): Map<string, StoredTensor> {
  const prefix = `${module}.`;
  const reweights = config.preconditioning.doGradnormReweighting;
  const own = [...tensors].filter(([name]) => name.startsWith(prefix) && (reweights || !isLogVariance(name)));
  return new Map(own.map(([name, stored]) => [name.slice(prefix.length), stored]));
}

/**
 * Compares the sizes that `config.json` states with the tensors that they decide, before the network is allocated: a
 * configuration may state any size, the file is as large as it is.
 */
function checkAgainstConfig(path: string, tensors: CheckpointFiles["tensors"], config: ReleaseConfig): void {
  const { network: c, preconditioning: p } = config;
  const learned = c.concatCondTokenToLatents ? c.numLatents - c.numCondTokens - 1 : c.numLatents;
  const expected: Record<string, number[]> = {
    "network.latents": [learned, c.latentsDim],
    "network.data_pos_embedding": [(c.dataSize / c.patchSize) ** 2, c.dataDim],
    "network.text_registers": [c.numTextRegisters, c.latentsDim],
    "network.map_text_tokens.weight": [c.latentsDim, c.labelDim],
    "network.patch_extractor.weight": [c.dataDim, c.patchSize ** 2 * c.numInputChannels],
    "network.coherence_positional_embedding": [c.coherenceKeys.length, c.latentsDim],
    ...(p.doGradnormReweighting && { "preconditioning.logvar_proj.0.freqs": [p.logvarChannels] }),
  };
  for (const [key, shape] of Object.entries(expected)) {
    const stored = tensors.get(key);
    if (stored === undefined) throw new MiroError(`${path}: the tensor ${key} is missing`);
    const found = stored.file.info(stored.key).shape;
    if (found.length !== shape.length || found.some((size, i) => size !== shape[i])) {
      throw new MiroError(`${path}: tensor ${key}: expected shape [${shape}] as config.json says, found [${found}]`);
    }
  }
  const count = (pattern: RegExp) => new Set([...tensors.keys()].flatMap((key) => pattern.exec(key)?.[1] ?? [])).size;
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
  tensors: CheckpointFiles["tensors"],
  prefix: string,
  config: ReleaseSettings["postprocessing"],
  channels: number,
  device: string,
): LatentNormalization {
  return scope(() => {
    const stored = (name: string) => {
      const tensor = tensors.get(`${prefix}.${name}`);
      if (tensor === undefined) return undefined;
      const { file, key } = tensor;
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

/** Refuses a file that is larger than text states of the empty prompt can be. */
function checkSize(path: string, { network, settings }: ReleaseConfig): void {
  const { size } = statSync(path);
  const width = network.labelDim;
  const most = Math.max(settings.max_text_len, 1024) * width * 8 + 16_384;
  if (size > most) throw new MiroError(`${path}: ${size} bytes are too many for rows of ${width} values`);
}

/** (d,) or (n, d), any floating dtype → (n, d) float32. */
function loadUncondEmbedding(files: CheckpointFiles, device: string): Tensor {
  const { uncondPath: path, config } = files;
  return scope(() => {
    const fail = (problem: string) => new MiroError(`${path}: ${problem}`);
    return uncondStates(files.readUncondEmbedding(), config.network.labelDim, fail).to({ device }).clone();
  });
}

/**
 * Text states of the empty prompt, (n, width) float32, of an array in any of the shapes that files have.
 * @param fail makes the error of what is wrong with them
 */
export function uncondStates(stored: Tensor, width: number, fail: (problem: string) => Error): Tensor {
  const rows = stored.ndim === 1 ? stored.unsqueeze(0) : stored;
  const states = rows.ndim === 3 && rows.size(0) === 1 ? rows.select(0, 0) : rows;
  if (states.ndim !== 2 || states.size(1) !== width || states.size(0) === 0)
    throw fail(`expected shape (${width},) or (n, ${width}), found (${stored.shape.join(", ")})`);
  if (!isFloatingPoint(states.dtype)) throw fail(`expected floating values, found ${states.dtype}`);
  if (!states.isfinite().all().item()) throw fail("holds values that are not finite");
  return states.float();
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
      .filter((name) => isFolder(join(folder, name)))
      .filter((name) => missingFiles((file) => existsSync(join(folder, name, file))).length === 0)
      .sort();
  } catch {
    return [];
  }
}
