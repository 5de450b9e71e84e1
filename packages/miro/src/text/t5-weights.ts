/** Which files of a folder in Hugging Face layout hold a T5 encoder's weights, and under which names. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { InvalidInputError, invalid, MiroError } from "../errors.js";
import { readJson } from "../files/json-file.js";
import { groupBy } from "../group-by.js";

/**
 * What a stored tensor is called here: null if it does not belong to the encoder. Anything unknown is left to the
 * strict loader.
 */
export function encoderKey(name: string): string | null {
  if (name === "encoder.embed_tokens.weight") return "shared.weight";
  return name.startsWith("decoder.") || name === "lm_head.weight" ? null : name;
}

/** What is the matter with a folder that has no safetensors. */
function noWeights(files: readonly string[]): string {
  const pickled = files.filter((name) => /^pytorch_model.*\.bin(\.index\.json)?$/.test(name));
  if (pickled.length === 0) return "neither model.safetensors nor model.safetensors.index.json is there";
  return `holds its weights as ${pickled[0]} only, which can run code when it is read; convert them to model.safetensors, or take a revision that has it`;
}

/** An error about a folder's weights that says which folder. */
export function naming(folder: string, error: unknown): unknown {
  if (!(error instanceof Error) || error.message.includes(folder)) return error;
  return new MiroError(`${folder}: ${error.message}`, { cause: error });
}

/** The weights' files, each with the tensors to take from it (null: all). */
export function findWeights(folder: string): Map<string, string[] | null> {
  const single = join(folder, "model.safetensors");
  if (existsSync(single)) return new Map([[single, null]]);
  const index = join(folder, "model.safetensors.index.json");
  if (!existsSync(index)) throw new InvalidInputError(`${folder}: ${noWeights(readdirSync(folder))}`);
  const json = readJson(index);
  const map = (json as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map))
    throw invalid(`${index}: weight_map`, "an object from tensor names to file names", map);
  const pathOf = (name: string): string => {
    const file = (map as Record<string, unknown>)[name];
    if (typeof file !== "string" || !/^[\w.-]+\.safetensors$/.test(file))
      throw invalid(`${index}: weight_map[${JSON.stringify(name)}]`, "the name of a .safetensors file beside it", file);
    return join(folder, file);
  };
  const paths = new Map(Object.keys(map).map((name) => [name, pathOf(name)]));
  const ours = [...paths.keys()].filter((name) => encoderKey(name) !== null);
  return groupBy(ours, (name) => paths.get(name)!);
}
