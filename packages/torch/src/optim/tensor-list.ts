/** Lists of tensors that stay, for what is done to all of them in one call of the engine. */
import { TorchError } from "../errors.js";
import { native } from "../native.js";
import { scope } from "../scope.js";
import { Tensor, wrap } from "../tensor.js";

/**
 * Tensors that stay, such as the parameters of a network: what is done to all of them at every step is one call.
 *
 * @example
 * ```ts
 * const trained = new TensorList(model.parameters());
 * clipGradNorm_(trained, 1);
 * ```
 */
export class TensorList {
  /** The tensors. */
  readonly tensors: readonly Tensor[];
  readonly #handles: Float64Array;

  /** @throws TorchError for what is no list of tensors */
  constructor(tensors: Iterable<Tensor>) {
    if (typeof tensors?.[Symbol.iterator] !== "function")
      throw new TorchError("expected a list of tensors, such as model.parameters()");
    this.tensors = [...tensors];
    const other = this.tensors.findIndex((tensor) => !(tensor instanceof Tensor));
    if (other >= 0)
      throw new TorchError(`expected a list of tensors, such as model.parameters(); item ${other} is none`);
    this.#handles = new Float64Array(this.tensors.length);
  }

  /** The list itself, or a new one of these tensors or of this one. */
  static of(tensors: Iterable<Tensor> | TensorList | Tensor): TensorList {
    if (tensors instanceof TensorList) return tensors;
    return new TensorList(tensors instanceof Tensor ? [tensors] : tensors);
  }

  /**
   * The handles as the engine takes them, in the same array each time. They are read anew at each use, because a tensor
   * gets another one when it is moved.
   * @internal
   */
  handles(): Float64Array {
    const { length } = this.tensors;
    for (let i = 0; i < length; i++) this.#handles[i] = this.tensors[i]!.handle;
    return this.#handles;
  }

  /** The gradients, null where there is none: new objects for the same memory. */
  gradients(): (Tensor | null)[] {
    return scope(() => native.gradients(this.handles()).map((handle) => (handle === 0 ? null : wrap(handle))));
  }

  /** Drops the gradients. */
  clearGradients(): void {
    native.clearGradients(this.handles());
  }

  /** Moves each tensor towards another: t ← t + weight · (end − t). Records no gradients. */
  lerp_(ends: TensorList, weight: number): this {
    native.moveTowards(this.handles(), ends.handles(), weight);
    return this;
  }
}
