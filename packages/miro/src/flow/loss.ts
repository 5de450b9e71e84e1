/**
 * The flow-matching training loss of MIRO.
 *
 *   t ~ sigmoid(μ + s·N(0,1)),   n ~ N(0, I),   γ = schedule(t)
 *   y = γ·x₀ + (1 − γ)·n
 *   ℓ = (D(y; γ, text, rewards, z_prev) − (n − x₀))²                 velocity target n − x₀ = −dy/dγ
 *   ℓ ← ℓ / exp(u(γ)) + u(γ)                                         with log-variance reweighting
 *
 * t = 1 is pure noise and t = 0 is data. z_prev, the latents that the network receives as self-conditioning, come from a first
 * pass over the same y without gradient, each sample's zeroed with probability 1 − selfCondRate.
 *
 * Sources: MIRO (arXiv 2510.25897), the order and shapes of the random draws as in the published implementation.
 */
import { cat, type Generator, noGrad, rand, randn, type Tensor, where, zeros } from "@miro-t2i/torch";
import { invalid } from "../errors.js";
import type { FlowPrecond } from "../networks/precond.js";
import type { Conditioning, Rin } from "../networks/rin.js";
import type { LinearSchedule } from "./schedule.js";

/** One training batch of B samples. The loss reads it and never changes it. */
export interface LossBatch {
  /** Normalised latents x₀, (B, C, r, r) float32. */
  x0: Tensor;
  /** Text states, (B, T, labelDim). */
  textEmbeddings: Tensor;
  /** True at real tokens, (B, T) bool. */
  textMask: Tensor;
  /** Reward targets by un-suffixed key, (B,) float32; NaN means that this sample has no such score. */
  rewards: Record<string, Tensor>;
}

/** What a random draw decides; in the order in which the loss makes them. */
export type DrawPurpose = "textDrop" | "rewardDrop" | "time" | "noise" | "keepLatents";

/** A source of random numbers: standard normal or uniform on [0, 1), float32. Replaceable, so that recorded draws can be replayed. */
export type Draw = (purpose: DrawPurpose, kind: "uniform" | "normal", shape: number[]) => Tensor;

/** Draws from a generator (the process-wide one when none is given), on that generator's device. */
export function drawFrom(generator?: Generator): Draw {
  return (_purpose, kind, shape) => (kind === "normal" ? randn(shape, { generator }) : rand(shape, { generator }));
}

export interface FlowMatchingLossOptions {
  schedule: LinearSchedule;
  /** Text states of the empty prompt, (U, labelDim), U ≤ T: what a dropped text is replaced by. */
  uncondEmbedding: Tensor;
  /** Probability that a sample keeps the latents of the first pass; 0 leaves the first pass out. */
  selfCondRate?: number;
  /** Probability that a sample loses its text and all its rewards. */
  condDropRate?: number;
  /** Probability that a sample loses its text and keeps its rewards: what the negative branch of guidance is asked for. */
  textDropRate?: number;
  /** Probability, for each single reward of each sample, that it becomes unknown (NaN). */
  rewardDropRate?: number;
  /**
   * Distribution of t = sigmoid(mean + std·N(0,1)); t = 1 is noise, so a positive mean trains more on noisy inputs.
   * `null` draws t uniformly from [0, 1).
   */
  logitNormal?: { mean: number; std: number } | null;
  /** Divide by the learned variance of each noise level and add its logarithm. */
  doGradnormReweighting?: boolean;
}

/** What one evaluation of the loss gives. All but `loss` are detached. */
export interface LossTerms {
  /** Mean over everything, () float32: call `backward()` on it. */
  loss: Tensor;
  /** Mean of the plain squared error, (). */
  rawLoss: Tensor;
  /** Mean of the reweighted error, () (present with reweighting). */
  reweightedLoss?: Tensor;
  /** Mean of the log-variances, () (present with reweighting). */
  logvar?: Tensor;
}

/** How the network is run: the identity, or a call under autocast. */
export type Precision = <T>(run: () => T) => T;

export interface LossCallOptions {
  generator?: Generator;
  /** Replaces the generator. */
  draw?: Draw;
  /**
   * Wraps every call of the network. Each is wrapped on its own, because autocast keeps the weights it has cast: casts made in the
   * pass without gradient would cut the gradient of the second.
   */
  precision?: Precision;
}

/** See the top of this file. */
export class FlowMatchingLoss {
  readonly schedule: LinearSchedule;
  readonly uncondEmbedding: Tensor;
  readonly selfCondRate: number;
  readonly condDropRate: number;
  readonly textDropRate: number;
  readonly rewardDropRate: number;
  readonly logitNormal: { mean: number; std: number } | null;
  readonly doGradnormReweighting: boolean;

  constructor(options: FlowMatchingLossOptions) {
    this.schedule = options.schedule;
    this.uncondEmbedding = options.uncondEmbedding;
    this.selfCondRate = rate("selfCondRate", options.selfCondRate ?? 0.9);
    this.condDropRate = rate("condDropRate", options.condDropRate ?? 0);
    this.textDropRate = rate("textDropRate", options.textDropRate ?? 0);
    this.rewardDropRate = rate("rewardDropRate", options.rewardDropRate ?? 0);
    this.logitNormal = options.logitNormal === undefined ? { mean: 0, std: 1 } : options.logitNormal;
    this.doGradnormReweighting = options.doGradnormReweighting ?? false;
    if (options.uncondEmbedding.ndim !== 2)
      invalid("uncondEmbedding", "a (tokens, width) tensor", `shape (${options.uncondEmbedding.shape.join(", ")})`);
  }

