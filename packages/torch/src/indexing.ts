// x.index(...): Python's x[...] from views and one gather.
import { handlesOf } from "./arguments.js";
import { type DType, dtypeCode } from "./dtype.js";
import { shown, TorchError } from "./errors.js";
import type { Handle } from "./native.js";
import { native } from "./native.js";
import { operators } from "./operators.js";
import { TensorBase } from "./tensor-base.js";

/**
 * One position of an index: a number, a new axis (null), a whole dimension, all dimensions that the others leave
 * (`"..."`), a slice `[start, end, step?]`, or a tensor.
 */
export type IndexedBy<T> = number | null | ":" | "..." | readonly [number | null, number | null, number?] | T;

/** What indexing needs of a tensor. */
interface Indexable<T> extends TensorBase<T> {
  unsqueeze(dim: number): T;
  select(dim: number, index: number): T;
  slice(dim: number, start: number | null, end: number | null, step?: number): T;
}

const { id, name } = operators("index.Tensor alias");

/** Whether a tensor of this dtype that holds one number is an index as a number is. */
const isInteger = (dtype: DType): boolean => dtype.startsWith("int");

/** Whether a tensor of this dtype picks places by whether it holds 0 there; uint8 does so from PyTorch's old days. */
const isMask = (dtype: DType): boolean => dtype === "bool" || dtype === "uint8";

/** How many dimensions an item takes up. */
function width(item: unknown): number {
  if (item === null || item === "...") return 0;
  return item instanceof TensorBase && isMask(item.dtype) ? item.ndim : 1;
}

/** @throws TorchError for what is no index, as a list of indices, and for more of them than there are dimensions */
function check(items: readonly unknown[], ndim: number): void {
  for (const [place, item] of items.entries()) {
    if (item === null || item === ":" || item === "..." || typeof item === "number" || item instanceof TensorBase)
      continue;
    const isSlice = Array.isArray(item) && (item.length === 2 || item.length === 3);
    if (isSlice) continue;
    const expected =
      'a number, null, ":", "...", [start, end, step?] or a tensor (tensor([0n, 2n]) for a list of places)';
    const got = Array.isArray(item) ? `a list of ${item.length}` : shown(item);
    throw new TorchError(`index: expected ${expected} at place ${place}, got ${got}`);
  }
  const taken = items.reduce<number>((sum, item) => sum + width(item), 0);
  if (taken > ndim) throw new TorchError(`index: ${taken} are too many for a tensor of ${ndim} dimensions`);
}

/** The part of `x` that `items` name: a view where no item is a tensor. */
export function indexed<T extends Indexable<T>>(x: T, items: readonly IndexedBy<T>[], wrap: (handle: Handle) => T): T {
  check(items, x.ndim);
  let current = x;
  let dim = 0;
  const step = (next: T) => {
    if (current !== x) current.dispose();
    current = next;
  };
  const tensors: (T | null)[] = [];
  for (const [place, item] of items.entries()) {
    if (item === "...") {
      if (items.indexOf(item) !== place) throw new TorchError('index: expected "..." once, got it again');
      for (let rest = x.ndim - items.reduce<number>((sum, other) => sum + width(other), 0); rest > 0; rest--, dim++)
        tensors.push(null);
    } else if (item === null) {
      step(current.unsqueeze(dim));
      tensors.push(null);
      dim++;
    } else if (item instanceof TensorBase && item.ndim === 0 && isInteger(item.dtype)) {
      step(current.select(dim, item.item()));
    } else if (item instanceof TensorBase && item.ndim === 0 && isMask(item.dtype)) {
      // A mask without dimensions keeps or drops the whole: a new dimension of which one place is taken, or none.
      step(current.unsqueeze(dim));
      const places = new BigInt64Array(item.item() === 0 ? 0 : 1);
      tensors.push(wrap(native.fromHost(places, [places.length], dtypeCode("int64"))));
      dim++;
    } else if (item instanceof TensorBase) {
      tensors.push(item);
      dim += width(item);
    } else if (typeof item === "number") {
      step(current.select(dim, item));
    } else {
      if (item !== ":") step(current.slice(dim, item[0], item[1], item[2]));
      tensors.push(null);
      dim++;
    }
  }
  if (tensors.some((t) => t !== null)) {
    step(wrap(native.call(id(0), current.handle, handlesOf(tensors, name, 0, "indices"))));
  }
  return current === x ? wrap(native.call(id(1), x.handle)) : current;
}
