// Making tensors, and the functions of several tensors.
import { type Device, type DType, dtypeCode, type HostData } from "./dtype.js";
import { TorchError } from "./errors.js";
import { native } from "./native.js";
import { handleOf, handlesOf, operator, type Scalar, Tensor, wrap } from "./tensor.js";

export interface TensorOptions {
  dtype?: DType;
  device?: Device;
  requiresGrad?: boolean;
}
export interface RandomTensorOptions extends TensorOptions {
  generator?: { readonly generatorHandle: number };
}
type Shape = readonly number[];
type Nested = number | bigint | boolean | readonly Nested[];

const ops = {
  empty: operator("aten::empty.memory_format"),
  full: operator("aten::full"),
  zeros: operator("aten::zeros"),
  ones: operator("aten::ones"),
  arange: operator("aten::arange.start_step"),
  linspace: operator("aten::linspace"),
  eye: operator("aten::eye.m"),
  randn: operator("aten::randn.generator"),
  rand: operator("aten::rand.generator"),
  randint: operator("aten::randint.low_generator"),
  randperm: operator("aten::randperm.generator"),
  zerosLike: operator("aten::zeros_like"),
  onesLike: operator("aten::ones_like"),
  emptyLike: operator("aten::empty_like"),
  randnLike: operator("aten::randn_like"),
  fullLike: operator("aten::full_like"),
  cat: operator("aten::cat"),
  stack: operator("aten::stack"),
  where: operator("aten::where.self"),
  einsum: operator("aten::einsum"),
  outer: operator("aten::outer"),
};

function made(handle: number, options: TensorOptions): Tensor {
  const t = wrap(handle);
  return options.requiresGrad ? t.requiresGrad_() : t;
}
const typeOf = (o: TensorOptions) => dtypeCode(o.dtype ?? "float32");
const deviceOf = (o: TensorOptions) => o.device ?? "cpu";
const generatorOf = (o: RandomTensorOptions) => o.generator?.generatorHandle ?? null;

const TYPED: [new (n: number) => HostData, DType][] = [
  [Float32Array, "float32"],
  [Float64Array, "float64"],
  [BigInt64Array, "int64"],
  [Int32Array, "int32"],
  [Int16Array, "int16"],
  [Int8Array, "int8"],
  [Uint8Array, "uint8"],
];

export interface FromDataOptions extends TensorOptions {
  /** Shape of the result; for flat data. */
  shape?: Shape;
}

/**
 * A tensor with a copy of the data: a number, nested arrays, or a typed array (with `shape`). Numbers become float32,
 * bigints int64, booleans bool; a typed array keeps its type. A Uint16Array with dtype float16 or bfloat16 is taken as bits.
 */
export function tensor(data: Nested | HostData | Uint8ClampedArray, options: FromDataOptions = {}): Tensor {
  let source: HostData;
  let shape: Shape;
  let dtype: DType;
  if (ArrayBuffer.isView(data)) {
    const view = data as HostData;
    if (view instanceof Uint16Array) {
      if (options.dtype !== "float16" && options.dtype !== "bfloat16") {
        throw new TorchError("tensor: a Uint16Array holds raw bits and needs dtype float16 or bfloat16");
      }
      dtype = options.dtype;
    } else {
      const found = TYPED.find(([type]) => view instanceof type);
      dtype = found?.[1] ?? "uint8";
    }
    source = view;
    shape = options.shape ?? [view.length];
  } else {
    const sizes: number[] = [];
    for (let level: Nested = data as Nested; Array.isArray(level); level = (level as readonly Nested[])[0] as Nested)
      sizes.push(level.length);
    const flat: (number | bigint | boolean)[] = [];
    const collect = (value: Nested, dim: number): void => {
      if (Array.isArray(value)) {
        if (value.length !== sizes[dim])
          throw new TorchError(
            `tensor: ragged data, expected ${sizes[dim]} items at depth ${dim}, got ${value.length}`,
          );
        for (const item of value) collect(item, dim + 1);
      } else {
        if (dim !== sizes.length) throw new TorchError(`tensor: ragged data, expected an array at depth ${dim}`);
        flat.push(value as number);
      }
    };
    collect(data as Nested, 0);
    const first = flat[0];
    if (flat.some((v) => typeof v !== "number" && typeof v !== "bigint" && typeof v !== "boolean")) {
      throw new TorchError("tensor: data must be numbers, bigints or booleans");
    }
    if (typeof first === "bigint" || options.dtype === "int64") {
      dtype = "int64";
      source = BigInt64Array.from(flat, (v) => BigInt(v));
    } else if (typeof first === "boolean") {
      dtype = "bool";
      source = Uint8Array.from(flat, (v) => (v ? 1 : 0));
    } else if (options.dtype === "float64") {
      dtype = "float64";
      source = Float64Array.from(flat, Number);
    } else {
      dtype = "float32";
      source = Float32Array.from(flat, Number);
    }
    shape = options.shape ?? sizes;
  }
  let result = wrap(native.fromHost(source, shape, dtypeCode(dtype)));
  if (
    (options.dtype !== undefined && options.dtype !== dtype) ||
    (options.device !== undefined && options.device !== "cpu")
  ) {
    const moved = result.to({ dtype: options.dtype, device: options.device });
    if (moved !== result) result.dispose();
    result = moved;
  }
  return options.requiresGrad ? result.requiresGrad_() : result;
}

