/** Clipping gradients by their global norm, as `torch.nn.utils.clip_grad_norm_`. */
import { noGrad } from "../autograd.js";
import { full, stack } from "../creation.js";
import { aten } from "../ops.generated.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";

/**
 * Scales all gradients by min(1, maxNorm / (‖all gradients‖₂ + 1e-6)), in place and without waiting for the device.
 * Where the norm is NaN they stay as they are (PyTorch makes all of them NaN), so that it can still be seen which ones
 * were to blame.
 * @returns the norm before clipping, a scalar that the caller owns (0 when nothing has a gradient).
 */
export function clipGradNorm_(params: Iterable<Tensor>, maxNorm: number): Tensor {
  return noGrad(() =>
    scope(() => {
      const lists = new Map<string, Tensor[]>();
      for (const param of params) {
        const grad = param.requiresGrad ? param.grad : null;
        if (grad === null) continue;
        const kind = `${grad.device} ${grad.dtype}`;
        const list = lists.get(kind);
        if (list === undefined) lists.set(kind, [grad]);
        else list.push(grad);
      }
      if (lists.size === 0) return full([], 0);
      const all = [...lists.values()];
      const device = all[0]![0]!.device;
      const norms = all.flatMap((list) => aten._foreach_norm_Scalar(list, 2));
      const total = aten.linalg_vector_norm(stack(norms.map((norm) => norm.to({ device }))), 2);
      const coefficient = total.add(1e-6).reciprocal().mul(maxNorm).clamp(null, 1).nanToNum(1);
      for (const list of all) aten._foreach_mul__Tensor(list, coefficient.to({ device: list[0]!.device }));
      return total;
    }),
  );
}
