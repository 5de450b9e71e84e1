/**
 * Which files a pipeline is read from: the checkpoint, and the text encoder and the autoencoder that the caller, the
 * checkpoint's own folder, its `config.json` or upstream's defaults name, in this order.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, InvalidInputError, MiroError } from "../../errors.js";
import { isFolder } from "../../files/make-folder.js";
import { readJson } from "../../files/whole-files.js";
import { about, message } from "../../message.js";
import { CHECKPOINT_FILES, missingFiles, WEIGHTS_INDEX, weightFiles } from "./checkpoint.js";
import { type ModelSource, resolveModel } from "./hub.js";
import type { HubOptions } from "./hub-repository.js";

/** A text encoder or an autoencoder: inside the checkpoint's source, or by a name still to be resolved. */
export interface PartSource {
  name: string;
  /** The option that names it, for errors. */
  parameter: string;
  /** Set when the part lies beside the checkpoint. */
  source: ModelSource | null;
  /** Folder within the source, with a slash at its end, or "". */
  prefix: string;
}

/** The folder of a variant within its source, with a slash at its end; "" for none. */
export function variantPrefix(source: ModelSource, variant: string | undefined): string {
  if (variant === undefined || variant === "") return "";
  const variants = variantsOf(source);
  if (variants.includes(variant)) return `${variant}/`;
  if (source.incomplete) notCached("variant", source, [`${variant}/`]);
  const known = variants.length > 0 ? `; it has ${variants.join(", ")}` : ", and no others";
  throw new InvalidInputError(
    message`${about("variant")}: ${source.name} has no variant ${JSON.stringify(variant)}${known}`,
  );
}

/** Sub-folders of a source that hold a checkpoint. */
export function variantsOf(source: ModelSource): string[] {
  const present = new Set(source.files);
  return source.files
    .filter((file) => file.endsWith("/config.json"))
    .map((file) => file.slice(0, -"/config.json".length))
    .filter((folder) => missingFiles((name) => present.has(`${folder}/${name}`)).length === 0)
    .sort();
}

/** Makes a checkpoint's files present and returns their folder. */
export async function fetchCheckpoint(source: ModelSource, prefix: string): Promise<string> {
  const missing = missingFiles((name) => source.files.includes(prefix + name));
  if (missing.length > 0) {
    if (source.incomplete)
      notCached(
        "model",
        source,
        missing.map((name) => prefix + name),
      );
    const variants = variantsOf(source);
    const training = source.files.find((file) => file.startsWith(prefix) && file.endsWith(".ckpt"));
    const hint =
      variants.length > 0
        ? `; choose one of its variants: ${variants.join(", ")}`
        : training !== undefined
          ? `; miro convert makes one of ${training}`
          : "";
    throw new InvalidInputError(
      message`${about("model")}: ${join(source.name, prefix)} is not a checkpoint: ${missing.join(", ")} ${missing.length > 1 ? "are" : "is"} missing${hint}`,
    );
  }
  const folder = join(source.folder, prefix);
  const present = [...CHECKPOINT_FILES, WEIGHTS_INDEX].filter((name) => source.files.includes(prefix + name));
  const whole = present.includes("model.safetensors");
  await source.fetch(present.filter((name) => !whole || name !== WEIGHTS_INDEX).map((name) => prefix + name));
  if (!whole) await source.fetch(weightFiles(folder).map((name) => prefix + name));
  return folder;
}

/** Decides where a part comes from. */
export function choosePart(
  source: ModelSource,
  prefix: string,
  parameter: string,
  given: string | undefined,
  configured: string | undefined,
  fallback: string,
): PartSource {
  if (given !== undefined) return { name: given, parameter, source: null, prefix: "" };
  if (source.files.includes(`${prefix}config.json`)) return { name: source.name, parameter, source, prefix };
  return { name: configured ?? fallback, parameter, source: null, prefix: "" };
}

/** Whether the part can be looked at without asking the Hub. */
export function isLocal(part: PartSource): boolean {
  return part.source !== null || isFolder(part.name);
}

/**
 * Makes the files of a text encoder present and returns their folder: of a sharded model only what the encoder needs.
 */
