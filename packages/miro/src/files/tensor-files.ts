/**
 * Weights of a folder, in whichever of the usual ways they are stored: one safetensors file, several with an index,
 * or a checkpoint of `torch.save`.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { empty, scope, type Tensor } from "@miro-t2i/torch";
import {
  SafetensorsFile,
  type StoredTensorInfo,
  type TensorFile,
  TorchCheckpoint,
  tensorFile,
} from "@miro-t2i/torch/io";
import { checkList, checkName, isText } from "../arguments.js";
import { InvalidInputError, MiroError } from "../errors.js";
import { readJson } from "./json-file.js";

/** Open tensors of one or several files. */
export interface OpenTensors extends TensorFile, Disposable {}

/**
 * Opens the first of the names that the folder has. Names that PyTorch's wrappers lengthened are read without that.
 *
 * @param names file names: `.safetensors`, `.safetensors.index.json`, and what `torch.save` writes
 * @throws InvalidInputError when there is none; MiroError or TorchError naming a file that is broken
 */
export function openTensors(folder: string, names: readonly string[]): OpenTensors {
  checkName("folder", folder, "the name of a folder");
  checkList("names", names, "a list of file names", isText);
  const name = names.find((name) => existsSync(join(folder, name)));
  if (name === undefined) throw new InvalidInputError(`${folder}: holds no weights; expected ${names.join(" or ")}`);
  return unwrapped(openTensorFile(join(folder, name)));
}

/** Opens one file, or several by their index. @throws MiroError or TorchError naming a file that is broken */
export function openTensorFile(path: string): OpenTensors {
  if (path.endsWith(".index.json")) return openShards(path);
  if (path.endsWith(".safetensors")) {
    const file = SafetensorsFile.open(path);
    return view(file, () => file.close());
  }
  const checkpoint = TorchCheckpoint.open(path);
  try {
    return view(checkpoint.stateDict(), () => checkpoint.close());
  } catch (error) {
    checkpoint.close();
    throw error;
  }
}

/** A single value in float32, whatever the dtype of the towers: rounded to bfloat16 a learned scale is 1 % off. */
export function readScalar(file: OpenTensors, key: string): number {
  return scope(() => {
    const value = empty([]);
    file.copyTo(key, value);
    return value.item();
  });
}

/** A file, with how to close it. */
function view(file: TensorFile, close: () => void): OpenTensors {
  const open = tensorFile({
    path: file.path,
    keys: () => file.keys(),
    has: (key) => file.has(key),
    info: (key) => file.info(key),
    copyInPieces: (key, target) => file.copyInPieces(key, target),
  });
  return { ...open, [Symbol.dispose]: close };
}

/** What `DataParallel`, `DistributedDataParallel` and `torch.compile` put in front of all names. */
const WRAPPERS = ["module.", "_orig_mod."];

function unwrapped(file: OpenTensors): OpenTensors {
  const keys = file.keys();
  const wrapper = WRAPPERS.find((prefix) => keys.length > 0 && keys.every((key) => key.startsWith(prefix)));
  if (wrapper === undefined) return file;
  const open = tensorFile({
    path: file.path,
    keys: () => keys.map((key) => key.slice(wrapper.length)),
    has: (key) => file.has(wrapper + key),
    info: (key) => file.info(wrapper + key),
    copyInPieces: (key, target) => file.copyInPieces(wrapper + key, target),
  });
  return unwrapped({ ...open, [Symbol.dispose]: () => file[Symbol.dispose]() });
}

/** Names of the files that an index lists. @throws MiroError when it is no index */
export function shardNames(index: string): string[] {
  return [...new Set(Object.values(weightMap(index)))];
}

/** Which file beside an index holds which tensor. */
function weightMap(index: string): Record<string, string> {
  const map = (readJson(index) as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map))
    throw new MiroError(`${index}: weight_map: expected an object from tensor names to file names`);
  for (const [key, name] of Object.entries(map))
    if (typeof name !== "string" || !/^[\w.-]+$/.test(name) || name.endsWith(".json") || name.startsWith("."))
      throw new MiroError(`${index}: weight_map[${JSON.stringify(key)}]: expected the name of a file beside it`);
  return map as Record<string, string>;
}

function openShards(index: string): OpenTensors {
  const map = weightMap(index);
  const folder = join(index, "..");
  const files = new Map<string, OpenTensors>();
  const close = () => {
    for (const file of files.values()) file[Symbol.dispose]();
  };
  const places = new Map<string, OpenTensors>();
  try {
    for (const [key, name] of Object.entries(map)) {
      let file = files.get(name);
      if (file === undefined) {
        file = openTensorFile(join(folder, name));
        files.set(name, file);
      }
      if (!file.has(key)) throw new MiroError(`${file.path}: lacks ${key}, which ${index} says is in it`);
      places.set(key, file);
    }
  } catch (error) {
    close();
    throw error;
  }
  const find = (key: string): OpenTensors => {
    const file = places.get(key);
    if (file === undefined) throw new MiroError(`${index}: holds no tensor ${JSON.stringify(key)}`);
    return file;
  };
  const open = tensorFile({
    path: index,
    keys: () => [...places.keys()],
    has: (key) => places.has(key),
    info: (key: string): StoredTensorInfo => find(key).info(key),
    copyInPieces: (key: string, target: Tensor) => find(key).copyInPieces(key, target),
  });
  return { ...open, [Symbol.dispose]: close };
}
