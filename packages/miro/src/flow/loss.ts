/**
 * The flow-matching training loss of MIRO.
 *
 *   t ~ sigmoid(μ + s·N(0,1)),   n ~ N(0, I),   γ = schedule(t)
 *   y = γ·x₀ + (1 − γ)·n
 *   ℓ = (D(y; γ, text, rewards, z_prev) − (n − x₀))²                 velocity target n − x₀ = −dy/dγ
 *   ℓ ← ℓ / exp(u(γ)) + u(γ)                                         with log-variance reweighting
 *
 * t = 1 is pure noise and t = 0 is data. z_prev, the latents that the network receives as self-conditioning, come from
 * a first pass over the same y without gradient, each sample's zeroed with probability 1 − selfCondRate.
 *
 * Sources: MIRO (arXiv 2510.25897), the order and shapes of the random draws as in the published implementation.
 */
import { type Generator, inferenceMode, noGrad, type Tensor } from "@miro-t2i/torch";
import { checkObject } from "../arguments.js";
import { invalid } from "../errors.js";
import { message } from "../message.js";
import type { ConditioningInput } from "../networks/conditioning.js";
import type { FlowPrecond } from "../networks/precond.js";
import type { Rin } from "../networks/rin.js";
import { type DropRates, dropConditions } from "./condition-dropout.js";
import { type Draw, drawFrom, type PlannedDraw } from "./draws.js";
import type { LinearSchedule } from "./schedule.js";

export { type Draw, type DrawPurpose, drawFrom } from "./draws.js";

/** One training batch of B samples. The loss reads it and never changes it. */
export interface LossBatch extends ConditioningInput {
  /** Normalised latents x₀, (B, C, r, r) float32. */
  x0: Tensor;
}

type SomeDropRates = { [K in keyof DropRates]?: DropRates[K] | undefined };

/** Options of {@link FlowMatchingLoss}. */
export interface FlowMatchingLossOptions extends SomeDropRates {
  /** Signal level γ of a time t. */
  schedule: LinearSchedule;
  /** Text states of the empty prompt, (U, labelDim), U ≤ T: what a dropped text is replaced by. */
  uncondEmbedding: Tensor;
  /** Probability that a sample keeps the latents of the first pass; 0 leaves the first pass out. */
  selfCondRate?: number | undefined;
  /**
   * Distribution of t = sigmoid(mean + std·N(0,1)); t = 1 is noise, so a positive mean trains more on noisy inputs.
   * `null` draws t uniformly from [0, 1).
   */
  logitNormal?: { mean: number; std: number } | null | undefined;
  /** Divide by the learned variance of each noise level and add its logarithm. */
  doGradnormReweighting?: boolean | undefined;
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

/** Options of one call of the loss. */
export interface LossCallOptions {
  /** Source of the random draws; default: the process-wide one. */
  generator?: Generator | undefined;
  /** Replaces the generator. */
  draw?: Draw | undefined;
  /**
   * Wraps every call of the network. Each is wrapped on its own, because autocast keeps the weights it has cast: casts
   * made in the pass without gradient would cut the gradient of the second.
   */
  precision?: Precision | undefined;
}

/** The loss of one batch. The caller owns what is returned; call it inside a `scope()`. */
function flowMatchingLoss(
  precond: FlowPrecond,
  network: Rin,
  batch: LossBatch,
  options: Required<FlowMatchingLossOptions>,
  { draw: source, precision }: { draw: Draw; precision: Precision },
): LossTerms {
  const { x0 } = batch;
  const B = x0.size(0);
  const draw: Draw = (...what) => source(...what).to({ device: x0.device, dtype: x0.dtype });

  const conditions = dropConditions(batch, options.uncondEmbedding, options, draw);
  const t = drawTimes(B, options.logitNormal, draw);
  const n = draw("noise", "normal", x0.shape);
  const gamma = options.schedule.gamma(t); // (B,)
  const gamma_B111 = gamma.view(B, 1, 1, 1);
  const y = gamma_B111.mul(x0).add(gamma_B111.neg().add(1).mul(n)); // γ·x₀ + (1 − γ)·n

  // Text, rewards and the conditioning transformer depend on neither γ nor z_prev: once for both passes.
  const conditioning = precision(() => network.condition(conditions));
  const pass = (previousLatents: Tensor | null) =>
    precision(() => precond.apply(network, { y, gamma, conditioning, previousLatents }));

  const selfConditioned = options.selfCondRate > 0 && network.config.useSelfConditioning;
  // The first pass is over when its latents are known: nothing of it needs to be able to take part in a graph.
  const zPrev = selfConditioned
    ? noGrad(() => keepSome(inferenceMode(() => pass(null)).z, options.selfCondRate, draw))
    : null;
  const { D } = pass(zPrev);
  const squared = D.float().sub(n.sub(x0)).square(); // (B, C, r, r)
  const rawLoss = squared.detach().mean();
  if (!options.doGradnormReweighting) return { loss: squared.mean(), rawLoss };

  const u = precond.logvar(gamma); // (B, 1, 1, 1)
  const loss = squared.div(u.exp()).add(u).mean();
  return { loss, rawLoss, reweightedLoss: loss.detach(), logvar: u.detach().mean() };
}

/** (B,) times from 0, data, to 1, noise. */
function drawTimes(B: number, logitNormal: { mean: number; std: number } | null, draw: Draw): Tensor {
  if (logitNormal === null) return draw("time", "uniform", [B]);
  const { mean, std } = logitNormal;
  const normal = draw("time", "normal", [B]);
  return (mean === 0 && std === 1 ? normal : normal.mul(std).add(mean)).sigmoid();
}

/** Latents (B, N, L) of which each sample keeps its own with probability `rate`, and has zeros otherwise. */
function keepSome(z: Tensor, rate: number, draw: Draw): Tensor {
  return z.mul(
    draw("keepLatents", "uniform", [z.size(0), 1, 1])
      .gt(1 - rate)
      .to(z.dtype),
  );
}

/** `flowMatchingLoss` with its options checked once and their defaults filled in. */
export class FlowMatchingLoss {
  readonly options: Required<FlowMatchingLossOptions>;

