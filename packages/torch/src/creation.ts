// Making tensors, and the functions of several tensors.
import { type Device, type DType, dtypeCode, type HostData, hostArray } from "./dtype.js";
import { shown, TorchError } from "./errors.js";
import { options as known } from "./named-options.js";
import { native } from "./native.js";
import { aten } from "./ops.generated.js";
import { type Scalar, Tensor, wrap } from "./tensor.js";

/** What a new tensor is made as. */
export interface TensorOptions {
  /** The elements' type; float32 unless the function says otherwise. */
  dtype?: DType | undefined;
  /** `cpu` (the default), `cuda` or `cuda:N`. */
  device?: Device | undefined;
  /** Whether operators on it are recorded for `backward`; default false. */
  requiresGrad?: boolean | undefined;
}
/** What a tensor of random numbers is made as. */
export interface RandomTensorOptions extends TensorOptions {
  /** The stream that is drawn from; the device's global one by default. */
  generator?: { readonly generatorHandle: number } | undefined;
}
type Shape = readonly number[];
type Nested = number | bigint | boolean | readonly Nested[];

const NAMES = ["dtype", "device", "requiresGrad"];

/** Marks a new tensor as a parameter where the options ask for it. */
function made(t: Tensor, options: TensorOptions): Tensor {
  return options.requiresGrad === undefined ? t : t.requiresGrad_(options.requiresGrad);
}
/** Options of random tensors, by a function's name. */
function random(name: string, options: RandomTensorOptions): RandomTensorOptions {
  return known(name, options, [...NAMES, "generator"]);
}
const generatorOf = (o: RandomTensorOptions) => o.generator ?? null;

/** The dtypes of typed arrays by their class, which may be that of another realm. A Uint16Array has none by itself. */
const TYPED = new Map<string, DType>([
  ["Float32Array", "float32"],
  ["Float64Array", "float64"],
  ["BigInt64Array", "int64"],
  ["Int32Array", "int32"],
  ["Int16Array", "int16"],
  ["Int8Array", "int8"],
  ["Uint8Array", "uint8"],
  ["Uint8ClampedArray", "uint8"],
  ["Float16Array", "float16"],
]);

type Value = number | bigint | boolean;

/** The dtype that holds all values of nested arrays, as PyTorch promotes them. */
function dtypeOf(values: readonly Value[]): DType {
  const kinds = new Set(values.map((value) => typeof value));
  if (kinds.has("number") || kinds.size === 0) return "float32";
  return kinds.has("bigint") ? "int64" : "bool";
}

/** The least and the largest integer of a dtype; negative ones wrap in uint8, as in PyTorch. */
const RANGES: Partial<Record<DType, [bigint, bigint]>> = {
  uint8: [-255n, 255n],
  int8: [-(2n ** 7n), 2n ** 7n - 1n],
  int16: [-(2n ** 15n), 2n ** 15n - 1n],
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
};

/** Values as elements of a dtype, in an array of it or (for half precision) in float32. */
function elements(values: readonly Value[], dtype: DType): { source: HostData; stored: DType } {
  if (dtype === "bool") return { source: Uint8Array.from(values, (v) => (Number(v) !== 0 ? 1 : 0)), stored: dtype };
  const range = RANGES[dtype];
  const stored = range !== undefined || dtype === "float64" ? dtype : "float32";
  const source = hostArray(stored, values.length) as { [i: number]: number | bigint } & HostData;
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as Value;
    if (range === undefined) source[i] = Number(value);
    else source[i] = dtype === "int64" ? integer(value, dtype, range) : Number(integer(value, dtype, range));
  }
  return { source, stored };
}

/** Fractions are cut off, as in PyTorch. */
function integer(value: Value, dtype: DType, [least, largest]: [bigint, bigint]): bigint {
  const whole = typeof value !== "number" ? BigInt(value) : Number.isFinite(value) ? BigInt(Math.trunc(value)) : null;
  if (whole !== null && whole >= least && whole <= largest) return whole;
  throw new TorchError(`tensor: ${value} is out of the range of ${dtype}`);
}

/** JavaScript's array of float16, which not every supported release has. */
interface Float16Data extends ArrayBufferView {
  readonly [Symbol.toStringTag]: "Float16Array";
  readonly length: number;
}

