/**
 * From noise to latents: the one way from a network to pictures, for the pipeline and for samples of a network in
 * training.
 */
import type { Tensor } from "@miro-t2i/torch";
import { type Guidance, guidedVelocity, type Predict } from "../flow/guidance.js";
import { samplerMethod } from "../flow/samplers/index.js";
import { type SampleOptions, sample } from "../flow/sampling.js";
import type { Conditioning } from "../networks/conditioning.js";
import type { FlowPrecond } from "../networks/precond.js";
import type { Rin } from "../networks/rin.js";
import type { Branches } from "./conditioning.js";

/** What {@link drawLatents} follows, besides the options of {@link sample}. */
export interface DrawLatentsOptions extends SampleOptions {
  /** One evaluation of the network, see {@link predictBy}. */
  predict: Predict<Conditioning>;
  /** What both branches of guidance are asked for. */
  branches: Branches;
  guidance: Guidance;
  /** Name of a registered sampler. */
  sampler: string;
  /** Signal levels from where sampling begins to data. */
  gammas: ArrayLike<number>;
  /** Steps of the whole way, of which these levels are the last ones: guidance counts them all. Default: these. */
  wholeSteps?: number;
}

/**
 * Latents (B, C, r, r) float32 from `noise` of the same shape, on its device. The caller owns them.
 * @throws the signal's reason when it is aborted
 */
export function drawLatents(noise: Tensor, options: DrawLatentsOptions): Promise<Tensor> {
  const { predict, branches, guidance, sampler, gammas, wholeSteps = gammas.length - 1, ...rest } = options;
  const guided = guidedVelocity<Conditioning>({ predict, guidance, ...branches });
  const first = wholeSteps - (gammas.length - 1);
  const model: typeof guided = (x, gamma, at, state) =>
    guided(x, gamma, { ...at, step: at.step + first, steps: wholeSteps }, state);
  return sample(samplerMethod(sampler), model, noise, gammas, rest);
}

/** Evaluations of a preconditioned network. */
export function predictBy(preconditioning: FlowPrecond, network: () => Rin): Predict<Conditioning> {
  return (y, gamma, conditioning, previousLatents) =>
    preconditioning.apply(network(), { y, gamma, conditioning, previousLatents });
}
