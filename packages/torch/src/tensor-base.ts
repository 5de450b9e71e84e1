/**
 * What a tensor is besides its operators: a JavaScript object that holds a native handle, its description, lifetime,
 * host data, place in the graph and conversion. The operators are the methods of tensor.generated.ts.
 */
import { type Device, type DType, dtypeCode, dtypeName, dtypeText, type HostData, hostArray } from "./dtype.js";
import { naming, shown, TorchError } from "./errors.js";
import { collectWhenDue } from "./memory.js";
import { options as known } from "./named-options.js";
import { type Handle, native } from "./native.js";
import { operators } from "./operators.js";
import { scopeDepth } from "./scope-stack.js";

/** What {@link Tensor.to} changes; what is left out stays. */
export interface ToOptions {
  /** The new dtype. */
  dtype?: DType | undefined;
  /** Where the values go: `cpu`, `cuda` or `cuda:N`. */
  device?: Device | undefined;
  /** Copies even when nothing changes. */
  copy?: boolean | undefined;
  /** Returns before a copy between host and device is done. */
  nonBlocking?: boolean | undefined;
}

/** Elements as nested arrays, one level a dimension: a plain number or boolean for a tensor without dimensions. */
export type NestedValues = number | boolean | NestedValues[];

const { id } = operators("_to_copy");
const TO_OPTIONS = ["dtype", "device", "copy", "nonBlocking"];
const BACKWARD_OPTIONS = ["retainGraph", "createGraph"];

/** The part of {@link Tensor} that is no operator. `Self` is the class whose objects the operators give. */
export abstract class TensorBase<Self> implements Disposable {
  #handle: Handle;
  #shape: readonly number[] | undefined;

  /** @internal Tensors are made by functions such as `tensor`, `zeros`, `randn`. */
  constructor(handle: Handle) {
    this.#handle = handle;
  }