/** What {@link tensor} makes of data. */
export interface FromDataOptions extends TensorOptions {
  /** Shape of the result; for flat data. */
  shape?: Shape | undefined;
}

/**
 * A tensor with a copy of the data: a number, nested arrays, or a typed array (with `shape`). Numbers become float32,
 * bigints int64, booleans bool; where they are mixed, numbers decide, else bigints. A typed array keeps its type, a
 * Float16Array too. A Uint16Array with dtype float16 or bfloat16 is taken as bits. PyTorch: `torch.tensor`.
 *
 * @throws TorchError for ragged or other data, for values out of the range of an integer dtype, and when `shape` needs
 *   another number of elements
 *
 * @example
 * ```ts
 * tensor([[1, 2], [3, 4]]).shape; // [2, 2], float32
 * tensor([1n, 2n]).dtype; // "int64"
 * tensor(new Uint8Array(12), { shape: [2, 2, 3] });
 * ```
 */
export function tensor(
  data: Nested | HostData | Uint8ClampedArray | Float16Data,
  options: FromDataOptions = {},
): Tensor {
  const { dtype, device, shape: asked, requiresGrad } = known("tensor", options, [...NAMES, "shape"]);
  if (asked !== undefined && !Array.isArray(asked))
    throw new TorchError(`tensor: shape must be a list of sizes, got ${shown(asked)}`);
  const { source, stored, shape } = ArrayBuffer.isView(data) ? typed(data, dtype) : nested(data, dtype);
  const sizes = asked ?? shape ?? [source.length];
  const count = sizes.reduce((product, size) => product * size, 1);
  if (!sizes.every((size) => Number.isInteger(size) && size >= 0))
    throw new TorchError(`tensor: shape must hold whole numbers from 0, got [${sizes}]`);
  if (count !== source.length)
    throw new TorchError(`tensor: shape [${sizes}] has ${count} elements, the data ${source.length}`);
  let result = wrap(native.fromHost(source, sizes, dtypeCode(stored)));
  if ((dtype !== undefined && dtype !== stored) || (device !== undefined && device !== "cpu")) {
    const moved = result.to({ dtype, device });
    if (moved !== result) result.dispose();
    result = moved;
  }
  return made(result, { requiresGrad });
}

/** Elements, the dtype they are stored in, and the shape that they have by themselves. */
interface FlatData {
  source: HostData;
  stored: DType;
  shape?: Shape | undefined;
}

function typed(view: ArrayBufferView, dtype: DType | undefined): FlatData {
  const name = (view as { [Symbol.toStringTag]?: string })[Symbol.toStringTag] ?? "";
  const isBits = name === "Uint16Array";
  if (isBits && dtype !== "float16" && dtype !== "bfloat16")
    throw new TorchError("tensor: a Uint16Array holds raw bits and needs dtype float16 or bfloat16");
  const stored = isBits ? dtype : TYPED.get(name);
  if (stored === undefined) {
    const names = [...TYPED.keys(), "Uint16Array"].join(", ");
    throw new TorchError(`tensor: no dtype has the elements of a ${name}; expected ${names}`);
  }
  if (stored !== "float16" || isBits) return { source: view as HostData, stored };
  return { source: new Uint16Array(view.buffer, view.byteOffset, view.byteLength / 2), stored };
}

function nested(data: Nested, dtype: DType | undefined): FlatData {
  const shape: number[] = [];
  for (let level: Nested = data; Array.isArray(level); level = (level as readonly Nested[])[0] as Nested)
    shape.push(level.length);
  const flat: Value[] = [];
  const collect = (value: Nested, dim: number): void => {
    if (Array.isArray(value)) {
      if (value.length !== shape[dim])
        throw new TorchError(`tensor: ragged data, expected ${shape[dim]} items at depth ${dim}, got ${value.length}`);
      for (const item of value) collect(item, dim + 1);
    } else {
      if (dim !== shape.length) throw new TorchError(`tensor: ragged data, expected an array at depth ${dim}`);
      flat.push(value as Value);
    }
  };
  collect(data, 0);
  const kinds = ["number", "bigint", "boolean"];
  const other = flat.findIndex((value) => !kinds.includes(typeof value));
  if (other >= 0) throw new TorchError(`tensor: data must be numbers, bigints or booleans, got ${shown(flat[other])}`);
  return { ...elements(flat, dtype ?? dtypeOf(flat)), shape };
}

