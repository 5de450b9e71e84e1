import type { Tensor } from "@miro-t2i/torch";
import type { Method } from "../sampling.js";

/**
 * The two-step method of Adams and Bashforth for steps of any length. With r = h / (2·h₋), where h₋ is the length of
 * the step before and v₋ its velocity:
 *
 *   x ← x − h·((1 + r)·v − r·v₋)
 *
 * The first step, and the one after a jump of the velocity, is Euler's.
 *
 * Hairer, Nørsett and Wanner, "Solving Ordinary Differential Equations I", section III.5 (variable steps).
 */
export const ab2: Method<{ velocity: Tensor; h: number }> = {
  order: 2,
  evaluations: (steps) => steps,
  step({ x, velocity, h, remembered: before }) {
    const remember = { velocity, h };
    if (before === null) return { x: x.sub(velocity.mul(h)), remember };
    const r = h / (2 * before.h);
    const mean = velocity.mul(1 + r).sub(before.velocity.mul(r));
    return { x: x.sub(mean.mul(h)), remember };
  },
};