  #another(handle: Handle): Self {
    const tensor = new (this.constructor as new (handle: Handle) => TensorBase<Self>)(handle);
    if (scopeDepth() === 0) followed(tensor);
    return tensor as Self;
  }

  // ---- what it is ------------------------------------------------------------------------------------------------

  /** @internal */
  get handle(): Handle {
    return this.#handle;
  }

  /** The size of each dimension; a new array at each access. Empty for a single number. */
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

  /** Elements (not bytes) from one index to the next, for each dimension. */
  get strides(): number[] {
    return native.strides(this.#handle);
  }

  /** The type of the elements, such as `"float32"`. */
  get dtype(): DType {
    return dtypeName(native.dtype(this.#handle));
  }

  /** Where the elements lie: `"cpu"` or `"cuda:N"`. */
  get device(): Device {
    return native.device(this.#handle);
  }

  /** The number of dimensions. */
  get ndim(): number {
    return this.shape.length;
  }

  /** The number of elements. */
  get numel(): number {
    return native.numel(this.#handle);
  }

  /** Whether the elements lie in row-major order without gaps. */
  get isContiguous(): boolean {
    return native.isContiguous(this.#handle);
  }

  /** Whether this tensor was freed, so that any use is an error. */
  get isDisposed(): boolean {
    return !native.isValid(this.#handle);
  }

  /** The size of one dimension; negative ones count from the end. */
  size(dim: number): number {
    const shape = this.shape;
    const size = Number.isInteger(dim) ? shape.at(dim) : undefined;
    if (size === undefined) throw new TorchError(`size(${shown(dim)}): the tensor has ${shape.length} dimensions`);
    return size;
  }

  /** Dtype, shape and device in one line, such as `Tensor(float32, [2, 3])`; no elements. */
  toString(): string {
    if (this.isDisposed) return "Tensor(disposed)";
    const dtype = dtypeText(native.dtype(this.#handle));
    return `Tensor(${dtype}, [${this.shape.join(", ")}]${this.device === "cpu" ? "" : `, ${this.device}`})`;
  }

  /** What `console.log` shows. */
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }

  // ---- lifetime --------------------------------------------------------------------------------------------------

  /** Frees the native tensor now (its storage when nothing else uses it). Harmless when already freed. */
  dispose(): void {
    native.free(this.#handle);
  }

  /** As `dispose`, for `using x = …`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Exempts this tensor from the enclosing scopes: it lives until `dispose()` or until it is forgotten. */
  keep(): this {
    native.keep(this.#handle);
    native.track(this.#handle, this);
    return this;
  }

  /**
   * This object now denotes `other`'s tensor; `other` and the tensor denoted before are freed. So a parameter keeps its
   * place in a module while its values, dtype or device are replaced.
   */
  assign(other: TensorBase<Self>): this {
    if (other === this) return this;
    const handle = native.alias(checkedHandle(other, "assign"));
    native.free(this.#handle);
    other.dispose();
    this.#handle = handle;
    this.#shape = undefined;
    return this.keep();
  }

  // ---- host data -------------------------------------------------------------------------------------------------

  /** The only element, as a number. An error where there are more. Waits for the device. */
  item(): number {
    return native.item(this.#handle);
  }

  /**
   * A copy of the elements in row-major order, as a typed array of the dtype: BigInt64Array for int64, Uint8Array for
   * bool, the raw bits in a Uint16Array for float16 and bfloat16. Waits for the device.
   */
  data(): HostData {
    const out = hostArray(this.dtype, this.numel);
    native.copyToHost(this.#handle, out);
    return out;
  }

  /**
   * The elements as nested arrays of numbers, or of booleans for bool. Integers beyond ±2⁵³ are rounded: {@link
   * Tensor.data} has them exactly.
   *
   * @example
   * ```ts
   * arange(4).view(2, 2).toList(); // [[0, 1], [2, 3]]
   * ```
   */
  toList(): NestedValues {
    const shape = this.shape;
    const dtype = this.dtype;
    const half = dtype === "float16" || dtype === "bfloat16";
    const handle = half ? this.#copied("float32") : this.#handle;
    const flat = hostArray(half ? "float32" : dtype, this.numel);
    native.copyToHost(handle, flat);
    if (half) native.free(handle);
    const values = Array.from(flat as Iterable<number | bigint>, (v) => (dtype === "bool" ? v !== 0 : Number(v)));
    let position = 0;
    const build = (dim: number): NestedValues => {
      if (dim === shape.length) return values[position++] as number | boolean;
      return Array.from({ length: shape[dim] as number }, () => build(dim + 1));
    };
    return build(0);
  }

  /** What `JSON.stringify` writes: {@link Tensor.toString}, so that no log holds all elements; `toList()` has them. */
  toJSON(): string {
    return this.toString();
  }

  /**
   * What JavaScript takes where it needs a number, as in `Number(x)` or `x < y`: {@link Tensor.item}, as Python's
   * `float(x)`. In texts it is {@link Tensor.toString}.
   */
  [Symbol.toPrimitive](hint: string): number | string {
    return hint === "number" ? this.item() : this.toString();
  }

  // ---- autograd --------------------------------------------------------------------------------------------------

  /** Whether operators on this tensor are recorded for `backward`. Can be set on leaves of a floating-point dtype. */
  get requiresGrad(): boolean {
    return native.requiresGrad(this.#handle);
  }
  set requiresGrad(on: boolean) {
    this.requiresGrad_(on);
  }

  /**
   * Sets {@link Tensor.requiresGrad} and gives this tensor back.
   *
   * @throws TorchError for other dtypes, and for false where this tensor was computed from one that records
   */
  requiresGrad_(on = true): this {
    if (on === false && !native.isLeaf(this.#handle))
      throw new TorchError("requiresGrad: this tensor was computed from one that records; detach() gives one without");
    naming("requiresGrad", () => native.setRequiresGrad(this.#handle, on));
    return this;
  }

  /** Whether this tensor was made by the caller, not by a recorded operator: `backward` fills the `grad` of leaves. */
  get isLeaf(): boolean {
    return native.isLeaf(this.#handle);
  }

  /** The accumulated gradient, or null. Each access gives a new object for the same memory. */
  get grad(): Self | null {
    const handle = native.getGrad(this.#handle);
    return handle === 0 ? null : this.#another(handle);
  }
  set grad(gradient: (Self & TensorBase<Self>) | null) {
    native.setGrad(this.#handle, handleOrNone(gradient, "grad"));
  }

  /**
   * Accumulates gradients into the leaves that this tensor depends on.
   *
   * @param gradient weights of this tensor's elements, in its shape; may be left out for a single number
   *
   * @example
   * ```ts
   * const w = tensor([1, 2], { requiresGrad: true });
   * w.square().sum().backward();
   * w.grad!.toList(); // [2, 4]
   * ```
   */
  backward(
    gradient?: TensorBase<Self>,
    options: { retainGraph?: boolean | undefined; createGraph?: boolean | undefined } = {},
  ): void {
    const { createGraph = false, retainGraph = createGraph } = known("backward", options, BACKWARD_OPTIONS);
    const gradients = gradient === undefined ? [] : [handleOrNone(gradient, "backward: gradient")];
    naming("backward", () => native.backward([this.#handle], gradients, retainGraph, createGraph));
  }

  // ---- conversion ------------------------------------------------------------------------------------------------

  #copied(dtype?: DType, device?: Device, nonBlocking = false): Handle {
    const code = dtype === undefined ? null : dtypeCode(dtype);
    return native.call(id(0), this.#handle, code, null, device ?? null, null, nonBlocking);
  }

  /**
   * Another dtype and/or device. The same object when nothing changes, unless `copy` is set.
   *
   * @example
   * ```ts
   * x.to("bfloat16");
   * x.to({ device: "cuda", dtype: "float16" });
   * ```
   */
  to(options: ToOptions | DType): Self {
    if (typeof options === "string" && /^(cpu|cuda)/.test(options))
      throw new TorchError(`to: "${options}" is a device, no dtype: expected { device: "${options}" }`);
    const given: ToOptions = typeof options === "string" ? { dtype: options } : options;
    const { dtype, device, copy, nonBlocking } = known("to", given, TO_OPTIONS);
    const stays =
      (dtype === undefined || dtype === this.dtype) && (device === undefined || sameDevice(device, this.device));
    if (stays && !copy) return this as unknown as Self;
    return this.#another(this.#copied(dtype, device, nonBlocking));
  }

  /** As float32. */
  float(): Self {
    return this.to("float32");
  }

  /** As float64. */
  double(): Self {
    return this.to("float64");
  }

  /** As float16. */
  half(): Self {
    return this.to("float16");
  }

  /** As bfloat16: the range of float32 with 8 bits of precision. */
  bfloat16(): Self {
    return this.to("bfloat16");
  }

  /** As int64; fractions are cut off. */
  long(): Self {
    return this.to("int64");
  }

  /** As int32; fractions are cut off. */
  int(): Self {
    return this.to("int32");
  }

  /** As bool: true where an element is not 0. */
  bool(): Self {
    return this.to("bool");
  }

  /** In the memory of the host. */
  cpu(): Self {
    return this.to({ device: "cpu" });
  }
}

/** Lets the safety net know a tensor that no scope owns. */
export function followed(tensor: TensorBase<unknown>): void {
  native.track(tensor.handle, tensor);
  collectWhenDue();
}

/** The handle of an argument. @throws TorchError that names it where it is no tensor */
export function checkedHandle(value: unknown, name: string, expected = "a Tensor"): Handle {
  if (value instanceof TensorBase) return value.handle;
  throw new TorchError(`${name}: expected ${expected}, got ${shown(value)}`);
}

/** The same where null, which 0 stands for, is allowed. */
export function handleOrNone(value: unknown, name: string): Handle {
  return value === null ? 0 : checkedHandle(value, name, "a Tensor or null");
}

function sameDevice(asked: Device, present: Device): boolean {
  return asked === present || (asked === "cuda" && present.startsWith("cuda"));
}
