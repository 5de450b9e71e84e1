// Copies between host and GPU that run beside the computation, from and to pinned memory, each direction on a stream of
// its own; and events, which tell how far a GPU has come.
import type { Device } from "./dtype.js";
import { TorchError } from "./errors.js";
import { native } from "./native.js";
import { type Tensor, wrap } from "./tensor.js";

/**
 * Memory of the host that GPUs copy from and to without the host's help: uint8 (bytes), its values whatever they were.
 * Freed memory is used again once copies from it are done.
 *
 * @throws TorchError where libtorch has no CUDA
 */
export function pinnedMemory(bytes: number): Tensor {
  return wrap(native.pinned(bytes));
}

/**
 * A copy on a device, made beside what the device computes just now; operators that are called afterwards come after
 * it. The host waits only where the source is not pinned.
 *
 * @example
 * ```ts
 * const staged = pinnedMemory(4 * x.numel).viewDtype("float32").copy_(x.flatten());
 * const there = copyBeside(staged, "cuda");
 * ```
 */
export function copyBeside(source: Tensor, device: Device): Tensor {
  return wrap(native.copyBeside(source.handle, device));
}

/** Tensors on their way from a GPU to pinned memory, while the GPU computes. */
export class HostCopy implements Disposable {
  #id: number | undefined;
  readonly #source: Tensor;

  /**
   * Starts to copy `sources`, of one GPU, as they are after what was called so far, into `targets` of the same shapes
   * and dtypes in pinned memory.
   *
   * @throws TorchError for lists that do not fit, or sources on the CPU
   */
  constructor(sources: readonly Tensor[], targets: readonly Tensor[]) {
    this.#id = native.copyOut(
      sources.map((t) => t.handle),
      targets.map((t) => t.handle),
    );
    this.#source = sources[0]!;
  }

  get #open(): number {
    if (this.#id === undefined) throw new TorchError("this copy was disposed");
    return this.#id;
  }

  /** Whether the targets have their values. */
  get isDone(): boolean {
    return native.eventIsDone(this.#open);
  }

  /** Operators that are called from now on come after the copy: the sources may be changed. The host does not wait. */
  holdBack(): void {
    native.eventBefore(this.#open, this.#source.handle);
  }

  /** Waits, on the host, until the targets have their values. */
  wait(): void {
    native.eventWait(this.#open);
  }

  /** Forgets the copy, which goes on if it is not done. */
  dispose(): void {
    if (this.#id !== undefined) native.eventFree(this.#id);
    this.#id = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * A place in what a device has been given to do: whether it has come so far. PyTorch: `torch.Event`.
 *
 * @example
 * ```ts
 * using queued = new DeviceEvent(x.matmul(x));
 * while (!queued.isDone) await new Promise((resolve) => setImmediate(resolve)); // the host does other things
 * ```
 */
export class DeviceEvent implements Disposable {
  /** Null on a CPU, undefined once disposed. */
  #id: number | null | undefined;

  /**
   * Comes after everything that was called so far on the device of `tensor`, by this thread. On a CPU that is done
   * already.
   */
  constructor(tensor: Tensor) {
    const { device } = tensor;
    this.#id = device === "cpu" || device === "meta" ? null : native.eventRecord(tensor.handle);
  }

  get #open(): number | null {
    if (this.#id === undefined) throw new TorchError("this event was disposed");
    return this.#id;
  }

  /** Whether the device has done it all. Never waits. */
  get isDone(): boolean {
    const id = this.#open;
    return id === null || native.eventIsDone(id);
  }

  /** Waits, on the host, until the device has done it all. */
  wait(): void {
    const id = this.#open;
    if (id !== null) native.eventWait(id);
  }

  /** Forgets the event. What the device was given goes on. */
  dispose(): void {
    if (typeof this.#id === "number") native.eventFree(this.#id);
    this.#id = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
