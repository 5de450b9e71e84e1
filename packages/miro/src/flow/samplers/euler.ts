import type { Method } from "../sampling.js";

/**
 * Euler's method, the sampler of the published implementation:
 *
 *   x ← x − h·v(x, γ)
 *
 * Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (arXiv 2206.00364), section 3.
 */
export const euler: Method = {
  order: 1,
  evaluations: (steps) => steps,
  step: ({ x, velocity, h }) => x.sub(velocity.mul(h)),
};
