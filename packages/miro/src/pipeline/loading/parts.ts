/**
 * What a pipeline is made of, and how it comes into memory from a folder or the Hub. With `lowMemory` the text encoder,
 * the network and the decoder take turns: each is read when its turn comes and freed after it.
 */
import { join } from "node:path";
import { memory, type nn } from "@miro-t2i/torch";
import { takeAll } from "@miro-t2i/torch/io";
import { type Autoencoder, countStoredWeights, loadingAutoencoder } from "../../autoencoder/index.js";
import { InvalidInputError, invalid } from "../../errors.js";
import { readJson } from "../../files/whole-files.js";
import { release } from "../../flow/release.js";
import { about, message } from "../../message.js";
import type { Rin } from "../../networks/rin.js";
import { inPieces, type Pieces } from "../../pieces.js";
import { T5Encoder, type T5LoadOptions } from "../../text/t5.js";
import { countT5Parameters } from "../../text/t5-config.js";
import { Tokenizer } from "../../text/tokenizer.js";
import { Vocabulary } from "../../text/vocabulary.js";
import { type Checkpoint, countNetwork, openCheckpointFiles } from "./checkpoint.js";
import { type ComputeDType, checkDevice, resolveDType, SMALL_NETWORK } from "./device.js";
import type { HubOptions } from "./hub-repository.js";
import { identifyWeights, type PendingIdentity } from "./identity.js";
import type { LoadOptions } from "./load-options.js";
import { type LocatedModel, locateModel } from "./located-model.js";
import { fetchTextEncoder, fetchVae, isLocal, type PartSource, textEncoderWeights, vaeWeights } from "./sources.js";

/** Where the text encoder and the autoencoder come from when nothing else is said. */
export const DEFAULT_TEXT_ENCODER = "google/flan-t5-xl";
export const DEFAULT_VAE = "stabilityai/sdxl-vae";

/** A tokenizer and its encoder. */
export interface TextEncoder {
  tokenizer: Tokenizer;
  encoder: T5Encoder;
}

/** A module that is read when it is used, and again after it was freed. */
export class Part<M extends nn.Module> {
  readonly #load: () => Pieces<M>;
  #module: M | null = null;

  constructor(load: () => Pieces<M>) {
    this.#load = load;
  }

  /** The module; where it is not in memory, it is read at once. */
  get module(): M {
    this.#module ??= takeAll(this.#load());
    return this.#module;
  }

