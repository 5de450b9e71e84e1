import type { Method } from "../sampling.js";

/**
 * Heun's method, the explicit trapezoidal rule:
 *
 *   x̃ = x − h·v(x, γ),   x ← x − h·½·(v(x, γ) + v(x̃, γ'))
 *
 * The last step is Euler's, as in Karras et al. (arXiv 2206.00364), algorithm 1: its far end is γ = 1, where the model
 * has hardly been trained. One step of a lower order at the end leaves the order of the whole at 2.
 */
export const heun: Method = {
  order: 2,
  evaluations: (steps) => 2 * steps - 1,
  step({ x, velocity, h, last, evaluate }) {
    const euler = x.sub(velocity.mul(h));
    if (last) return euler;
    const far = evaluate(euler, 1);
    return x.sub(velocity.add(far).mul(Math.fround(h / 2)));
  },
};
