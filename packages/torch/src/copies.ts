// Copies between host and GPU that run beside the computation, from and to pinned memory; each direction has a stream
// of its own.
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
    return native.copyIsDone(this.#open);
  }

  /** Operators that are called from now on come after the copy: the sources may be changed. The host does not wait. */
  holdBack(): void {
    native.copyBefore(this.#open, this.#source.handle);
  }

  /** Waits, on the host, until the targets have their values. */
  wait(): void {
    native.copyWait(this.#open);
  }

  /** Forgets the copy, which goes on if it is not done. */
  dispose(): void {
    if (this.#id !== undefined) native.copyFree(this.#id);
    this.#id = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
