/**
 * Values of a file, copied into a tensor that is there: a piece at a time, so that nothing is held twice, each
 * converted to the target's dtype and device and looked at on the way.
 */
import { noGrad } from "../autograd.js";
import { type DType, dtypeCode, isFloatingPoint, itemSize } from "../dtype.js";
import { TorchError } from "../errors.js";
import { native } from "../native.js";
import { scope } from "../scope.js";
import { type Tensor, wrap } from "../tensor.js";
import { FormatError } from "./format-error.js";

/** Bytes copied at once: they stay in the processor's cache until they are where they belong. */
const COPY_BYTES = 2 ** 20;

/** Where values lie, in C order without gaps. */
export interface ValueSource {
  /** For errors. */
  path: string;
  /** The tensor's name in the file, for errors. */
  key: string;
  /** Position of the first value in the file, in bytes. */
  byteOffset: number;
  /** Their type in the file. */
  dtype: DType;
  /** Sizes of the tensor's dimensions. */
  shape: readonly number[];
  /** Fills `bytes` from a position in the file on. */
  readInto(bytes: Uint8Array, byteOffset: number): void;
}

/**
 * Copies a piece with each step, and yields after it.
 *
 * @param target contiguous; what it holds after an error, or before the last step, is undefined
 * @param onlyFinite whether NaN and infinity, in the file or in the target's dtype, are errors (default true)
 * @throws FormatError for a value that is not allowed, TorchError when the target has another number of elements
 */
export function* copyValues(
  source: ValueSource,
  target: Tensor,
  { onlyFinite = true } = {},
): Generator<void, void, void> {
  const { path, key, byteOffset, dtype, shape } = source;
  const count = shape.reduce((product, size) => product * size, 1);
  checkTarget(source, target);
  const width = itemSize(dtype);
  const step = COPY_BYTES / width;
  const buffer = new Uint8Array(Math.min(count, step) * width);
  for (let start = 0; start < count; start += step) {
    const length = Math.min(step, count - start);
    const bytes = buffer.subarray(0, length * width);
    source.readInto(bytes, byteOffset + start * width);
    if (dtype === "bool") checkBooleans(bytes, { path, key, byteOffset: byteOffset + start });
    // Other work may run between the steps: modes and scopes do not reach beyond one.
    noGrad(() =>
      scope(() => {
        const piece = wrap(native.fromHost(bytes, [length], dtypeCode(dtype)));
        const place = target.detach().view(-1).narrow(0, start, length).copy_(piece);
        if (onlyFinite && isFloatingPoint(dtype)) checkFinite(piece, place, { path, key, start });
      }),
    );
    yield;
  }
}

/** @throws TorchError unless the target takes the values of the source */
export function checkTarget({ path, key, shape }: Omit<ValueSource, "readInto">, target: Tensor): void {
  const count = shape.reduce((product, size) => product * size, 1);
  if (count === target.numel && target.isContiguous) return;
  throw new TorchError(
    `${path}: tensor ${JSON.stringify(key)} of shape [${shape}] does not fit a tensor of shape [${target.shape}]`,
  );
}

/** A boolean of any other byte than 0 and 1 is undefined behaviour in the operators that read it. */
export function checkBooleans(
  bytes: Uint8Array,
  { path, key, byteOffset }: { path: string; key: string; byteOffset: number },
): void {
  const bad = bytes.findIndex((byte) => byte > 1);
  if (bad < 0) return;
  throw new FormatError({
    path,
    rule: "InvalidBoolean",
    message: "a boolean is neither 0 nor 1",
    tensor: key,
    byteOffset: byteOffset + bad,
  });
}

/** Compares values with what became of them: a sum is cheap, and tells whether one must look closer. */
function checkFinite(
  stored: Tensor,
  converted: Tensor,
  { path, key, start }: { path: string; key: string; start: number },
): void {
  if (Number.isFinite(converted.sum().item())) return;
  for (const values of [stored, converted]) {
    const finite = values.isfinite();
    if (finite.all().item()) continue;
    const index = start + (finite.logicalNot().to("uint8").argmax().item() as number);
    const message =
      values === stored
        ? `element ${index} is not finite (${values.select(0, index - start).item()}): the file is damaged`
        : `element ${index} does not fit dtype ${converted.dtype}`;
    throw new FormatError({ path, rule: "NotFinite", message, tensor: key });
  }
}