  /** Reads the module where it is not in memory, and lets other work run meanwhile. @throws the signal's reason */
  async load(signal: AbortSignal | undefined): Promise<M> {
    if (this.#module !== null) return this.#module;
    const loaded = await inPieces(this.#load(), signal);
    // Others may have needed it meanwhile.
    if (this.#module === null) this.#module = loaded;
    else loaded.dispose();
    return this.#module;
  }

  /** Gives the memory back to the system. */
  free(): void {
    this.#module?.dispose();
    this.#module = null;
    memory.emptyCache();
  }
}

/** Which weights a pipeline draws with; hashes may still be on their way. */
export interface PipelineOrigin {
  checkpoint: PendingIdentity;
  autoencoder: PendingIdentity;
  /** Makes the text encoder's files present, without loading them. */
  textEncoder: () => Promise<{ weights: PendingIdentity; dtype: "float32" | "bfloat16" }>;
}

/** What a pipeline is made of, for callers that have the parts in memory. */
export interface PipelineParts extends Omit<Checkpoint, "network"> {
  network: Rin | Part<Rin>;
  autoencoder: Autoencoder | Part<Autoencoder>;
  /** Loaded at the first call that needs it; the signal stops that. */
  loadTextEncoder: (signal?: AbortSignal) => Promise<TextEncoder>;
  /** The parts take turns in memory; network and autoencoder are {@link Part}s then. */
  lowMemory?: boolean;
  device?: string;
  dtype?: Exclude<ComputeDType, "auto">;
  /** Set where the parts come from files. */
  origin?: PipelineOrigin;
  /** How the network's weights were rounded when they were loaded; recorded in settings. */
  quantization?: "none" | "int8";
  /** Name of the model in settings. */
  name?: string;
  variant?: string | undefined;
  /** What the model knows, where its folder says so. */
  vocabulary?: Vocabulary | null;
  /** Closes the files that parts which take turns are read from. */
  closeFiles?: () => void;
}

/** The parts of `MiroPipeline.fromPretrained`; see there. */
export async function loadParts(model: string, options: LoadOptions): Promise<PipelineParts> {
  const { revision, cacheDir, onDownload, onMessage, signal, variant } = options;
  const device = checkDevice(options.device);
  const hub: HubOptions = { cacheDir, onDownload, onMessage, signal };
  const located = await locateModel(model, { ...hub, revision, variant });
  let isKept = false;
  try {
    const parts = await loadLocated(located, options, { device, hub });
    isKept = parts.lowMemory === true;
    return parts;
  } finally {
    if (!isKept) located.close();
  }
}

async function loadLocated(
  located: LocatedModel,
  { variant, lowMemory, ...given }: LoadOptions,
  { device, hub }: { device: string; hub: HubOptions },
): Promise<PipelineParts> {
  if (given.quantization === "int8" && device !== "cpu") {
    throw new InvalidInputError(
      message`${about("quantization")}: int8 is for device cpu, received ${device}; leave it out`,
    );
  }
  const dtype = resolveDType(given.dtype, device, countParametersOf(located));
  const { loadNetwork, ...checkpoint } = openCheckpointFiles(located.open, { device, dtype });
  const { network: config } = checkpoint.config;
  const network = new Part(function* () {
    const loaded = yield* loadNetwork();
    return given.quantization === "int8" ? loaded.quantize() : loaded;
  });
  let autoencoder: Part<Autoencoder> | null = null;
  try {
    const text = located.part("textEncoder", given.textEncoder, DEFAULT_TEXT_ENCODER);
    const vae = located.part("vae", given.vae, DEFAULT_VAE);
    // A wrong folder is noticed now; a repository is asked when its files are needed.
    if (isLocal(text)) await fetchTextEncoder(text, hub);
    const vaeFolder = await fetchVae(vae, hub);
    // Whoever asks for float32 by name wants the reference's numbers.
    const textDType =
      given.textEncoderDtype === "auto" ? (given.dtype === "float32" ? "float32" : "auto") : given.textEncoderDtype;
    // Hashing goes on beside loading and drawing.
    const origin: PipelineOrigin = {
      checkpoint: located.identify(),
      autoencoder: identifyWeights(sourceOf(vae), vaeFolder, vaeWeights(vaeFolder)),
      textEncoder: once(async () => {
        const textFolder = await fetchTextEncoder(text, hub);
        const weights = identifyWeights(sourceOf(text), textFolder, textEncoderWeights(textFolder));
        return { weights, dtype: textEncoderDType(textFolder, textDType) };
      }),
    };
    const vaeDType = dtype === "bfloat16" && countStoredWeights(vaeFolder) >= SMALL_NETWORK ? dtype : "float32";
    autoencoder = new Part(() => loadingAutoencoder(vaeFolder, { dtype: vaeDType, device }));
    const decoder = await autoencoder.load(hub.signal);
    checkChannels(decoder, config.numInputChannels);
    if (lowMemory) autoencoder.free();
    return {
      ...checkpoint,
      network: lowMemory ? network : await network.load(hub.signal),
      autoencoder: lowMemory ? autoencoder : decoder,
      loadTextEncoder: async (signal) => {
        const { dtype } = await origin.textEncoder();
        const folder = await fetchTextEncoder(text, hub);
        return loadTextEncoder(folder, { device, dtype, signal }, config.labelDim);
      },
      origin,
      lowMemory,
      device,
      dtype,
      quantization: given.quantization,
      name: located.name,
      variant,
      vocabulary: Vocabulary.of(located.folder),
      closeFiles: located.close,
    };
  } catch (error) {
    network.free();
    autoencoder?.free();
    checkpoint.preconditioning.dispose();
    release([checkpoint.preprocessing, checkpoint.postprocessing, checkpoint.uncondEmbedding]);
    throw error;
  }
}

function countParametersOf({ open }: LocatedModel): number {
  using files = open();
  return countNetwork(files.tensors);
}

function sourceOf(part: PartSource): "checkpoint" | { name: string } {
  return part.source === null ? { name: part.name } : "checkpoint";
}

/** Calls `make` at the first call only, and again after a failure. */
function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | null = null;
  return () => {
    made ??= make().catch((error) => {
      made = null;
      throw error;
    });
    return made;
  };
}

/** The dtype of a text encoder, without reading its weights. */
function textEncoderDType(folder: string, asked: "auto" | "float32" | "bfloat16"): "float32" | "bfloat16" {
  if (asked !== "auto") return asked;
  const path = join(folder, "config.json");
  return countT5Parameters(T5Encoder.configFromJson(readJson(path), path)) >= SMALL_NETWORK ? "bfloat16" : "float32";
}

/** Refuses an autoencoder that does not fit the network. @throws InvalidInputError */
export function checkChannels(autoencoder: Autoencoder, channels: number): void {
  if (autoencoder.latentChannels === channels) return;
  throw invalid(
    "vae",
    `an autoencoder with ${channels} latent channels`,
    message`one with ${autoencoder.latentChannels}`,
  );
}

/** Loads a tokenizer and its encoder; the width is compared before the weights are read. */
async function loadTextEncoder(folder: string, options: T5LoadOptions, width: number): Promise<TextEncoder> {
  const config = T5Encoder.configFromJson(readJson(join(folder, "config.json")), join(folder, "config.json"));
  if (config.dModel !== width) {
    throw invalid(
      "textEncoder",
      `an encoder of width ${width}, as the checkpoint was trained with`,
      message`${config.dModel} in ${folder}`,
    );
  }
  const tokenizer = await Tokenizer.fromFile(folder);
  const encoder = await T5Encoder.fromPretrained(folder, options);
  encoder.requiresGrad_(false);
  return { tokenizer, encoder };
}
