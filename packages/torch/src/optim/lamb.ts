/**
 * LAMB (You et al., 2020) in the variant MIRO is trained with: bias correction, no clamp on the trust ratio, and
 * layer-wise adaptation chosen per group. For each tensor, with gradient g and step k:
 *
 *   m ← β₁m + (1−β₁)g        v ← β₂v + (1−β₂)g²
 *   r = m̂ / (√v̂ + ε)         m̂ = m/(1−β₁ᵏ),  v̂ = v/(1−β₂ᵏ)
 *   r ← r + λp               (coupled decay)
 *   p ← p − η·ρ·r            ρ = ‖p‖/‖r‖ with layer adaptation (1 where a norm is 0), else 1
 *   p ← p·(1 − λ)            (decoupled decay, not scaled by η)
 *
 * Norms and ratios stay on the device: a step never waits for it. The moments and r are made by Adam's fused kernels
 * (native/src/optimizers.cpp), which add −η·m̂/(√v̂ + ε) to a tensor: to p where nothing is adapted, else with η = −1
 * to λp.
 */
import { options as known } from "../named-options.js";
import type { Tensor } from "../tensor.js";
import {
  ADAM_OPTIONS,
  type AdamOptions,
  type GroupInput,
  Optimizer,
  type ParamGroup,
  type Some,
  type Update,
} from "./optimizer.js";

/** Options of {@link Lamb}. */
export interface LambOptions extends AdamOptions {
  /** Decay the parameter after the update instead of adding λp to the direction. */
  decouple: boolean;
  /** Scale the update by the trust ratio. Default (null): where the group has weight decay. */
  layerAdaptation: boolean | null;
}

/**
 * LAMB (You et al., 2020), see the equations above. Defaults: lr 1e-3, betas [0.9, 0.999], eps 1e-8, weightDecay 0,
 * decouple true, layer adaptation where a group has weight decay. Its state has the names and shapes of
 * `torch.optim.AdamW`'s.
 */
export class Lamb extends Optimizer<LambOptions> {
  constructor(params: Iterable<Tensor | GroupInput<LambOptions>>, options: Some<LambOptions> = {}) {
    const {
      lr = 1e-3,
      betas = [0.9, 0.999],
      eps = 1e-8,
      weightDecay = 0,
      decouple = true,
      layerAdaptation = null,
    } = known("Lamb", options, [...ADAM_OPTIONS, "decouple", "layerAdaptation"]);
    super(params, { lr, betas, eps, weightDecay, decouple, layerAdaptation });
  }

  protected override update({ layerAdaptation, weightDecay, decouple }: ParamGroup<LambOptions>): Update {
    return { algorithm: "lamb", decoupled: decouple, adapted: layerAdaptation ?? weightDecay > 0 };
  }
}
