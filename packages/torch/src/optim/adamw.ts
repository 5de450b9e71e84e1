/** AdamW (Loshchilov and Hutter, 2019) as `torch.optim.AdamW`, one fused kernel call for each device and dtype. */
import { options as known } from "../named-options.js";
import type { Tensor } from "../tensor.js";
import { ADAM_OPTIONS, type AdamOptions, type GroupInput, Optimizer, type Some, type Update } from "./optimizer.js";

/** Options of {@link AdamW}. */
export type AdamWOptions = AdamOptions;

/**
 * AdamW (Loshchilov and Hutter, 2019). PyTorch: `torch.optim.AdamW`. Defaults: lr 1e-3, betas [0.9, 0.999], eps 1e-8,
 * weightDecay 0.01, which is decoupled and scaled by lr.
 *
 * @example
 * ```ts
 * const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-4 });
 * for (const [x, y] of batches) {
 *   scope(() => F.mseLoss(model.forward(x), y).backward());
 *   optimizer.step();
 *   optimizer.zeroGrad();
 * }
 * ```
 */
export class AdamW extends Optimizer<AdamWOptions> {
  constructor(params: Iterable<Tensor | GroupInput<AdamWOptions>>, options: Some<AdamWOptions> = {}) {
    const { lr = 1e-3, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 1e-2 } = known("AdamW", options, ADAM_OPTIONS);
    super(params, { lr, betas, eps, weightDecay });
  }

  protected override update(): Update {
    return { algorithm: "adamw", decoupled: true, adapted: false };
  }
}
