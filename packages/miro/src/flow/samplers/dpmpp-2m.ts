import type { Tensor } from "@miro-t2i/torch";
import type { Method } from "../sampling.js";

/**
 * DPM-Solver++(2M): two steps, in the logarithm of the signal-to-noise ratio, on the model's estimate of the data. With
 * α = γ, σ = 1 − γ, λ = log(α/σ), h = λ' − λ, h₋ the length of the step before, and D, D₋ the two estimates:
 *
 *   D̃ = D + h/(2·h₋)·(D − D₋),   x ← (σ'/σ)·x − α'·(e⁻ʰ − 1)·D̃
 *
 * The first step, the one after a jump of the velocity, and the one that ends at σ' = 0 (where h is infinite) use D
 * alone, which makes them Euler's.
 *
 * Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models" (arXiv 2211.01095),
 * algorithm 2.
 */
export const dpmpp2m: Method<{ denoised: Tensor; h: number }> = {
  order: 2,
  title: "DPM++ 2M",
  evaluations: (steps) => steps,
  step({ x, gamma, gammaNext, denoised, remembered: before }) {
    const h = Math.log(gammaNext / (1 - gammaNext)) - Math.log(gamma / (1 - gamma));
    const ratio = (1 - gammaNext) / (1 - gamma); // σ'/σ
    const weight = gammaNext - gamma * ratio; // −α'·(e⁻ʰ − 1), finite at both ends
    const r = before === null || gammaNext === 1 ? 0 : h / (2 * before.h);
    const estimate = r === 0 ? denoised : denoised.mul(1 + r).sub(before!.denoised.mul(r));
    return { x: x.mul(ratio).add(estimate.mul(weight)), remember: { denoised, h } };
  },
};
