// Passing tensors between worker threads without copying.
import { native } from "./native.js";
import { type Tensor, wrap } from "./tensor.js";

/** A message that holds a tensor on its way to another thread of this process. It must be received exactly once. */
export interface SharedTensor {
  sharedTensor: number;
}

/** Makes a message for `postMessage`; the receiver's tensor has the same memory. */
export function share(t: Tensor): SharedTensor {
  return { sharedTensor: native.share(t.handle) };
}
/** Takes the tensor out of a message made by {@link share}. */
export function receive(message: SharedTensor): Tensor {
  return wrap(native.receive(message.sharedTensor));
}
