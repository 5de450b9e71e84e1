// From JavaScript's arguments to what native code takes: handles for tensors, codes for dtypes, names for places.
import { type DType, dtypeCode } from "./dtype.js";
import { TorchError } from "./errors.js";
import { TensorBase } from "./tensor-base.js";

/** A random stream; {@link Generator} is one. */
export interface GeneratorLike {
  /** The engine's number of this stream. */
  readonly generatorHandle: number;
}

type NameOf = (operator: number) => string;

/**
 * The handle of a tensor. Handles are numbers too, so that a number is refused here; any other value that is no tensor
 * is passed on, and native code refuses it by operator and argument.
 */
export function handleOf(value: unknown, nameOf: NameOf, operator: number, argument: string): unknown {
  if (value instanceof TensorBase) return value.handle;
  if (typeof value !== "number") return value;
  throw new TorchError(`${nameOf(operator)}: argument '${argument}' must be a Tensor, got the number ${value}`);
}

/** The handles of a list of tensors and nulls. */
export function handlesOf(values: unknown, nameOf: NameOf, operator: number, argument: string): unknown {
  return Array.isArray(values) ? values.map((value) => handleOf(value, nameOf, operator, argument)) : values;
}

/** The number of a random stream; other values are refused by native code. */
export function generatorId(value: unknown): unknown {
  return typeof value === "object" && value !== null && "generatorHandle" in value ? value.generatorHandle : value;
}

/** The code of a dtype that may be left out. */
export function optionalDtype(dtype: DType | null | undefined): number | null | undefined {
  return dtype === undefined || dtype === null ? dtype : dtypeCode(dtype);
}

/** `view(2, 3)` and `view([2, 3])` alike. */
export function sizes(list: number[] | [readonly number[]]): readonly number[] {
  const [first] = list;
  return list.length === 1 && Array.isArray(first) ? first : (list as number[]);
}