export async function fetchTextEncoder(part: PartSource, hub: HubOptions): Promise<string> {
  const source = part.source ?? (await resolveModel(part.name, part.parameter, hub));
  refuseRelease(part, source, "text_encoder");
  const has = (name: string) => source.files.includes(part.prefix + name);
  require(part, source, ["config.json", "tokenizer.json"], has);
  const folder = join(source.folder, part.prefix);
  const wanted = ["config.json", "tokenizer.json"];
  if (has("model.safetensors")) wanted.push("model.safetensors");
  else {
    if (!has("model.safetensors.index.json")) noSafetensors(part, source);
    await source.fetch([`${part.prefix}model.safetensors.index.json`]);
    wanted.push(...encoderShards(join(folder, "model.safetensors.index.json")));
  }
  await source.fetch(wanted.map((name) => part.prefix + name));
  return folder;
}

/** Names of the files that hold a fetched text encoder's weights. */
export function textEncoderWeights(folder: string): string[] {
  const single = "model.safetensors";
  return existsSync(join(folder, single)) ? [single] : encoderShards(join(folder, `${single}.index.json`));
}

/** Names of the file that holds a fetched autoencoder's weights. */
export function vaeWeights(folder: string): string[] {
  return VAE_WEIGHTS.filter((name) => existsSync(join(folder, name))).slice(0, 1);
}

const VAE_WEIGHTS = ["diffusion_pytorch_model.safetensors", "model.safetensors"];

/**
 * Refuses a text encoder whose weights are not there, or only as pickled files, which can run code when they are read.
 */
function noSafetensors(part: PartSource, source: ModelSource): never {
  const pickled = source.files.find(
    (file) => file.startsWith(`${part.prefix}pytorch_model`) && /\.bin(\.index\.json)?$/.test(file),
  );
  if (pickled === undefined) return notFound(part, source, ["model.safetensors"]);
  throw new InvalidInputError(
    message`${about(part.parameter)}: ${part.name} holds its weights as ${pickled} only, which can run code when it is read; take a revision or another repository that has model.safetensors`,
  );
}

/** The shards that hold tensors of the encoder. */
function encoderShards(indexPath: string): string[] {
  const map = (readJson(indexPath) as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw new InvalidInputError(`${indexPath}: weight_map: expected an object from tensor names to file names`);
  }
  const entries = Object.entries(map as Record<string, unknown>);
  const shards = new Set(entries.filter(([key]) => /^(encoder|shared)\./.test(key)).map(([, shard]) => shard));
  for (const shard of shards) {
    if (typeof shard !== "string" || !/^[\w.-]+$/.test(shard)) {
      throw new InvalidInputError(`${indexPath}: ${describe(shard)} is not the name of a file beside it`);
    }
  }
  if (shards.size === 0) throw new InvalidInputError(`${indexPath}: names no tensor of an encoder`);
  return [...shards] as string[];
}

/** Makes the files of an autoencoder present and returns their folder. */
export async function fetchVae(part: PartSource, hub: HubOptions): Promise<string> {
  const source = part.source ?? (await resolveModel(part.name, part.parameter, hub));
  refuseRelease(part, source, "vae");
  const has = (name: string) => source.files.includes(part.prefix + name);
  require(part, source, ["config.json"], has);
  const found = VAE_WEIGHTS.find(has);
  if (found === undefined) return notFound(part, source, VAE_WEIGHTS.slice(0, 1));
  await source.fetch(["config.json", found].map((name) => part.prefix + name));
  return join(source.folder, part.prefix);
}

/** A release is named in place of its part. */
function refuseRelease({ name, parameter, prefix }: PartSource, { files }: ModelSource, part: string): void {
  if (prefix !== "" || !files.includes("uncond_embedding.npy")) return;
  const own = files.includes(`${part}/config.json`) ? `; name its part, ${join(name, part)}` : "";
  throw new InvalidInputError(message`${about(parameter)}: ${name} is a whole model${own}`);
}

function require(part: PartSource, source: ModelSource, names: string[], has: (name: string) => boolean): void {
  const missing = names.filter((name) => !has(name));
  if (missing.length > 0) notFound(part, source, missing);
}

function notFound({ parameter, prefix }: PartSource, source: ModelSource, missing: readonly string[]): never {
  if (source.incomplete)
    notCached(
      parameter,
      source,
      missing.map((name) => prefix + name),
    );
  const place = existsSync(source.folder) ? join(source.folder, prefix) : source.name;
  throw new InvalidInputError(message`${about(parameter)}: ${missing.join(", ")} not found in ${place}`);
}

/** The Hub may have what the cache lacks. */
function notCached(parameter: string, source: ModelSource, missing: readonly string[]): never {
  throw new MiroError(
    message`${about(parameter)}: ${source.name}: ${missing.join(", ")} not in the cache (${source.folder}), and ${source.incomplete}`,
  );
}
