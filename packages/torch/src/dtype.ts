// Element types, by PyTorch's names.
import { TorchError } from "./errors.js";

/** The type of a tensor's elements, by PyTorch's name without `torch.`. */
export type DType =
  | "uint8"
  | "int8"
  | "int16"
  | "int32"
  | "int64"
  | "float16"
  | "float32"
  | "float64"
  | "bool"
  | "bfloat16";

/** How elements lie in memory; `preserve_format` keeps the layout of the input. */
export type MemoryFormat = "contiguous_format" | "preserve_format" | "channels_last" | "channels_last_3d";

/** A device name: `cpu`, `cuda` (the current one) or `cuda:N`. */
export type Device = string;

/** c10::ScalarType numbers. */
const CODES: Record<DType, number> = {
  uint8: 0,
  int8: 1,
  int16: 2,
  int32: 3,
  int64: 4,
  float16: 5,
  float32: 6,
  float64: 7,
  bool: 11,
  bfloat16: 15,
};
const NAMES = new Map(Object.entries(CODES).map(([name, code]) => [code, name as DType]));
const WIDTHS: Record<DType, number> = {
  uint8: 1,
  int8: 1,
  int16: 2,
  int32: 4,
  int64: 8,
  float16: 2,
  float32: 4,
  float64: 8,
  bool: 1,
  bfloat16: 2,
};

/** Typed arrays that tensors are made from and read into. A Uint16Array holds the bits of float16 or bfloat16. */
export type HostData =
  | Uint8Array
  | Int8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | BigInt64Array
  | Float32Array
  | Float64Array;

/** The number by which libtorch knows a dtype. @throws TorchError for other names */
export function dtypeCode(dtype: DType): number {
  const code = Object.hasOwn(CODES, dtype) ? CODES[dtype] : undefined;
  if (code === undefined) {
    throw new TorchError(`dtype must be one of ${Object.keys(CODES).join(", ")}, got ${String(dtype)}`);
  }
  return code;
}

/** Dtypes that operators may give and that JavaScript has no arrays for. */
const FOREIGN = new Map([
  [8, "complex32"],
  [9, "complex64"],
  [10, "complex128"],
]);

/** A dtype in words, by libtorch's number. */
export const dtypeText = (code: number): string => NAMES.get(code) ?? FOREIGN.get(code) ?? `dtype ${code}`;

/** The dtype behind libtorch's number. @throws TorchError for dtypes that JavaScript has no arrays for */
export function dtypeName(code: number): DType {
  const name = NAMES.get(code);
  if (name !== undefined) return name;
  const remedy = FOREIGN.has(code) ? "; aten.view_as_real gives both parts" : "";
  throw new TorchError(`JavaScript has no arrays for a tensor of ${dtypeText(code)}${remedy}`);
}

/** Bytes of one element. */
export function itemSize(dtype: DType): number {
  return WIDTHS[dtype];
}

/** Whether a dtype holds fractions: float16, bfloat16, float32 or float64. PyTorch: `torch.is_floating_point`. */
export function isFloatingPoint(dtype: DType): boolean {
  return dtype === "float32" || dtype === "bfloat16" || dtype === "float16" || dtype === "float64";
}

/** An empty typed array for `length` elements; half-precision types come as raw bits in a Uint16Array. */
export function hostArray(dtype: DType, length: number): HostData {
  switch (dtype) {
    case "float32":
      return new Float32Array(length);
    case "float64":
      return new Float64Array(length);
    case "int64":
      return new BigInt64Array(length);
    case "int32":
      return new Int32Array(length);
    case "int16":
      return new Int16Array(length);
    case "int8":
      return new Int8Array(length);
    case "float16":
    case "bfloat16":
      return new Uint16Array(length);
    default:
      return new Uint8Array(length);
  }
}
