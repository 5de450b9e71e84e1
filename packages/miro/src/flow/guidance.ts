/**
 * Classifier-free guidance over text and rewards.
 *
 *   v̂ = (1 + w)·v(y | text, s⁺) − w·v(y | no text, s⁻)
 *
 * s⁺ are the reward targets, s⁻ the negative ones, and w the guidance scale: 7 here is what other tools call 8, and
 * w ≤ 0 runs the conditional branch alone. Both branches run as one batch of 2B rows, conditional half first.
 *
 * A RIN carries latents from step to step, each branch its own. They are kept explicitly here, so that guidance may
 * begin or end between two steps: entering, the unconditional branch starts from a copy of the conditional latents;
 * leaving, the conditional half goes on.
 *
 * Within a step of several evaluations w is that of the place where the model is evaluated: linear guidance rises along
 * the step, and a step is inside the window or outside it as a whole, so that the velocity never jumps in the middle of
 * one.
 */
import { cat, full, type Tensor } from "@miro-t2i/torch";
import type { VelocityModel } from "./sampling.js";

/** How strongly, and at which steps, the unconditional branch is pushed away from. */
export interface Guidance {
  /** w; 0 and below disable guidance. */
  scale: number;
  /**
   * `constant`: w at every step; `linear`: 2·w·i/S at the beginning of step i, rising evenly to 2·w at the end of the
   * last.
   */
  type: "constant" | "linear";
  /** First guided step, counted from 0. */
  start: number;
  /** Last guided step, inclusive; null for the last one of all. */
  end: number | null;
}

/** A guidance scale as other tools count it: 1 is unguided. */
export function cfgScale(w: number): number {
  return Math.max(0, w) + 1;
}

/** Whether a step is guided, wherever in it w may still be 0. */
function isGuided({ scale, start, end }: Guidance, step: number): boolean {
  return scale > 0 && step >= start && (end === null || step <= end);
}

/**
 * w at `fraction` of the way through step `step` (from 0) of `steps`; 0 where the conditional branch runs alone.
 */
export function guidanceWeight(guidance: Guidance, step: number, steps: number, fraction = 0): number {
  if (!isGuided(guidance, step)) return 0;
  return guidance.type === "constant" ? guidance.scale : 2 * guidance.scale * ((step + fraction) / steps);
}

/** Whether the velocity jumps between the end of the step before and the beginning of this one: w does. */
function jumps(guidance: Guidance, step: number, steps: number): boolean {
  if (step === 0 || isGuided(guidance, step) === isGuided(guidance, step - 1)) return false;
  return guidanceWeight(guidance, step, steps) !== guidanceWeight(guidance, step - 1, steps, 1);
}

/** Whether any evaluation, and whether every one, of a run is guided: tells which conditionings are needed. */
export function guidedSteps(guidance: Guidance, steps: number): { any: boolean; all: boolean } {
  let any = false;
  let all = true;
  for (let step = 0; step < steps; step++) {
    if (isGuided(guidance, step)) any = true;
    if (guidanceWeight(guidance, step, steps) === 0) all = false;
  }
  return { any, all };
}

/** (1 + w)·cond − w·uncond. */
export function combine(conditional: Tensor, unconditional: Tensor, weight: number): Tensor {
  return conditional.mul(1 + weight).sub(unconditional.mul(weight));
}

/** The latents of the branches after a step: 2B rows when it was guided, else B. */
export interface BranchState {
  latents: Tensor | null;
  guided: boolean;
}

/**
 * One evaluation of the preconditioned network: `y` (N, C, r, r), `gamma` (N,), latents of the last step (N, …) or null
 * for the first one, → velocity `D` (N, C, r, r) and the new latents `z`.
 */
export type Predict<Conditioning> = (
  y: Tensor,
  gamma: Tensor,
  conditioning: Conditioning,
  previousLatents: Tensor | null,
) => { D: Tensor; z: Tensor | null };

/** What {@link guidedVelocity} is made of. */
export interface GuidedVelocityOptions<Conditioning> {
  predict: Predict<Conditioning>;
  guidance: Guidance;
  /** Conditioning of 2B rows, conditional half first; may be null when no step is guided. */
  both: Conditioning | null;
  /** Conditioning of the B conditional rows; may be null when every step is guided. */
  conditional: Conditioning | null;
}

/** The model that samplers follow: chooses the branches of a step, carries their latents, combines them. */
export function guidedVelocity<Conditioning>({
  predict,
  guidance,
  both,
  conditional,
}: GuidedVelocityOptions<Conditioning>): VelocityModel<BranchState> {
  return (x, gamma, { step, steps, fraction }, state) => {
    const weight = guidanceWeight(guidance, step, steps, fraction);
    const restart = fraction === 0 && jumps(guidance, step, steps);
    const rows = x.shape[0]!;
    const last = state?.latents ?? null;
    if (weight > 0) {
      const previous = last === null || state!.guided ? last : cat([last, last]);
      const levels = full([2 * rows], gamma, { dtype: "float32", device: x.device });
      const { D, z } = predict(cat([x, x]), levels, both!, previous);
      const [wanted, unwanted] = D.float().chunk(2, 0);
      return { velocity: combine(wanted!, unwanted!, weight), state: { latents: z, guided: true }, restart };
    }
    const previous = last !== null && state!.guided ? last.narrow(0, 0, rows) : last;
    const levels = full([rows], gamma, { dtype: "float32", device: x.device });
    const { D, z } = predict(x, levels, conditional!, previous);
    return { velocity: D.float(), state: { latents: z, guided: false }, restart };
  };
}