  /** @throws InvalidInputError for a rate that is no probability, or an empty prompt of another shape */
  constructor(options: FlowMatchingLossOptions) {
    const needed = ["schedule", "uncondEmbedding"] as const;
    checkObject("options", options, `an object of options with ${needed.join(" and ")}`, needed);
    const { uncondEmbedding } = options;
    if (uncondEmbedding.ndim !== 2)
      throw invalid(
        "uncondEmbedding",
        "a (tokens, width) tensor",
        message`shape (${uncondEmbedding.shape.join(", ")})`,
      );
    const condDropRate = probability("condDropRate", options.condDropRate ?? 0);
    const textDropRate = probability("textDropRate", options.textDropRate ?? 0);
    // A sample loses its text for one reason or the other.
    if (condDropRate + textDropRate > 1)
      throw invalid("textDropRate", `at most 1 together with condDropRate ${condDropRate}`, textDropRate);
    this.options = {
      schedule: options.schedule,
      uncondEmbedding,
      selfCondRate: probability("selfCondRate", options.selfCondRate ?? 0.9),
      condDropRate,
      textDropRate,
      rewardDropRate: probability("rewardDropRate", options.rewardDropRate ?? 0),
      logitNormal: options.logitNormal === undefined ? { mean: 0, std: 1 } : options.logitNormal,
      doGradnormReweighting: options.doGradnormReweighting ?? false,
    };
  }

  /**
   * The draws that a call for this batch makes, in their order: who makes them beforehand can send them to a device
   * together with the batch.
   */
  draws(network: Rin, { x0, rewards }: LossBatch): PlannedDraw[] {
    const { condDropRate, textDropRate, rewardDropRate, logitNormal, selfCondRate } = this.options;
    const B = x0.size(0);
    const keys = Object.keys(rewards).length;
    const planned: (PlannedDraw | false)[] = [
      condDropRate + textDropRate > 0 && ["textDrop", "uniform", [B]],
      rewardDropRate > 0 && keys > 0 && ["rewardDrop", "uniform", [B, keys]],
      ["time", logitNormal === null ? "uniform" : "normal", [B]],
      ["noise", "normal", x0.shape],
      selfCondRate > 0 && network.config.useSelfConditioning && ["keepLatents", "uniform", [B, 1, 1]],
    ];
    return planned.filter((draw) => draw !== false);
  }

  /** The caller owns what is returned; call it inside a `scope()`. */
  call(precond: FlowPrecond, network: Rin, batch: LossBatch, options: LossCallOptions = {}): LossTerms {
    const { draw = drawFrom(options.generator), precision = (run) => run() } = options;
    return flowMatchingLoss(precond, network, batch, this.options, { draw, precision });
  }
}

function probability(name: string, value: number): number {
  if (!(value >= 0 && value <= 1)) throw invalid(name, "a probability from 0 to 1", value);
  return value;
}
