// The one way to libtorch's operators: names are looked up in the dispatcher at their first use, calls go by number.
import { native } from "./native.js";

/** Operators of a generated file. */
export interface Operators {
  /** The dispatcher's number of the i-th name. */
  id(i: number): number;
  /** The i-th name with its namespace, such as `aten::add.Tensor`. */
  name(i: number): string;
}

/** Numbers for a list of names, separated by spaces: `add.Tensor exp sum.dim_IntList`, all of the namespace aten. */
export function operators(list: string): Operators {
  const names = list.split(" ").map((name) => `aten::${name}`);
  const ids = new Int32Array(names.length).fill(-1);
  const name = (i: number) => names[i] as string;
  return {
    name,
    id(i) {
      const known = ids[i] as number;
      if (known >= 0) return known;
      ids[i] = operatorId(name(i));
      return ids[i] as number;
    },
  };
}

/** The dispatcher's number of `namespace::name.overload`. */
export function operatorId(name: string): number {
  const dot = name.indexOf(".");
  return dot < 0 ? native.operator(name, "") : native.operator(name.slice(0, dot), name.slice(dot + 1));
}
