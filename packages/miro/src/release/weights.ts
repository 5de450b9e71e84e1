/** Tensors on their way from one checkpoint into another: in a file or in memory, one at a time. */
import { type DType, empty, isFloatingPoint, itemSize, nn, type Tensor } from "@miro-t2i/torch";
import type { DeferredTensor, StoredTensor } from "@miro-t2i/torch/io";
import { MiroError } from "../errors.js";
import { FlowPrecond, isLogVariance } from "../networks/precond.js";
import { Rin } from "../networks/rin.js";
import type { ReleaseConfig } from "../pipeline/loading/release-config.js";

/** A tensor that is stored in an open file, or one in memory. */
export type Weight = StoredTensor | Tensor;

/** What a release holds under a name. */
export interface ExpectedTensor {
  shape: readonly number[];
  /** Parameters take the release's dtype; buffers and constants stay float32; masks are booleans. */
  kind: "parameter" | "buffer" | "mask";
}

const LISTED = 5;

/**
 * Every tensor of a release by its name, as its configuration says. Nothing is computed and hardly any memory used.
 * @param weights where they hold a log-variance, it belongs to the release, whether the configuration needs it or not
 */
export function expectedTensors(
  config: ReleaseConfig,
  weights: ReadonlyMap<string, Weight> = new Map(),
): Map<string, ExpectedTensor> {
  const { preconditioning } = config;
  const doGradnormReweighting = preconditioning.doGradnormReweighting || [...weights.keys()].some(isLogVariance);
  const expected = new Map<string, ExpectedTensor>();
  const constant: ExpectedTensor = { shape: [1, config.network.numInputChannels, 1, 1], kind: "buffer" };
  const add = (prefix: string, module: nn.Module): void => {
    const parameters = new Set(module.parameters());
    for (const [name, tensor] of module.stateDict()) {
      const kind = tensor.dtype === "bool" ? "mask" : parameters.has(tensor) ? "parameter" : "buffer";
      expected.set(`${prefix}.${name}`, { shape: tensor.shape, kind });
    }
    module.dispose();
  };
  add(
    "network",
    nn.init.skipped(() => new Rin(config.network)),
  );
  for (const part of ["scale", "bias"]) expected.set(`data_preprocessing.${part}`, constant);
  add(
    "preconditioning",
    nn.init.skipped(() => new FlowPrecond({ ...preconditioning, doGradnormReweighting })),
  );
  for (const part of ["scale", "bias"]) expected.set(`postprocessing.${part}`, constant);
  return expected;
}

/**
 * Compares tensors with a configuration. A log-variance that it does not have is passed over.
 * @param path of the checkpoint, for the error
 * @throws MiroError listing what is missing, not known, of another shape or of another kind
 */
export function checkWeights(
  path: string,
  weights: ReadonlyMap<string, Weight>,
  expected: ReadonlyMap<string, ExpectedTensor>,
): void {
  const missing = [...expected.keys()].filter((name) => !weights.has(name));
  const reweights = [...expected.keys()].some(isLogVariance);
  const unknown = [...weights.keys()].filter((name) => !expected.has(name) && (reweights || !isLogVariance(name)));
  const shapes: string[] = [];
  const kinds: string[] = [];
  for (const [name, { shape, kind }] of expected) {
    const weight = weights.get(name);
    if (weight === undefined) continue;
    const found = infoOf(weight);
    if (String(found.shape) !== String(shape)) shapes.push(`${name}: expected [${shape}], found [${found.shape}]`);
    const fits = kind === "mask" ? found.dtype === "bool" : found.dtype !== null && isFloatingPoint(found.dtype);
    if (!fits)
      kinds.push(`${name}: expected ${kind === "mask" ? "booleans" : "floating values"}, found ${found.formatDtype}`);
  }
  const problems = Object.entries({
    missing,
    "not of this network": unknown,
    "of another shape": shapes,
    "of another kind": kinds,
  }).flatMap(([what, items]) => {
    const more = items.length > LISTED ? `, and ${items.length - LISTED} more` : "";
    return items.length === 0 ? [] : [`${what} (${items.length}): ${items.slice(0, LISTED).join(", ")}${more}`];
  });
  if (problems.length > 0)
    throw new MiroError(`${path}: the tensors do not fit the configuration: ${problems.join("; ")}`);
}

/** Dtype and shape of a tensor, without reading it. */
export function infoOf(weight: Weight): { dtype: DType | null; formatDtype: string; shape: readonly number[] } {
  if (isStored(weight)) return weight.file.info(weight.key);
  return { dtype: weight.dtype, formatDtype: weight.dtype, shape: weight.shape };
}

/** A tensor that is read when it is written, in the dtype that is wanted. */
export function deferred(weight: Weight, dtype: DType): DeferredTensor {
  const { shape } = infoOf(weight);
  return { dtype, shape, read: () => read(weight, dtype) };
}

/** Bytes of a tensor's values. */
export function bytesOf({ shape, dtype }: { shape: readonly number[]; dtype: DType }): number {
  return shape.reduce((product, size) => product * size, itemSize(dtype));
}

/** Tells how much of the tensors has been read, in bytes as they are written. */
export type OnBytes = (done: number, total: number) => void;

/** Counts the bytes of tensors that are read while they are written. */
export class ReadMeter {
  #total = 0;
  #done = 0;
  readonly #onBytes: OnBytes | undefined;

  constructor(onBytes: OnBytes | undefined) {
    this.#onBytes = onBytes;
  }

  /** The same tensor, which tells when it is read. All have to be tracked before the first is read. */
  track(tensor: DeferredTensor): DeferredTensor {
    const bytes = bytesOf(tensor);
    this.#total += bytes;
    return {
      ...tensor,
      read: () => {
        const values = tensor.read();
        this.#done += bytes;
        this.#onBytes?.(this.#done, this.#total);
        return values;
      },
    };
  }
}

/** Reads a tensor; the caller owns it. */
export function read(weight: Weight, dtype: DType): Tensor {
  if (!isStored(weight)) return weight.detach().to({ device: "cpu", dtype }).contiguous();
  const values = empty([...weight.file.info(weight.key).shape], { dtype });
  weight.file.copyTo(weight.key, values);
  return values;
}

function isStored(weight: Weight): weight is StoredTensor {
  return "file" in weight;
}