export function empty(shape: Shape, options: TensorOptions = {}): Tensor {
  return made(native.call(ops.empty(), shape, typeOf(options), null, deviceOf(options)), options);
}
export function zeros(shape: Shape, options: TensorOptions = {}): Tensor {
  return made(native.call(ops.zeros(), shape, typeOf(options), null, deviceOf(options)), options);
}
export function ones(shape: Shape, options: TensorOptions = {}): Tensor {
  return made(native.call(ops.ones(), shape, typeOf(options), null, deviceOf(options)), options);
}
export function full(shape: Shape, value: Scalar, options: TensorOptions = {}): Tensor {
  return made(native.call(ops.full(), shape, value, typeOf(options), null, deviceOf(options)), options);
}
/** `arange(end)` or `arange(start, end, step)`; int64 unless a dtype is given or a bound is fractional. */
export function arange(start: number, end?: number | null, step = 1, options: TensorOptions = {}): Tensor {
  const [from, to] = end === undefined || end === null ? [0, start] : [start, end];
  const dtype =
    options.dtype ?? (Number.isInteger(from) && Number.isInteger(to) && Number.isInteger(step) ? "int64" : "float32");
  return made(native.call(ops.arange(), from, to, step, dtypeCode(dtype), null, deviceOf(options)), options);
}
export function linspace(start: number, end: number, steps: number, options: TensorOptions = {}): Tensor {
  return made(native.call(ops.linspace(), start, end, steps, typeOf(options), null, deviceOf(options)), options);
}
export function eye(n: number, m = n, options: TensorOptions = {}): Tensor {
  return made(native.call(ops.eye(), n, m, typeOf(options), null, deviceOf(options)), options);
}

/** Standard normal values. */
export function randn(shape: Shape, options: RandomTensorOptions = {}): Tensor {
  return made(native.call(ops.randn(), shape, generatorOf(options), typeOf(options), null, deviceOf(options)), options);
}
/** Uniform values in [0, 1). */
export function rand(shape: Shape, options: RandomTensorOptions = {}): Tensor {
  return made(native.call(ops.rand(), shape, generatorOf(options), typeOf(options), null, deviceOf(options)), options);
}
/** Integers in [low, high); int64 unless a dtype is given. */
export function randint(low: number, high: number, shape: Shape, options: RandomTensorOptions = {}): Tensor {
  const dtype = dtypeCode(options.dtype ?? "int64");
  return made(
    native.call(ops.randint(), low, high, shape, generatorOf(options), dtype, null, deviceOf(options)),
    options,
  );
}
/** A random order of 0 … n−1 (int64). */
export function randperm(n: number, options: RandomTensorOptions = {}): Tensor {
  return made(
    native.call(ops.randperm(), n, generatorOf(options), dtypeCode(options.dtype ?? "int64"), null, deviceOf(options)),
    options,
  );
}
/** Normal values of the given mean and standard deviation. */
export function normal(mean: number, std: number, shape: Shape, options: RandomTensorOptions = {}): Tensor {
  const t = empty(shape, { dtype: options.dtype, device: options.device }).normal_(mean, std, {
    generator: options.generator,
  });
  return options.requiresGrad ? t.requiresGrad_() : t;
}

type LikeOptions = Pick<TensorOptions, "dtype" | "device">;
const like =
  (op: () => number) =>
  (t: Tensor, options: LikeOptions = {}) =>
    wrap(
      native.call(
        op(),
        handleOf(t),
        options.dtype === undefined ? null : dtypeCode(options.dtype),
        null,
        options.device ?? null,
      ),
    );
export const zerosLike = like(ops.zerosLike);
export const onesLike = like(ops.onesLike);
export const emptyLike = like(ops.emptyLike);
/** Standard normal values from the global generator, in the shape, dtype and device of another tensor. */
export const randnLike = like(ops.randnLike);
export function fullLike(t: Tensor, value: Scalar): Tensor {
  return wrap(native.call(ops.fullLike(), handleOf(t), value));
}

export function cat(tensors: readonly Tensor[], dim = 0): Tensor {
  return wrap(native.call(ops.cat(), handlesOf(tensors), dim));
}
export function stack(tensors: readonly Tensor[], dim = 0): Tensor {
  return wrap(native.call(ops.stack(), handlesOf(tensors), dim));
}
const whereOps = {
  scalarSelf: operator("aten::where.ScalarSelf"),
  scalarOther: operator("aten::where.ScalarOther"),
  scalar: operator("aten::where.Scalar"),
};
/** Elements of `a` where the condition holds, else of `b`. */
export function where(condition: Tensor, a: Tensor | Scalar, b: Tensor | Scalar): Tensor {
  const c = handleOf(condition);
  if (a instanceof Tensor) {
    return wrap(
      b instanceof Tensor
        ? native.call(ops.where(), c, a.handle, b.handle)
        : native.call(whereOps.scalarOther(), c, a.handle, b),
    );
  }
  return wrap(
    b instanceof Tensor ? native.call(whereOps.scalarSelf(), c, a, b.handle) : native.call(whereOps.scalar(), c, a, b),
  );
}
export function einsum(equation: string, tensors: readonly Tensor[]): Tensor {
  return wrap(native.call(ops.einsum(), equation, handlesOf(tensors)));
}
export function outer(a: Tensor, b: Tensor): Tensor {
  return wrap(native.call(ops.outer(), handleOf(a), handleOf(b)));
}