/** Memory of this shape with whatever it held before. */
export function empty(shape: Shape, options: TensorOptions = {}): Tensor {
  const { dtype = "float32", device = "cpu" } = known("empty", options, NAMES);
  return made(aten.empty_memory_format(shape, dtype, null, device), options);
}

/**
 * A tensor of zeros, float32 on the CPU unless the options say otherwise.
 *
 * @example
 * ```ts
 * zeros([2, 3], { dtype: "int64" });
 * ```
 */
export function zeros(shape: Shape, options: TensorOptions = {}): Tensor {
  const { dtype = "float32", device = "cpu" } = known("zeros", options, NAMES);
  return made(aten.zeros(shape, dtype, null, device), options);
}

/** A tensor of ones, float32 on the CPU unless the options say otherwise. */
export function ones(shape: Shape, options: TensorOptions = {}): Tensor {
  const { dtype = "float32", device = "cpu" } = known("ones", options, NAMES);
  return made(aten.ones(shape, dtype, null, device), options);
}

/** A tensor in which every element is `value`; float32 unless a dtype is given. */
export function full(shape: Shape, value: Scalar, options: TensorOptions = {}): Tensor {
  const { dtype = "float32", device = "cpu" } = known("full", options, NAMES);
  return made(aten.full(shape, value, dtype, null, device), options);
}

/** 0, 1, … below `end`; int64 unless a dtype is given or `end` is fractional. */
export function arange(end: number, options?: TensorOptions): Tensor;
/** `start`, `start + 1`, … below `end`; int64 unless a dtype is given or a bound is fractional. */
export function arange(start: number, end: number, options?: TensorOptions): Tensor;
/**
 * `start`, `start + step`, … up to but without `end`; int64 unless a dtype is given or a number is fractional.
 *
 * @example
 * ```ts
 * arange(3).toList(); // [0, 1, 2]
 * arange(1, 2, 0.25).toList(); // [1, 1.25, 1.5, 1.75]
 * arange(4, { dtype: "float32", device: "cuda" });
 * ```
 */
export function arange(start: number, end: number, step: number, options?: TensorOptions): Tensor;
export function arange(...args: (number | TensorOptions | undefined)[]): Tensor {
  const numbers = args.filter((value) => typeof value === "number");
  const rest = args.slice(numbers.length).filter((value) => value !== undefined);
  const [options = {}] = rest;
  if (numbers.length === 0 || numbers.length > 3 || rest.length > 1 || typeof options !== "object") {
    throw new TorchError("arange: expected (end), (start, end) or (start, end, step), and options after them");
  }
  const [start, end, step = 1] = numbers.length === 1 ? [0, ...numbers] : numbers;
  const whole = numbers.every(Number.isInteger);
  const { device = "cpu", dtype = whole ? "int64" : "float32" } = known("arange", options, NAMES);
  return made(aten.arange_start_step(start!, end!, step, dtype, null, device), options);
}

/** `steps` numbers at equal distances from `start` to `end`, both included. */
export function linspace(start: number, end: number, steps: number, options: TensorOptions = {}): Tensor {
  const { dtype = "float32", device = "cpu" } = known("linspace", options, NAMES);
  return made(aten.linspace(start, end, steps, dtype, null, device), options);
}

/** The n × n matrix with ones on the diagonal. */
export function eye(n: number, options?: TensorOptions): Tensor;
/** The n × m matrix with ones on the diagonal. */
export function eye(n: number, m: number, options?: TensorOptions): Tensor;
export function eye(n: number, second?: number | TensorOptions, third: TensorOptions = {}): Tensor {
  const [m, options] = typeof second === "object" ? [n, second] : [second ?? n, third];
  const { dtype = "float32", device = "cpu" } = known("eye", options, NAMES);
  return made(aten.eye_m(n, m, dtype, null, device), options);
}

/**
 * Standard normal values, equal to PyTorch's of the same seed and device.
 *
 * @example
 * ```ts
 * randn([1, 4, 64, 64], { generator: new Generator().manualSeed(42) });
 * ```
 */
export function randn(shape: Shape, options: RandomTensorOptions = {}): Tensor {
  const { dtype = "float32", device = "cpu" } = random("randn", options);
  return made(aten.randn_generator(shape, generatorOf(options), dtype, null, device), options);
}

