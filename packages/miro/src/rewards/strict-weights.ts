/**
 * A network's values from a published file, strictly: every tensor is there in its shape, and nothing else but what is
 * known to hold no weights. Tensors may have other names there, be transposed or rearranged, or stand in several parts.
 */
import { type DType, empty, isFloatingPoint, nn, noGrad, scope, type Tensor } from "@miro-t2i/torch";
import { loadModuleInPieces, type StoredTensor, type TensorFile, tensorFile } from "@miro-t2i/torch/io";
import { MiroError } from "../errors.js";
import { filled, inPieces, type Pieces } from "../pieces.js";
import { listed } from "../printable.js";

/** Where the weights go. */
export interface WeightsPlace {
  /** `cpu`, `cuda`, … */
  device: string;
  /** Of the network. */
  dtype: DType;
}

/** What a tensor of the network is called in a file: several are stacked along the first dimension. */
export interface Stored {
  keys: string[];
  transposed?: boolean;
  /** Makes of one tensor's values, as the file has them, the network's; both are of the network's shape. */
  rearrange?: (values: Tensor) => Tensor;
}

/** How a network stands in a file. */
export interface PublishedLayout {
  /** The network, as errors call it: `this CLIP`. */
  what: string;
  /** About how many weights it has: nothing is allocated for a shape that is far from what the file holds. */
  size: number;
  /** Of the network's tensor, by its name in the state dict. */
  stored(name: string): Stored;
  /** Whether a tensor of the file is passed over. */
  ignored(key: string): boolean;
}

/**
 * Makes a network and loads it; it is in evaluation mode and has no gradients. Weights are not drawn before.
 *
 * @throws MiroError naming the file and the tensors that do not fit; FormatError for values that are not finite; the
 *   signal's reason when it is aborted
 */
export async function loadStrictly<M extends nn.Module>(
  make: () => M,
  file: TensorFile,
  place: WeightsPlace,
  layout: PublishedLayout,
  signal: AbortSignal | undefined,
): Promise<M> {
  checkSize(file, layout);
  const fresh = () => scope(() => nn.init.skipped(make));
  const read = filled(fresh, function* (module) {
    const own = module.stateDict();
    const stored = new Map<string, Stored>();
    for (const name of own.keys()) stored.set(name, layout.stored(name));
    checkTensors(own, stored, layout, file);
    yield* readInto(module, file, place, stored);
  });
  return inPieces(read, signal);
}

/**
 * Reads the values of a network that {@link checkTensors} has found in the file; it is in evaluation mode and has no
 * gradients. A tensor of the file may have more rows, which are left out.
 */
export function* readInto<M extends nn.Module>(
  module: M,
  file: TensorFile,
  place: WeightsPlace,
  stored: ReadonlyMap<string, Stored>,
): Pieces<M> {
  const places = new Map<string, StoredTensor>();
  const adapted = adapt(file, stored, module.stateDict());
  for (const name of stored.keys()) places.set(name, { file: adapted, key: name });
  yield* loadModuleInPieces(module, places, place);
  return module.requiresGrad_(false).eval() as M;
}

/** @throws MiroError when the file is far too small for the shape */
export function checkSize(file: TensorFile, { what, size }: Pick<PublishedLayout, "what" | "size">): void {
  const held = file
    .keys()
    .reduce((sum, key) => sum + file.info(key).shape.reduce((product, size) => product * size, 1), 0);
  if (size > 2 * held) throw new MiroError(`${file.path}: holds ${held} weights; the shape of ${what} has ${size}`);
}

/** Tensors that an error names of each kind. */
const NAMED = 4;

/**
 * Compares what the file holds with what is wanted of it, before anything is read.
 *
 * @param own wanted shapes by the network's names
 * @throws MiroError naming the file and the tensors that do not fit
 */
export function checkTensors(
  own: ReadonlyMap<string, { shape: readonly number[] }>,
  stored: ReadonlyMap<string, Stored>,
  { what, ignored }: Pick<PublishedLayout, "what" | "ignored">,
  file: TensorFile,
): void {
  const missing: string[] = [];
  const misfits: string[] = [];
  const used = new Set<string>();
  for (const [name, tensor] of own) {
    const { keys, transposed } = stored.get(name)!;
    const shape = transposed ? [...tensor.shape].reverse() : [...tensor.shape];
    if (keys.length > 1) shape[0] = shape[0]! / keys.length;
    for (const key of keys) {
      used.add(key);
      if (!file.has(key)) {
        missing.push(key);
        continue;
      }
      const { shape: found, dtype, formatDtype } = file.info(key);
      const fits = String(found) === String(shape);
      if (!fits) misfits.push(`${key}: expected [${shape}], found [${found}]`);
      else if (dtype === null || !isFloatingPoint(dtype))
        misfits.push(`${key}: expected floating values, found ${formatDtype}`);
    }
  }
  const problems = [
    ["missing", missing],
    ["not part of it", file.keys().filter((key) => !used.has(key) && !ignored(key))],
    ["wrong", misfits],
  ] as const;
  const named = problems.flatMap(([kind, list]) =>
    list.length === 0 ? [] : [`${kind} (${list.length}): ${listed(list, NAMED)}`],
  );
  if (named.length > 0) throw new MiroError(`${file.path}: not the weights of ${what}: ${named.join("; ")}`);
}

/** The file as the network names and shapes it. */
function adapt(file: TensorFile, stored: ReadonlyMap<string, Stored>, own: ReadonlyMap<string, Tensor>): TensorFile {
  return tensorFile({
    path: file.path,
    keys: () => [...stored.keys()],
    has: (name) => stored.has(name),
    info: (name) => ({ ...describe(file, stored.get(name)!), shape: own.get(name)!.shape }),
    *copyInPieces(name, target) {
      const { keys, transposed, rearrange } = stored.get(name)!;
      if (transposed || rearrange) {
        const shape = transposed ? [...target.shape].reverse() : [...target.shape];
        using values = empty(shape, { dtype: target.dtype });
        yield* file.copyInPieces(keys[0]!, values);
        noGrad(() => scope(() => void target.copy_(rearrange ? rearrange(values) : values.t())));
        return;
      }
      const { shape } = file.info(keys[0]!);
      if (keys.length === 1 && target.ndim > 0 && shape[0]! > target.size(0)) {
        using all = empty([...shape], { dtype: target.dtype });
        yield* file.copyInPieces(keys[0]!, all);
        noGrad(() => scope(() => void target.copy_(all.narrow(0, 0, target.size(0)))));
        return;
      }
      if (keys.length === 1) {
        yield* file.copyInPieces(keys[0]!, target);
        return;
      }
      const size = target.size(0) / keys.length;
      for (const [i, key] of keys.entries()) {
        using part = noGrad(() => target.narrow(0, i * size, size));
        yield* file.copyInPieces(key, part);
      }
    },
  });
}

function describe(file: TensorFile, { keys }: Stored) {
  const { dtype, formatDtype } = file.info(keys[0]!);
  return { dtype, formatDtype };
}
