// Passing tensors between worker threads without copying.
import { shown, TorchError } from "./errors.js";
import { native } from "./native.js";
import { type Tensor, wrap } from "./tensor.js";
import { checkedHandle } from "./tensor-base.js";

/**
 * A message that holds a tensor on its way to another thread of this process. It must be received exactly once: of one
 * that nobody awaits any more, `receive(message).dispose()` gives the memory back, in any thread.
 */
export interface SharedTensor {
  /** The engine's number of the message. */
  sharedTensor: number;
}

/**
 * Makes a message for `postMessage`; the receiver's tensor has the same memory. This thread's tensor stays valid.
 *
 * @example
 * ```ts
 * worker.postMessage(share(x)); // there: receive(message)
 * ```
 */
export function share(t: Tensor): SharedTensor {
  return { sharedTensor: native.share(checkedHandle(t, "share")) };
}
/**
 * Takes the tensor out of a message made by {@link share}. The caller owns it. @throws TorchError at the second call
 */
export function receive(message: SharedTensor): Tensor {
  const token = message?.sharedTensor;
  if (typeof token !== "number") throw new TorchError(`receive: expected a message of share, got ${shown(message)}`);
  return wrap(native.receive(token));
}