  /** The caller owns what is returned; call it inside a `scope()`. */
  call(precond: FlowPrecond, network: Rin, batch: LossBatch, options: LossCallOptions = {}): LossTerms {
    const { x0 } = batch;
    const B = x0.size(0);
    const draw = options.draw ?? drawFrom(options.generator);
    const precision: Precision = options.precision ?? ((run) => run());
    const onDevice: Draw = (...what) => draw(...what).to({ device: x0.device, dtype: x0.dtype });

    const { textEmbeddings, textMask, rewards } = this.dropped(batch, onDevice);
    const t = this.times(B, onDevice);
    const n = onDevice("noise", "normal", x0.shape);
    const gamma = this.schedule.gamma(t); // (B,)
    const gamma_B111 = gamma.view(B, 1, 1, 1);
    const y = gamma_B111.mul(x0).add(gamma_B111.neg().add(1).mul(n)); // γ·x₀ + (1 − γ)·n

    // Text, rewards and the conditioning transformer depend on neither γ nor z_prev: once for both passes.
    const conditioning = precision(() => network.condition({ textEmbeddings, textMask, rewards }));
    const inputs = { y, gamma, textEmbeddings, textMask, rewards, conditioning };

    const previousLatents = this.selfConditioning(precond, network, inputs, onDevice, precision);
    const { D } = precision(() => precond.apply(network, { ...inputs, previousLatents }));

    const target = n.sub(x0);
    const squared = D.float().sub(target).square(); // (B, C, r, r)
    const rawLoss = squared.detach().mean();
    if (!this.doGradnormReweighting) return { loss: squared.mean(), rawLoss };

    const u = precond.logvar(gamma); // (B, 1, 1, 1)
    const loss = squared.div(u.exp()).add(u).mean();
    return { loss, rawLoss, reweightedLoss: loss.detach(), logvar: u.detach().mean() };
  }

  private times(B: number, draw: Draw): Tensor {
    if (this.logitNormal === null) return draw("time", "uniform", [B]);
    const { mean, std } = this.logitNormal;
    const normal = draw("time", "normal", [B]);
    return (mean === 0 && std === 1 ? normal : normal.mul(std).add(mean)).sigmoid();
  }

  /** z_prev from a first pass with the same y, kept with probability selfCondRate, or null where the network ignores it. */
  private selfConditioning(
    precond: FlowPrecond,
    network: Rin,
    inputs: { y: Tensor; gamma: Tensor; conditioning: Conditioning } & Omit<LossBatch, "x0">,
    draw: Draw,
    precision: Precision,
  ): Tensor | null {
    if (this.selfCondRate === 0 || !network.config.useSelfConditioning) return null;
    return noGrad(() => {
      const { z } = precision(() => precond.apply(network, { ...inputs, previousLatents: null }));
      const keep = draw("keepLatents", "uniform", [z.size(0), 1, 1]).gt(1 - this.selfCondRate);
      return z.mul(keep.to(z.dtype));
    });
  }

  /** The batch's conditioning after dropping; new tensors, the batch stays as it was. */
  private dropped(batch: LossBatch, draw: Draw): Omit<LossBatch, "x0"> {
    let { textEmbeddings, textMask, rewards } = batch;
    const [B, T] = [textEmbeddings.size(0), textEmbeddings.size(1)];
    const keys = Object.keys(rewards);
    const unknown = (value: Tensor, drop: Tensor): Tensor => value.maskedFill(drop, Number.NaN);

    if (this.condDropRate + this.textDropRate > 0) {
      const u = draw("textDrop", "uniform", [B]);
      const dropText = u.lt(this.condDropRate + this.textDropRate);
      const dropAll = u.lt(this.condDropRate);
      const empty = this.emptyPrompt(T, textEmbeddings);
      textEmbeddings = where(dropText.view(B, 1, 1), empty.embeddings, textEmbeddings);
      textMask = where(dropText.view(B, 1), empty.mask, textMask);
      rewards = Object.fromEntries(keys.map((key) => [key, unknown(rewards[key]!, dropAll)]));
    }
    if (this.rewardDropRate > 0 && keys.length > 0) {
      const drop = draw("rewardDrop", "uniform", [B, keys.length]).lt(this.rewardDropRate);
      rewards = Object.fromEntries(keys.map((key, i) => [key, unknown(rewards[key]!, drop.select(1, i))]));
    }
    return { textEmbeddings, textMask, rewards };
  }

  /**
   * The empty prompt padded to T tokens: embeddings (1, T, labelDim), mask (1, T). A single token is repeated over all positions,
   * as upstream does (only the first is unmasked, so the others have no effect).
   */
  private emptyPrompt(T: number, like: Tensor): { embeddings: Tensor; mask: Tensor } {
    const uncond = this.uncondEmbedding.to({ device: like.device, dtype: like.dtype });
    const [U, width] = [uncond.size(0), uncond.size(1)];
    if (U > T) invalid("uncondEmbedding", `at most ${T} tokens, as many as the batch's text has`, U);
    const padded = U === 1 ? uncond.expand(T, width) : U === T ? uncond : cat([uncond, zeros([T - U, width], like)], 0);
    const real = zeros([T], { dtype: "bool", device: like.device });
    real.narrow(0, 0, U).fill_(true);
    return { embeddings: padded.unsqueeze(0), mask: real.unsqueeze(0) };
  }
}

function rate(name: string, value: number): number {
  if (!(value >= 0 && value <= 1)) invalid(name, "a probability from 0 to 1", value);
  return value;
}
