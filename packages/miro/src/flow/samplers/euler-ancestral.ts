import { z } from "zod";
import { field } from "../../options.js";
import type { Method } from "../sampling.js";

const options = z.strictObject({
  /**
   * Share of fresh noise in each step: 0 draws none and is Euler's method, 1 draws as much as ancestral sampling can.
   * Default: 1.
   */
  eta: field(z.number().min(0).max(1).default(1), {
    expected: "a number from 0 to 1",
    help: "share of fresh noise in each step: 0 draws none and is Euler's method, 1 draws as much as ancestral sampling can",
  }),
});

/**
 * Euler's method with ancestral noise, a sampler of the SDE: each step goes further than γ', towards the data, and
 * noise takes it back to the level γ'. With σ = 1 − γ:
 *
 *   σ↓ = σ'·(1 + η·(σ'/σ − 1)),   x↓ = (σ↓/σ)·x + (1 − σ↓/σ)·x₀          Euler's step to σ↓ ≤ σ'
 *   x ← (α'/α↓)·x↓ + √(σ'² − (α'/α↓·σ↓)²)·n,   α = 1 − σ
 *
 * If x↓ has the distribution of level σ↓, the new x has that of level σ': signal α'·x₀, noise of variance σ'².
 *
 * Song et al., "Denoising Diffusion Implicit Models" (arXiv 2010.02502), section 4.1, give the family between ODE and
 * ancestral sampling; the downstep σ↓ for flows is the field's (`euler_ancestral` of rectified-flow models).
 */
export const eulerAncestral: Method<object, z.output<typeof options>> = {
  order: 1,
  title: "Euler a",
  options,
  evaluations: (steps) => steps,
  step({ x, gamma, gammaNext, denoised, noise, options: { eta } }) {
    const [sigma, sigmaNext] = [1 - gamma, 1 - gammaNext];
    const sigmaDown = sigmaNext * (1 + eta * (sigmaNext / sigma - 1));
    const ratio = sigmaDown / sigma;
    const down = x.mul(ratio).add(denoised.mul(1 - ratio));
    const scale = gammaNext / (1 - sigmaDown);
    const variance = sigmaNext ** 2 - (scale * sigmaDown) ** 2;
    return variance > 0 && eta > 0 ? down.mul(scale).add(noise().mul(Math.sqrt(variance))) : down;
  },
};