/** Uniform values in [0, 1). */
export function rand(shape: Shape, options: RandomTensorOptions = {}): Tensor {
  const { dtype = "float32", device = "cpu" } = random("rand", options);
  return made(aten.rand_generator(shape, generatorOf(options), dtype, null, device), options);
}

/** Integers in [low, high); int64 unless a dtype is given. */
export function randint(low: number, high: number, shape: Shape, options: RandomTensorOptions = {}): Tensor {
  const { dtype = "int64", device = "cpu" } = random("randint", options);
  return made(aten.randint_low_generator(low, high, shape, generatorOf(options), dtype, null, device), options);
}

/** A random order of 0 … n−1 (int64). */
export function randperm(n: number, options: RandomTensorOptions = {}): Tensor {
  const { dtype = "int64", device = "cpu" } = random("randperm", options);
  return made(aten.randperm_generator(n, generatorOf(options), dtype, null, device), options);
}

/** Normal values of the given mean and standard deviation. */
export function normal(mean: number, std: number, shape: Shape, options: RandomTensorOptions = {}): Tensor {
  const { dtype, device, generator } = random("normal", options);
  return made(empty(shape, { dtype, device }).normal_(mean, std, generator), options);
}

/** What a tensor in the shape of another one has of its own. */
export interface LikeOptions {
  /** Its dtype; null and left out: that of the other tensor. */
  dtype?: DType | null | undefined;
  /** Its device; null and left out: that of the other tensor. */
  device?: Device | null | undefined;
}

const LIKE = ["dtype", "device"];

/** Zeros in the shape of `t`, and in its dtype and device unless others are given. */
export function zerosLike(t: Tensor, options: LikeOptions = {}): Tensor {
  const { dtype = null, device = null } = known("zerosLike", options, LIKE);
  return aten.zeros_like(t, dtype, null, device);
}

/** Ones in the shape of `t`, and in its dtype and device unless others are given. */
export function onesLike(t: Tensor, options: LikeOptions = {}): Tensor {
  const { dtype = null, device = null } = known("onesLike", options, LIKE);
  return aten.ones_like(t, dtype, null, device);
}

/**
 * Memory in the shape of `t`, and in its dtype and device unless others are given; it holds whatever it held before.
 */
export function emptyLike(t: Tensor, options: LikeOptions = {}): Tensor {
  const { dtype = null, device = null } = known("emptyLike", options, LIKE);
  return aten.empty_like(t, dtype, null, device);
}

/** Standard normal values from the global generator, in the shape, dtype and device of another tensor. */
export function randnLike(t: Tensor, options: LikeOptions = {}): Tensor {
  const { dtype = null, device = null } = known("randnLike", options, LIKE);
  return aten.randn_like(t, dtype, null, device);
}

/** A tensor like `t` in which every element is `value`. */
export function fullLike(t: Tensor, value: Scalar): Tensor {
  return aten.full_like(t, value);
}

/**
 * Tensors of the same other sizes, one after the other along `dim`.
 *
 * @example
 * ```ts
 * cat([ones([2, 3]), zeros([1, 3])]).shape; // [3, 3]
 * ```
 */
export function cat(tensors: readonly Tensor[], dim = 0): Tensor {
  return aten.cat(tensors, dim);
}

/** Tensors of one shape along a new dimension `dim`. */
export function stack(tensors: readonly Tensor[], dim = 0): Tensor {
  return aten.stack(tensors, dim);
}

/** Elements of `a` where the bool tensor `condition` holds, else of `b`; shapes are broadcast. */
export function where(condition: Tensor, a: Tensor | Scalar, b: Tensor | Scalar): Tensor {
  if (a instanceof Tensor) {
    return b instanceof Tensor ? aten.where_self(condition, a, b) : aten.where_ScalarOther(condition, a, b);
  }
  return b instanceof Tensor ? aten.where_ScalarSelf(condition, a, b) : aten.where_Scalar(condition, a, b);
}

/**
 * Sums of products in Einstein's notation.
 *
 * @example
 * ```ts
 * einsum("bhid,bhjd->bhij", [q, k]); // q kᵀ for each head
 * ```
 */
export function einsum(equation: string, tensors: readonly Tensor[]): Tensor {
  return aten.einsum(equation, tensors);
}

/** All products of two vectors: (n), (m) → (n, m). */
export function outer(a: Tensor, b: Tensor): Tensor {
  return aten.outer(a, b);
}
