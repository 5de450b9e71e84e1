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
 * Norms and ratios stay on the device: a step never waits for it.
 */
import { where } from "../creation.js";
import { aten } from "../ops.generated.js";
import { scope } from "../scope.js";
import { float, type Tensor } from "../tensor.js";
import { type AdamOptions, byKind, type Entry, type GroupInput, Optimizer, type ParamGroup } from "./optimizer.js";

/** Options of {@link Lamb}. */
export interface LambOptions extends AdamOptions {
  /** Decay the parameter after the update instead of adding λp to the direction. */
  decouple: boolean;
  /** Scale the update by the trust ratio. Default (null): where the group has weight decay. */
  layerAdaptation: boolean | null;
}

/** Temporaries are made for this many values at a time, two of each: enough to fill the kernels, little to hold. */
const BUCKET_VALUES = 2 ** 24;

/**
 * LAMB (You et al., 2020), see the equations above. Defaults: lr 1e-3, betas [0.9, 0.999], eps 1e-8, weightDecay 0,
 * decouple true, layer adaptation where a group has weight decay. Its state has the names and shapes of
 * `torch.optim.AdamW`'s.
 */
export class Lamb extends Optimizer<LambOptions> {
  constructor(
    params: Iterable<Tensor | GroupInput<LambOptions>>,
    {
      lr = 1e-3,
      betas = [0.9, 0.999],
      eps = 1e-8,
      weightDecay = 0,
      decouple = true,
      layerAdaptation = null,
    }: Partial<LambOptions> = {},
  ) {
    super(params, { lr, betas, eps, weightDecay, decouple, layerAdaptation });
  }

  protected override update(group: ParamGroup<LambOptions>, entries: Entry[]): void {
    aten._foreach_add__Scalar(
      entries.map((entry) => entry.step),
      1,
    );
    for (const list of byKind(entries)) {
      for (const bucket of buckets(list)) scope(() => updateBucket(group, bucket));
    }
  }
}

function updateBucket(group: ParamGroup<LambOptions>, bucket: Entry[]): void {
  const { lr, eps, weightDecay, decouple } = group;
  const [beta1, beta2] = group.betas;
  const step = bucket[0]!.stepsTaken + 1;
  const params = bucket.map((entry) => entry.param);
  const grads = bucket.map((entry) => entry.grad);
  const firsts = bucket.map((entry) => entry.expAvg);
  const seconds = bucket.map((entry) => entry.expAvgSq);

  aten._foreach_lerp__Scalar(firsts, grads, float(1 - beta1));
  aten._foreach_mul__Scalar(seconds, float(beta2));
  aten._foreach_addcmul__Scalar(seconds, grads, grads, float(1 - beta2));

  // m̂/(√v̂ + ε) = s·m/(√v + ε·√c₂) with c₁ = 1−β₁ᵏ, c₂ = 1−β₂ᵏ, s = √c₂/c₁: both corrections without a pass of their
  // own.
  const correction2 = Math.sqrt(1 - beta2 ** step);
  const scale = correction2 / (1 - beta1 ** step);
  const denominators = aten._foreach_sqrt(seconds);
  aten._foreach_add__Scalar(denominators, float(eps * correction2));

  const coupled = weightDecay !== 0 && !decouple;
  if (group.layerAdaptation ?? weightDecay > 0) {
    const directions = aten._foreach_mul_Scalar(params, float(coupled ? weightDecay : 0));
    aten._foreach_addcdiv__Scalar(directions, firsts, denominators, float(scale));
    const ratios = trustRatios(params, directions);
    aten._foreach_addcmul__Scalar(params, directions, ratios, float(-lr));
  } else {
    if (coupled) aten._foreach_add__List(params, params, float(-lr * weightDecay));
    aten._foreach_addcdiv__Scalar(params, firsts, denominators, float(-lr * scale));
  }
  if (weightDecay !== 0 && decouple) aten._foreach_mul__Scalar(params, float(1 - weightDecay));
}

/** ‖p‖/‖r‖ for each pair as scalars on the device, 1 where either norm is 0. */
function trustRatios(params: Tensor[], directions: Tensor[]): Tensor[] {
  const weightNorms = aten.stack(aten._foreach_norm_Scalar(params, 2));
  const directionNorms = aten.stack(aten._foreach_norm_Scalar(directions, 2));
  const defined = weightNorms.ne(0).logicalAnd(directionNorms.ne(0));
  return where(defined, weightNorms.div(directionNorms), 1).unbind(0);
}

/** Cuts a list so that the tensors of each piece (but for a single larger one) hold at most BUCKET_VALUES values. */
function* buckets(entries: Entry[]): Generator<Entry[]> {
  let bucket: Entry[] = [];
  let values = 0;
  for (const entry of entries) {
    const numel = entry.param.numel;
    if (bucket.length > 0 && values + numel > BUCKET_VALUES) {
      yield bucket;
      bucket = [];
      values = 0;
    }
    bucket.push(entry);
    values += numel;
  }
  if (bucket.length > 0) yield bucket;
}
