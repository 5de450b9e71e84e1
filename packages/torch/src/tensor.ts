// Tensor: a JavaScript object that holds a native handle. Methods carry PyTorch's names in camelCase and its meaning.
import { type Device, type DType, dtypeCode, dtypeName, type HostData, hostArray } from "./dtype.js";
import { TorchError } from "./errors.js";
import { collectWhenDue } from "./memory.js";
import { type Handle, native } from "./native.js";
import { scopeDepth } from "./scope-stack.js";

/** A number that stays a double even when it is integral. Made by {@link float}. */
export class FloatScalar {
  constructor(readonly float: number) {}
}

/** Marks a number as a double: `x.mul(2)` keeps an int64 tensor's dtype, `x.mul(float(2))` gives float32. */
export function float(value: number): FloatScalar {
  return new FloatScalar(value);
}

/** A number without shape. An integral `number` counts as an integer, as `2` does in Python; `float(2)` is `2.0`. */
export type Scalar = number | bigint | boolean | FloatScalar;

/** One position of {@link Tensor.index}: an index, a new axis, everything, a slice `[start, end, step?]`, or a tensor. */
export type IndexItem = number | null | ":" | readonly [number | null, number | null, number?] | Tensor;

/** Names an operator of the dispatcher; it is looked up at its first use. */
export function operator(name: string): () => number {
  let index = -1;
  return () => {
    if (index < 0) {
      const dot = name.indexOf(".");
      index = dot < 0 ? native.operator(name, "") : native.operator(name.slice(0, dot), name.slice(dot + 1));
    }
    return index;
  };
}

/** Gives a fresh handle its JavaScript object. */
export function wrap(handle: Handle): Tensor {
  const tensor = new Tensor(handle);
  if (scopeDepth() === 0) followed(tensor);
  return tensor;
}

/** Lets the safety net know a tensor that no scope owns. */
export function followed(tensor: Tensor): void {
  native.track(tensor.handle, tensor);
  collectWhenDue();
}

/** The handle of an argument; what is no tensor is passed on as a value that native code refuses by name. */
export function handleOf(value: Tensor | null | undefined): unknown {
  if (value instanceof Tensor) return value.handle;
  if (value === null || value === undefined) return value;
  return typeof value === "number" ? Symbol("a number") : value;
}

export function handlesOf(values: readonly (Tensor | null | undefined)[]): unknown {
  return Array.isArray(values) ? values.map(handleOf) : values;
}

const operators = new Map<string, () => number>();

/** Calls an operator by name with handles and plain values. */
function run(name: string, a?: unknown, b?: unknown, c?: unknown, d?: unknown, e?: unknown, f?: unknown): Tensor {
  return wrap(invoke(name, a, b, c, d, e, f));
}

function invoke(name: string, a?: unknown, b?: unknown, c?: unknown, d?: unknown, e?: unknown, f?: unknown): any {
  let index = operators.get(name);
  if (index === undefined) {
    index = operator(`aten::${name}`);
    operators.set(name, index);
  }
  if (f !== undefined) return native.call(index(), a, b, c, d, e, f);
  if (e !== undefined) return native.call(index(), a, b, c, d, e);
  if (d !== undefined) return native.call(index(), a, b, c, d);
  if (c !== undefined) return native.call(index(), a, b, c);
  if (b !== undefined) return native.call(index(), a, b);
  return native.call(index(), a);
}

/** An operator that takes a tensor or a number at its right. */
interface BinaryOperator {
  tensor: () => number;
  scalar: () => number;
}
const binaryOperator = (name: string): BinaryOperator => ({
  tensor: operator(`aten::${name}.Tensor`),
  scalar: operator(`aten::${name}.Scalar`),
});
const binary = {
  add: binaryOperator("add"),
  sub: binaryOperator("sub"),
  mul: binaryOperator("mul"),
  div: binaryOperator("div"),
  rsub: binaryOperator("rsub"),
  remainder: binaryOperator("remainder"),
  eq: binaryOperator("eq"),
  ne: binaryOperator("ne"),
  lt: binaryOperator("lt"),
  le: binaryOperator("le"),
  gt: binaryOperator("gt"),
  ge: binaryOperator("ge"),
  add_: binaryOperator("add_"),
  sub_: binaryOperator("sub_"),
  mul_: binaryOperator("mul_"),
  div_: binaryOperator("div_"),
};

