/** AdamW (Loshchilov and Hutter, 2019) as `torch.optim.AdamW`, one fused kernel call for each device and dtype. */
import { aten } from "../ops.generated.js";
import type { Tensor } from "../tensor.js";
import { type AdamOptions, byKind, type Entry, type GroupInput, Optimizer, type ParamGroup } from "./optimizer.js";

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
  constructor(
    params: Iterable<Tensor | GroupInput<AdamWOptions>>,
    { lr = 1e-3, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 1e-2 }: Partial<AdamWOptions> = {},
  ) {
    super(params, { lr, betas, eps, weightDecay });
  }

  protected override update(
    { lr, betas: [beta1, beta2], eps, weightDecay }: ParamGroup<AdamWOptions>,
    entries: Entry[],
  ): void {
    for (const list of byKind(entries)) {
      const steps = list.map((entry) => entry.step);
      aten._foreach_add__Scalar(steps, 1);
      aten._fused_adamw_(
        list.map((entry) => entry.param),
        list.map((entry) => entry.grad),
        list.map((entry) => entry.expAvg),
        list.map((entry) => entry.expAvgSq),
        [],
        steps,
        lr,
        beta1,
        beta2,
        weightDecay,
        eps,
        false,
        false,
      );
    }
  }
}
