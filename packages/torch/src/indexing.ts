// x.index(...): Python's x[...] from views and one gather.
import { handlesOf } from "./arguments.js";
import type { Handle } from "./native.js";
import { native } from "./native.js";
import { operators } from "./operators.js";
import { TensorBase } from "./tensor-base.js";

/** One position of an index: a number, a new axis (null), everything, a slice `[start, end, step?]`, or a tensor. */
export type IndexedBy<T> = number | null | ":" | readonly [number | null, number | null, number?] | T;

/** What indexing needs of a tensor. */
interface Indexable<T> extends TensorBase<T> {
  unsqueeze(dim: number): T;
  select(dim: number, index: number): T;
  slice(dim: number, start: number | null, end: number | null, step?: number): T;
}

const { id, name } = operators("index.Tensor alias");

/** The part of `x` that `items` name: a view where no item is a tensor. */
export function indexed<T extends Indexable<T>>(x: T, items: readonly IndexedBy<T>[], wrap: (handle: Handle) => T): T {
  let current = x;
  let dim = 0;
  const step = (next: T) => {
    if (current !== x) current.dispose();
    current = next;
  };
  const tensors: (T | null)[] = [];
  for (const item of items) {
    if (item === null) {
      step(current.unsqueeze(dim));
      tensors.push(null);
      dim++;
    } else if (item instanceof TensorBase) {
      tensors.push(item);
      dim += item.dtype === "bool" ? item.ndim : 1;
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
