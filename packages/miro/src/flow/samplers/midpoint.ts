import type { Method } from "../sampling.js";

/**
 * The midpoint method:
 *
 *   x ← x − h·v(x − ½·h·v(x, γ), γ + ½·h)
 *
 * "DPM-Solver-2" is its counterpart for another parametrisation (Lu et al., arXiv 2206.00927). Lipman et al., "Flow
 * Matching for Generative Modeling" (arXiv 2210.02747), sample with it.
 */
export const midpoint: Method = {
  order: 2,
  evaluations: (steps) => 2 * steps,
  step({ x, velocity, h, evaluate }) {
    const middle = evaluate(x.sub(velocity.mul(Math.fround(h / 2))), 0.5);
    return x.sub(middle.mul(h));
  },
};
