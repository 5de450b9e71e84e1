/**
 * A module's values from tensor files: names, shapes and kinds are compared before anything is read, then each tensor
 * is copied to where it stays, in the dtype and on the device that are wanted. Nothing is in memory twice.
 */
import { empty } from "../creation.js";
import { type DType, isFloatingPoint } from "../dtype.js";
import { TorchError } from "../errors.js";
import { memory } from "../memory.js";
import type { Module } from "../nn/module.js";
import type { Tensor } from "../tensor.js";
import { type TensorFile, takeAll } from "./tensor-file.js";

/** Where a module's tensor is stored. */
export interface StoredTensor {
  /** The open file. */
  file: TensorFile;
  /** The tensor's name in the file. */
  key: string;
  /** Another shape to see it in, of as many elements. */
  shape?: readonly number[] | undefined;
}

/** Options of {@link loadModule}. */
export interface LoadModuleOptions {
  /** Where parameters and buffers go (default: where they are). */
  device?: string | undefined;
  /** What the floating ones become (default: what they are); buffers that keep their dtype do. */
  dtype?: DType | undefined;
}

/** Names that an error lists of each kind. */
const LISTED = 5;
/** Bytes after which memory of the tensors that were replaced goes back to the system. */
const RELEASE_BYTES = 256 * 2 ** 20;

/**
 * Loads every parameter and buffer of a module; the module must not be used after an error.
 *
 * @param stored by the names of the module's state dict
 * @throws TorchError listing what is missing, unexpected, or of a wrong shape or kind; FormatError for values that are
 *   not finite
 *
 * @example
 * ```ts
 * const layer = nn.init.skipped(() => new nn.Linear(8, 4));
 * using file = SafetensorsFile.open("layer.safetensors");
 * loadModule(layer, new Map(file.keys().map((key) => [key, { file, key }])), { dtype: "bfloat16" });
 * ```
 */
export function loadModule(
  module: Module,
  stored: ReadonlyMap<string, StoredTensor>,
  options: LoadModuleOptions = {},
): void {
  takeAll(loadModuleInPieces(module, stored, options));
}

/**
 * As {@link loadModule}, a piece with each step: gigabytes take seconds, and between two steps other work can run, or
 * the loading can be given up. The module must not be used before the last step.
 *
 * @example
 * ```ts
 * for (const _ of loadModuleInPieces(layer, stored)) {
 *   await new Promise(setImmediate);
 *   signal.throwIfAborted();
 * }
 * ```
 */
export function* loadModuleInPieces(
  module: Module,
  stored: ReadonlyMap<string, StoredTensor>,
  { device, dtype }: LoadModuleOptions = {},
): Generator<void, void, void> {
  const own = module.stateDict();
  checkFit(module, own, stored);
  const kept = module.keptDtypes();
  const release = () => {
    if (memory.stats().cachedBytes > RELEASE_BYTES) memory.emptyCache();
  };
  for (const [name, target] of own) {
    const { file, key } = stored.get(name)!;
    const wanted = {
      device: device ?? target.device,
      dtype: isFloatingPoint(target.dtype) && !kept.has(target) ? (dtype ?? target.dtype) : target.dtype,
    };
    if ((wanted.dtype === target.dtype && wanted.device === target.device) || kept.has(target)) {
      yield* file.copyInPieces(key, target);
      continue;
    }
    using values = empty(target.shape, wanted);
    yield* file.copyInPieces(key, values);
    module.loadStateDict(new Map([[name, values]]), { strict: false, assign: true });
    release();
  }
  module.to({ device, dtype });
  release();
}

function checkFit(module: Module, own: Map<string, Tensor>, stored: ReadonlyMap<string, StoredTensor>): void {
  const missing = [...own.keys()].filter((name) => !stored.has(name));
  const unexpected = [...stored.keys()].filter((name) => !own.has(name));
  const misshapen: string[] = [];
  const wrongKind: string[] = [];
  for (const [name, target] of own) {
    const source = stored.get(name);
    if (source === undefined) continue;
    const info = source.file.info(source.key);
    const shape = source.shape ?? info.shape;
    if (shape.length !== target.shape.length || shape.some((size, i) => size !== target.shape[i])) {
      misshapen.push(`${name}: expected [${target.shape}], got [${shape}]`);
    }
    const fits = isFloatingPoint(target.dtype)
      ? info.dtype !== null && isFloatingPoint(info.dtype)
      : info.dtype === target.dtype;
    if (!fits) {
      const wanted = isFloatingPoint(target.dtype) ? "a floating dtype" : target.dtype;
      wrongKind.push(`${name}: expected ${wanted}, got ${info.formatDtype}`);
    }
  }
  const problems = [
    ...listed("missing", missing),
    ...listed("unexpected", unexpected),
    ...listed("wrong shape", misshapen),
    ...listed("wrong dtype", wrongKind),
  ];
  if (problems.length === 0) return;
  throw new TorchError(`${module.constructor.name}: the stored tensors do not fit: ${problems.join("; ")}`);
}

function listed(what: string, items: string[]): string[] {
  if (items.length === 0) return [];
  const more = items.length > LISTED ? `, and ${items.length - LISTED} more` : "";
  return [`${what} (${items.length}): ${items.slice(0, LISTED).join(", ")}${more}`];
}
