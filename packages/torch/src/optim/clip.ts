/** Clipping gradients by their global norm, as `torch.nn.utils.clip_grad_norm_`. */
import { native } from "../native.js";
import { scope } from "../scope.js";
import { type Tensor, wrap } from "../tensor.js";
import { TensorList } from "./tensor-list.js";

/**
 * Scales all gradients by min(1, maxNorm / (‖all gradients‖₂ + 1e-6)), in place and without waiting for the device.
 * Where the norm is NaN they stay as they are (PyTorch makes all of them NaN), so that it can still be seen which ones
 * were to blame.
 * @param maxNorm Infinity measures the norm and scales nothing
 * @returns the norm before clipping, a scalar that the caller owns (0 when nothing has a gradient).
 */
export function clipGradNorm_(params: Iterable<Tensor> | TensorList | Tensor, maxNorm: number): Tensor {
  const list = TensorList.of(params);
  return scope(() => wrap(native.clipGradients(list.handles(), maxNorm)));
}