function toDims(dim: number | readonly number[] | undefined | null): number[] | null {
  if (dim === undefined || dim === null) return null;
  return typeof dim === "number" ? [dim] : [...dim];
}

function sizesOf(args: readonly (number | readonly number[])[]): number[] {
  return (args.length === 1 && Array.isArray(args[0]) ? args[0] : args) as number[];
}

export interface ReduceOptions {
  keepdim?: boolean;
  /** Degrees of freedom subtracted from the count; 1 (the default) gives the unbiased estimate. */
  correction?: number;
}

export interface RandomOptions {
  generator?: { readonly generatorHandle: number };
}

export interface ToOptions {
  dtype?: DType;
  device?: Device;
  /** Copies even when nothing changes. */
  copy?: boolean;
  nonBlocking?: boolean;
}

export class Tensor implements Disposable {
  #handle: Handle;
  #shape: readonly number[] | undefined;

  /** @internal Tensors are made by functions such as `tensor`, `zeros`, `randn`. */
  constructor(handle: Handle) {
    this.#handle = handle;
  }

  // ---- what it is ------------------------------------------------------------------------------------------------

  /** @internal */
  get handle(): Handle {
    return this.#handle;
  }
  get shape(): number[] {
    if (this.#shape === undefined) this.#shape = native.shape(this.#handle);
    else if (!native.isValid(this.#handle)) native.shape(this.#handle); // throws the error of freed tensors
    return this.#shape.slice();
  }
  /** @internal Forgets what was remembered about the shape, after an in-place change. */
  changed(): this {
    this.#shape = undefined;
    return this;
  }
  get strides(): number[] {
    return native.strides(this.#handle);
  }
  get dtype(): DType {
    return dtypeName(native.dtype(this.#handle));
  }
  get device(): Device {
    return native.device(this.#handle);
  }
  get ndim(): number {
    return this.shape.length;
  }
  get numel(): number {
    return native.numel(this.#handle);
  }
  get isContiguous(): boolean {
    return native.isContiguous(this.#handle);
  }
  /** Whether this tensor was freed, so that any use is an error. */
  get isDisposed(): boolean {
    return !native.isValid(this.#handle);
  }
  size(dim: number): number {
    const shape = this.shape;
    const size = shape.at(dim);
    if (size === undefined) throw new TorchError(`size(${dim}): the tensor has ${shape.length} dimensions`);
    return size;
  }
  toString(): string {
    if (this.isDisposed) return "Tensor(disposed)";
    return `Tensor(${this.dtype}, [${this.shape.join(", ")}]${this.device === "cpu" ? "" : `, ${this.device}`})`;
  }
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }

  // ---- lifetime --------------------------------------------------------------------------------------------------

  /** Frees the native tensor now (its storage when nothing else uses it). Harmless when already freed. */
  dispose(): void {
    native.free(this.#handle);
  }
  [Symbol.dispose](): void {
    this.dispose();
  }
  /** Exempts this tensor from the enclosing scopes: it lives until `dispose()` or until it is forgotten. */
  keep(): this {
    native.keep(this.#handle);
    native.track(this.#handle, this);
    return this;
  }
  /** This object now denotes `other`'s tensor; `other` and the tensor denoted before are freed. Keeps the place in a module. */
  assign(other: Tensor): this {
    if (other === this) return this;
    const handle = native.alias(other.handle);
    native.free(this.#handle);
    other.dispose();
    this.#handle = handle;
    this.#shape = undefined;
    return this.keep();
  }

  // ---- host data -------------------------------------------------------------------------------------------------

  /** The only element, as a number. */
  item(): number {
    return native.item(this.#handle);
  }
  /** A copy of the elements in row-major order; half-precision types as raw bits in a Uint16Array. */
  data(): HostData {
    const out = hostArray(this.dtype, this.numel);
    native.copyToHost(this.#handle, out);
    return out;
  }
  /** The elements as nested arrays of numbers. */
  toList(): any {
    const shape = this.shape;
    const dtype = this.dtype;
    const half = dtype === "float16" || dtype === "bfloat16";
    const source = half ? this.float() : this;
    const flat = source.data();
    if (half) source.dispose();
    const values = Array.from(flat as Iterable<number | bigint>, (v) => (dtype === "bool" ? v !== 0 : Number(v)));
    let position = 0;
    const build = (dim: number): unknown => {
      if (dim === shape.length) return values[position++];
      return Array.from({ length: shape[dim] as number }, () => build(dim + 1));
    };
    return build(0);
  }

  // ---- autograd --------------------------------------------------------------------------------------------------

  get requiresGrad(): boolean {
    return native.requiresGrad(this.#handle);
  }
  set requiresGrad(on: boolean) {
    native.setRequiresGrad(this.#handle, on);
  }
  requiresGrad_(on = true): this {
    native.setRequiresGrad(this.#handle, on);
    return this;
  }
  get isLeaf(): boolean {
    return native.isLeaf(this.#handle);
  }
  /** The accumulated gradient, or null. Each access gives a new object for the same memory. */
  get grad(): Tensor | null {
    const handle = native.getGrad(this.#handle);
    return handle === 0 ? null : wrap(handle);
  }
  set grad(gradient: Tensor | null) {
    native.setGrad(this.#handle, gradient === null ? 0 : gradient.handle);
  }
  /** Accumulates gradients into the leaves that this tensor depends on. */
  backward(gradient?: Tensor, options: { retainGraph?: boolean; createGraph?: boolean } = {}): void {
    const { createGraph = false, retainGraph = createGraph } = options;
    native.backward([this.#handle], gradient ? [gradient.handle] : [], retainGraph, createGraph);
  }
  /** The same memory outside of the graph. */
  detach(): Tensor {
    return run("detach", this.#handle);
  }
  clone(): Tensor {
    return run("clone", this.#handle);
  }

  // ---- conversion ------------------------------------------------------------------------------------------------

  /** Another dtype and/or device. The same object when nothing changes. */
  to(options: ToOptions | DType): Tensor {
    const {
      dtype,
      device,
      copy = false,
      nonBlocking = false,
    } = typeof options === "string" ? ({ dtype: options } as ToOptions) : options;
    if (
      !copy &&
      (dtype === undefined || dtype === this.dtype) &&
      (device === undefined || sameDevice(device, this.device))
    )
      return this;
    return run(
      "_to_copy",
      this.#handle,
      dtype === undefined ? null : dtypeCode(dtype),
      null,
      device ?? null,
      null,
      nonBlocking,
    );
  }
  float(): Tensor {
    return this.to("float32");
  }
  double(): Tensor {
    return this.to("float64");
  }
  half(): Tensor {
    return this.to("float16");
  }
  bfloat16(): Tensor {
    return this.to("bfloat16");
  }
  long(): Tensor {
    return this.to("int64");
  }
  int(): Tensor {
    return this.to("int32");
  }
  bool(): Tensor {
    return this.to("bool");
  }
  cpu(): Tensor {
    return this.to({ device: "cpu" });
  }
  contiguous(memoryFormat?: "contiguous_format" | "channels_last"): Tensor {
    return run("contiguous", this.#handle, memoryFormat);
  }

  // ---- arithmetic with broadcasting ------------------------------------------------------------------------------

  #binary(op: BinaryOperator, other: Tensor | Scalar): Tensor {
    return wrap(
      other instanceof Tensor
        ? native.call(op.tensor(), this.#handle, other.#handle)
        : native.call(op.scalar(), this.#handle, other),
    );
  }
  #binary_(op: BinaryOperator, other: Tensor | Scalar): this {
    if (other instanceof Tensor) native.call(op.tensor(), this.#handle, other.#handle);
    else native.call(op.scalar(), this.#handle, other);
    return this;
  }
  #inPlace(name: string, a?: unknown, b?: unknown, c?: unknown): this {
    invoke(name, this.#handle, a, b, c);
    return this;
  }

  /** this + alpha · other */
  add(other: Tensor | Scalar, alpha?: Scalar): Tensor {
    if (alpha === undefined) return this.#binary(binary.add, other);
    return other instanceof Tensor
      ? run("add.Tensor", this.#handle, other.#handle, alpha)
      : run("add.Scalar", this.#handle, other, alpha);
  }
  sub(other: Tensor | Scalar): Tensor {
    return this.#binary(binary.sub, other);
  }
  mul(other: Tensor | Scalar): Tensor {
    return this.#binary(binary.mul, other);
  }
  div(other: Tensor | Scalar): Tensor {
    return this.#binary(binary.div, other);
  }
  /** other − this */
  rsub(other: Tensor | Scalar): Tensor {
    return this.#binary(binary.rsub, other);
  }
  remainder(other: Tensor | Scalar): Tensor {
    return this.#binary(binary.remainder, other);
  }
  floorDivide(other: Tensor | Scalar): Tensor {
    return other instanceof Tensor
      ? run("floor_divide", this.#handle, other.#handle)
      : run("floor_divide.Scalar", this.#handle, other);
  }
  pow(exponent: Tensor | Scalar): Tensor {
    return exponent instanceof Tensor
      ? run("pow.Tensor_Tensor", this.#handle, exponent.#handle)
      : run("pow.Tensor_Scalar", this.#handle, exponent);
  }
  maximum(other: Tensor): Tensor {
    return run("maximum", this.#handle, handleOf(other));
  }
  minimum(other: Tensor): Tensor {
    return run("minimum", this.#handle, handleOf(other));
  }
  neg(): Tensor {
    return run("neg", this.#handle);
  }
  abs(): Tensor {
    return run("abs", this.#handle);
  }
  sign(): Tensor {
    return run("sign", this.#handle);
  }
  square(): Tensor {
    return run("square", this.#handle);
  }
  sqrt(): Tensor {
    return run("sqrt", this.#handle);
  }
  rsqrt(): Tensor {
    return run("rsqrt", this.#handle);
  }
  reciprocal(): Tensor {
    return run("reciprocal", this.#handle);
  }
  exp(): Tensor {
    return run("exp", this.#handle);
  }
  expm1(): Tensor {
    return run("expm1", this.#handle);
  }
  log(): Tensor {
    return run("log", this.#handle);
  }
  log1p(): Tensor {
    return run("log1p", this.#handle);
  }
  log2(): Tensor {
    return run("log2", this.#handle);
  }
  sin(): Tensor {
    return run("sin", this.#handle);
  }
  cos(): Tensor {
    return run("cos", this.#handle);
  }
  tanh(): Tensor {
    return run("tanh", this.#handle);
  }
  erf(): Tensor {
    return run("erf", this.#handle);
  }
  erfinv(): Tensor {
    return run("erfinv", this.#handle);
  }
  sigmoid(): Tensor {
    return run("sigmoid", this.#handle);
  }
  floor(): Tensor {
    return run("floor", this.#handle);
  }
  ceil(): Tensor {
    return run("ceil", this.#handle);
  }
  round(): Tensor {
    return run("round", this.#handle);
  }
  trunc(): Tensor {
    return run("trunc", this.#handle);
  }
  clamp(min: Scalar | null = null, max: Scalar | null = null): Tensor {
    return run("clamp", this.#handle, min, max);
  }
  /** this + weight · (end − this) */
  lerp(end: Tensor, weight: Tensor | Scalar): Tensor {
    return weight instanceof Tensor
      ? run("lerp.Tensor", this.#handle, handleOf(end), weight.#handle)
      : run("lerp.Scalar", this.#handle, handleOf(end), weight);
  }
  nanToNum(nan: number | null = null, posinf: number | null = null, neginf: number | null = null): Tensor {
    return run("nan_to_num", this.#handle, nan, posinf, neginf);
  }
  isnan(): Tensor {
    return run("isnan", this.#handle);
  }
  isinf(): Tensor {
    return run("isinf", this.#handle);
  }
  isfinite(): Tensor {
    return run("isfinite", this.#handle);
  }
  eq(other: Tensor | Scalar): Tensor {
    return this.#binary(binary.eq, other);
  }
  ne(other: Tensor | Scalar): Tensor {
    return this.#binary(binary.ne, other);
  }
  lt(other: Tensor | Scalar): Tensor {
    return this.#binary(binary.lt, other);
  }
  le(other: Tensor | Scalar): Tensor {
    return this.#binary(binary.le, other);
  }
  gt(other: Tensor | Scalar): Tensor {
    return this.#binary(binary.gt, other);
  }
  ge(other: Tensor | Scalar): Tensor {
    return this.#binary(binary.ge, other);
  }
  logicalAnd(other: Tensor): Tensor {
    return run("logical_and", this.#handle, handleOf(other));
  }
  logicalOr(other: Tensor): Tensor {
    return run("logical_or", this.#handle, handleOf(other));
  }
  logicalNot(): Tensor {
    return run("logical_not", this.#handle);
  }
  maskedFill(mask: Tensor, value: Scalar): Tensor {
    return run("masked_fill.Scalar", this.#handle, handleOf(mask), value);
  }

  // ---- in place --------------------------------------------------------------------------------------------------

  add_(other: Tensor | Scalar, alpha?: Scalar): this {
    if (alpha === undefined) return this.#binary_(binary.add_, other);
    invoke(
      other instanceof Tensor ? "add_.Tensor" : "add_.Scalar",
      this.#handle,
      other instanceof Tensor ? other.#handle : other,
      alpha,
    );
    return this;
  }
  sub_(other: Tensor | Scalar): this {
    return this.#binary_(binary.sub_, other);
  }
  mul_(other: Tensor | Scalar): this {
    return this.#binary_(binary.mul_, other);
  }
  div_(other: Tensor | Scalar): this {
    return this.#binary_(binary.div_, other);
  }
  addcmul_(a: Tensor, b: Tensor, value: Scalar = 1): this {
    return this.#inPlace("addcmul_", handleOf(a), handleOf(b), value);
  }
  addcdiv_(a: Tensor, b: Tensor, value: Scalar = 1): this {
    return this.#inPlace("addcdiv_", handleOf(a), handleOf(b), value);
  }
  copy_(source: Tensor): this {
    return this.#inPlace("copy_", handleOf(source));
  }
  zero_(): this {
    return this.#inPlace("zero_");
  }
  fill_(value: Scalar): this {
    return this.#inPlace("fill_.Scalar", value);
  }
  clamp_(min: Scalar | null = null, max: Scalar | null = null): this {
    return this.#inPlace("clamp_", min, max);
  }
  lerp_(end: Tensor, weight: Tensor | Scalar): this {
    return weight instanceof Tensor
      ? this.#inPlace("lerp_.Tensor", handleOf(end), weight.#handle)
      : this.#inPlace("lerp_.Scalar", handleOf(end), weight);
  }
  sqrt_(): this {
    return this.#inPlace("sqrt_");
  }
  neg_(): this {
    return this.#inPlace("neg_");
  }
  exp_(): this {
    return this.#inPlace("exp_");
  }
  erfinv_(): this {
    return this.#inPlace("erfinv_");
  }
  maskedFill_(mask: Tensor, value: Scalar): this {
    return this.#inPlace("masked_fill_.Scalar", handleOf(mask), value);
  }
  normal_(mean = 0, std = 1, { generator }: RandomOptions = {}): this {
    return this.#inPlace("normal_", mean, std, generator?.generatorHandle);
  }
  uniform_(from = 0, to = 1, { generator }: RandomOptions = {}): this {
    return this.#inPlace("uniform_", from, to, generator?.generatorHandle);
  }
  bernoulli_(p = 0.5, { generator }: RandomOptions = {}): this {
    return this.#inPlace("bernoulli_.float", p, generator?.generatorHandle);
  }
  scatter_(dim: number, index: Tensor, source: Tensor | Scalar): this {
    return source instanceof Tensor
      ? this.#inPlace("scatter_.src", dim, handleOf(index), source.#handle)
      : this.#inPlace("scatter_.value", dim, handleOf(index), source);
  }
  indexCopy_(dim: number, index: Tensor, source: Tensor): this {
    return this.#inPlace("index_copy_", dim, handleOf(index), handleOf(source));
  }
  indexAdd_(dim: number, index: Tensor, source: Tensor): this {
    return this.#inPlace("index_add_", dim, handleOf(index), handleOf(source));
  }
  /** Writes `values` at `indices`, one index tensor (or null for "all") a dimension. */
  indexPut_(indices: readonly (Tensor | null)[], values: Tensor, accumulate = false): this {
    return this.#inPlace("index_put_", handlesOf(indices), handleOf(values), accumulate);
  }

  // ---- reductions ------------------------------------------------------------------------------------------------

  sum(dim?: number | readonly number[] | null, keepdim = false): Tensor {
    const dims = toDims(dim);
    return dims === null ? run("sum", this.#handle) : run("sum.dim_IntList", this.#handle, dims, keepdim);
  }
  mean(dim?: number | readonly number[] | null, keepdim = false): Tensor {
    const dims = toDims(dim);
    return dims === null ? run("mean", this.#handle) : run("mean.dim", this.#handle, dims, keepdim);
  }
  std(dim?: number | readonly number[] | null, { keepdim = false, correction = 1 }: ReduceOptions = {}): Tensor {
    return run("std.correction", this.#handle, toDims(dim), correction, keepdim);
  }
  var(dim?: number | readonly number[] | null, { keepdim = false, correction = 1 }: ReduceOptions = {}): Tensor {
    return run("var.correction", this.#handle, toDims(dim), correction, keepdim);
  }
  amax(dim: number | readonly number[] = [], keepdim = false): Tensor {
    return run("amax", this.#handle, toDims(dim), keepdim);
  }
  amin(dim: number | readonly number[] = [], keepdim = false): Tensor {
    return run("amin", this.#handle, toDims(dim), keepdim);
  }
  max(): Tensor {
    return run("max", this.#handle);
  }
  min(): Tensor {
    return run("min", this.#handle);
  }
  prod(dim?: number, keepdim = false): Tensor {
    return dim === undefined ? run("prod", this.#handle) : run("prod.dim_int", this.#handle, dim, keepdim);
  }
  any(dim?: number, keepdim = false): Tensor {
    return dim === undefined ? run("any", this.#handle) : run("any.dim", this.#handle, dim, keepdim);
  }
  all(dim?: number, keepdim = false): Tensor {
    return dim === undefined ? run("all", this.#handle) : run("all.dim", this.#handle, dim, keepdim);
  }
  /** Euclidean norm. */
  norm(dim?: number | readonly number[] | null, keepdim = false): Tensor {
    return run("linalg_vector_norm", this.#handle, 2, toDims(dim), keepdim);
  }
  argmax(dim: number | null = null, keepdim = false): Tensor {
    return run("argmax", this.#handle, dim, keepdim);
  }
  argmin(dim: number | null = null, keepdim = false): Tensor {
    return run("argmin", this.#handle, dim, keepdim);
  }
  topk(k: number, dim = -1, largest = true): { values: Tensor; indices: Tensor } {
    return pair(invoke("topk", this.#handle, k, dim, largest));
  }
  sort(dim = -1, descending = false): { values: Tensor; indices: Tensor } {
    return pair(invoke("sort", this.#handle, dim, descending));
  }
  cumsum(dim: number): Tensor {
    return run("cumsum", this.#handle, dim);
  }
  softmax(dim: number): Tensor {
    return run("softmax.int", this.#handle, dim);
  }
  logSoftmax(dim: number): Tensor {
    return run("log_softmax.int", this.#handle, dim);
  }

  // ---- activations -----------------------------------------------------------------------------------------------

  relu(): Tensor {
    return run("relu", this.#handle);
  }
  silu(): Tensor {
    return run("silu", this.#handle);
  }
  gelu({ approximate = "none" }: { approximate?: "none" | "tanh" } = {}): Tensor {
    return run("gelu", this.#handle, approximate);
  }

  // ---- linear algebra --------------------------------------------------------------------------------------------

  matmul(other: Tensor): Tensor {
    return run("matmul", this.#handle, handleOf(other));
  }
  mm(other: Tensor): Tensor {
    return run("mm", this.#handle, handleOf(other));
  }
  bmm(other: Tensor): Tensor {
    return run("bmm", this.#handle, handleOf(other));
  }
  t(): Tensor {
    return run("t", this.#handle);
  }

  // ---- shape -----------------------------------------------------------------------------------------------------

  view(...shape: number[] | [readonly number[]]): Tensor {
    return run("view", this.#handle, sizesOf(shape));
  }
  /** The same bytes seen as another dtype. */
  viewDtype(dtype: DType): Tensor {
    return run("view.dtype", this.#handle, dtypeCode(dtype));
  }
  reshape(...shape: number[] | [readonly number[]]): Tensor {
    return run("reshape", this.#handle, sizesOf(shape));
  }
  permute(...dims: number[] | [readonly number[]]): Tensor {
    return run("permute", this.#handle, sizesOf(dims));
  }
  transpose(a: number, b: number): Tensor {
    return run("transpose.int", this.#handle, a, b);
  }
  unsqueeze(dim: number): Tensor {
    return run("unsqueeze", this.#handle, dim);
  }
  squeeze(dim?: number): Tensor {
    return dim === undefined ? run("squeeze", this.#handle) : run("squeeze.dim", this.#handle, dim);
  }
  flatten(start = 0, end = -1): Tensor {
    return run("flatten.using_ints", this.#handle, start, end);
  }
  unflatten(dim: number, sizes: readonly number[]): Tensor {
    return run("unflatten.int", this.#handle, dim, sizes);
  }
  expand(...shape: number[] | [readonly number[]]): Tensor {
    return run("expand", this.#handle, sizesOf(shape));
  }
  expandAs(other: Tensor): Tensor {
    return run("expand_as", this.#handle, handleOf(other));
  }
  repeat(...repeats: number[] | [readonly number[]]): Tensor {
    return run("repeat", this.#handle, sizesOf(repeats));
  }
  repeatInterleave(repeats: number, dim: number): Tensor {
    return run("repeat_interleave.self_int", this.#handle, repeats, dim);
  }
  narrow(dim: number, start: number, length: number): Tensor {
    return run("narrow", this.#handle, dim, start, length);
  }
  select(dim: number, index: number): Tensor {
    return run("select.int", this.#handle, dim, index);
  }
  slice(dim: number, start: number | null = null, end: number | null = null, step = 1): Tensor {
    return run("slice.Tensor", this.#handle, dim, start, end, step);
  }
  chunk(chunks: number, dim = 0): Tensor[] {
    return (invoke("chunk", this.#handle, chunks, dim) as Handle[]).map(wrap);
  }
  split(size: number | readonly number[], dim = 0): Tensor[] {
    const name = typeof size === "number" ? "split.Tensor" : "split_with_sizes";
    return (invoke(name, this.#handle, size, dim) as Handle[]).map(wrap);
  }
  unbind(dim = 0): Tensor[] {
    return (invoke("unbind.int", this.#handle, dim) as Handle[]).map(wrap);
  }
  roll(shifts: number | readonly number[], dims: number | readonly number[] = []): Tensor {
    return run("roll", this.#handle, toDims(shifts), toDims(dims));
  }
  flip(dims: number | readonly number[]): Tensor {
    return run("flip", this.#handle, toDims(dims));
  }
  gather(dim: number, index: Tensor): Tensor {
    return run("gather", this.#handle, dim, handleOf(index));
  }
  indexSelect(dim: number, index: Tensor): Tensor {
    return run("index_select", this.#handle, dim, handleOf(index));
  }
  tril(diagonal = 0): Tensor {
    return run("tril", this.#handle, diagonal);
  }
  triu(diagonal = 0): Tensor {
    return run("triu", this.#handle, diagonal);
  }
  /** Indexing as `x[...]` in Python: numbers, null (new axis), ":", `[start, end, step?]`, and tensors of int64 or bool. */
  index(...items: IndexItem[]): Tensor {
    let current: Tensor = this;
    let dim = 0;
    const step = (next: Tensor) => {
      if (current !== this) current.dispose();
      current = next;
    };
    const tensors: (Tensor | null)[] = [];
    for (const item of items) {
      if (item === null) {
        step(current.unsqueeze(dim));
        tensors.push(null);
        dim++;
      } else if (item instanceof Tensor) {
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
    if (tensors.some((t) => t !== null)) step(run("index.Tensor", current.#handle, handlesOf(tensors)));
    return current === this ? run("alias", this.#handle) : current;
  }
}

function pair(handles: [Handle, Handle]): { values: Tensor; indices: Tensor } {
  return { values: wrap(handles[0]), indices: wrap(handles[1]) };
}

function sameDevice(asked: Device, present: Device): boolean {
  return asked === present || (asked === "cuda" && present.startsWith("cuda"));
}

/**
 * Calls any operator of the dispatcher by its schema name, such as `call("aten::add.Tensor", a, b, 2)`. Arguments come in
 * the schema's order; trailing ones may be left out where the schema has defaults. Tensors come back as {@link Tensor};
 * an operator that writes into an argument gives that argument back.
 */
export function call(name: string, ...args: any[]): any {
  let index = operators.get(name);
  if (index === undefined) {
    index = operator(name);
    operators.set(name, index);
  }
  const operatorIndex = index();
  const { parameters, results } = signature(name);
  const plain = args.map((a, i) => plainArgument(a, parameters[i] ?? ""));
  const result = native.call(operatorIndex, ...plain);
  if (result === undefined) {
    const written = args.find((a): a is Tensor => a instanceof Tensor);
    return written?.changed();
  }
  return wrapResults(result, results);
}

/** Handles are numbers too: only the schema tells where one is meant, so that a number is never taken for a tensor. */
function plainArgument(value: unknown, type: string): unknown {
  if (!type.startsWith("Tensor")) return generatorId(value);
  return type.includes("[]") ? handlesOf(value as Tensor[]) : handleOf(value as Tensor);
}

function generatorId(value: unknown): unknown {
  return typeof value === "object" && value !== null && "generatorHandle" in value
    ? (value as { generatorHandle: number }).generatorHandle
    : value;
}

interface Signature {
  /** Types of the parameters and of the results, such as `Tensor`, `Tensor?[]`, `int`, `str`. */
  parameters: string[];
  results: string[];
}
const signatures = new Map<string, Signature>();

/** What an operator's schema says: `aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor`. */
function signature(name: string): Signature {
  let found = signatures.get(name);
  if (found === undefined) {
    const schema = native.schema(name);
    const arrow = schema.lastIndexOf(" -> ");
    const outcome = schema.slice(arrow + 4);
    found = {
      parameters: typesIn(schema.slice(schema.indexOf("(") + 1, arrow - 1)),
      results: typesIn(outcome.startsWith("(") ? outcome.slice(1, -1) : outcome),
    };
    signatures.set(name, found);
  }
  return found;
}

/** The types of a comma-separated list of `type name=default`; alias marks such as `(a!)` are dropped. */
function typesIn(list: string): string[] {
  const items = list.replace(/\([^()]*\)/g, "").split(/, (?![^[]*\])/);
  return items.map((item) => item.split(" ")[0] as string).filter((type) => type !== "*" && type !== "");
}

function wrapResults(result: unknown, types: string[]): unknown {
  const one = (value: unknown, type: string): unknown => {
    if (value === null) return null;
    if (type === "Tensor" || type === "Tensor?") return wrap(value as Handle);
    if (type.startsWith("Tensor")) return (value as Handle[]).map(wrap);
    return value;
  };
  return types.length === 1
    ? one(result, types[0] as string)
    : (result as unknown[]).map((v, i) => one(v, types[i] as string));
}
