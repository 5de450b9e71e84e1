/**
 * Preconditioning of the network (Karras et al. 2022, adapted to flows), without a skip connection:
 *
 *   D(y; γ) = c_out · F(c_in(γ) · y; γ),    c_in = 1 / √((γσ)² + (1 − γ)²),    c_out = √(1 + σ²)
 *
 * D is the velocity noise − data: for y = γ·x₀ + (1 − γ)·n the target is n − x₀ = −dy/dγ.
 */
import { nn, type Tensor, zeros } from "@miro-t2i/torch";
import { invalid } from "../errors.js";
import { checkContent } from "../expectations.js";
import { type FlowPrecondConfig, type FlowPrecondConfigInput, precondConfigSchema } from "./config.js";
import { FourierEmbedding } from "./embedders.js";
import type { RinOutput } from "./rin.js";
import type { RinInput } from "./rin-input.js";

export type { FlowPrecondConfig } from "./config.js";

const LOG_VARIANCE = "logvar_proj";

/** Whether a release's tensor is of the log-variance, which a preconditioning without reweighting does not have. */
export function isLogVariance(name: string): boolean {
  return name.startsWith(`preconditioning.${LOG_VARIANCE}.`);
}

/** Anything that predicts like {@link Rin}. */
export interface Network {
  forward(input: RinInput): RinOutput;
}

/**
 * The preconditioning around a network: scales its input and output by the signal level, so that it predicts the
 * velocity.
 */
export class FlowPrecond extends nn.Module {
  readonly config: FlowPrecondConfig;
  /** Only with reweighting, as in the published checkpoints. */
  readonly #logvarLayers: LogVariance | null;
  readonly #normalises: boolean;

  /** @throws InvalidInputError naming the first argument that is unknown or impossible */
  constructor(config: FlowPrecondConfigInput = {}) {
    super();
    this.config = checkContent(precondConfigSchema, config, "preconditioning");
    this.#normalises = this.config.doNormalization === true || this.config.doNormalization === "noise_driven";
    const { doGradnormReweighting, logvarChannels, logvarMlpLayers } = this.config;
    this.#logvarLayers = doGradnormReweighting
      ? this.register(LOG_VARIANCE, new LogVariance(logvarChannels, logvarMlpLayers))
      : null;
  }

  /** Scale of the input: (B,) → (B, 1, 1, 1). */
  cIn(gamma: Tensor): Tensor {
    const g = gamma.float().reshape(-1, 1, 1, 1);
    if (!this.#normalises) return g.mul(0).add(1);
    const signal = g.mul(this.config.sigmaData).square();
    return signal.add(g.neg().add(1).square()).rsqrt();
  }

  /** Scale of the output, the same at every γ. */
  get cOut(): number {
    return this.#normalises ? Math.sqrt(1 + this.config.sigmaData ** 2) : 1;
  }

  /**
   * The velocity D (shape and dtype of `y`) and the network's latents z.
   * @param input `y` is the noisy latent before scaling; previous latents that are null or absent count as zeros. The
   *   input is not changed
   */
  apply(network: Network, input: RinInput): { D: Tensor; z: Tensor } {
    const y = this.cIn(input.gamma).mul(input.y);
    const { F, z } = network.forward({ ...input, y, previousLatents: input.previousLatents ?? this.#noLatents(y) });
    return { D: F.mul(this.cOut), z };
  }

  /**
   * What the network is told before there are latents. Zeros are not neutral: its norm's bias makes them a learned
   * constant, the same for all tokens. One row of them is enough, but rounds differently than all do; training keeps to
   * the published code.
   */
  #noLatents({ shape, device }: Tensor): Tensor {
    const { numLatents, latentsDim } = this.config;
    const rows = this.training ? [shape[0]!, numLatents] : [1, 1];
    return zeros([1, 1, 1], { device }).expand(...rows, latentsDim);
  }

  /**
   * Learned logarithm u(γ) of the loss's variance: (B,) → (B, 1, 1, 1). Only the training loss reads it.
   * @throws InvalidInputError without `doGradnormReweighting`
   */
  logvar(gamma: Tensor): Tensor {
    if (this.#logvarLayers === null)
      throw invalid("doGradnormReweighting", "true for a loss with log-variance reweighting", false);
    return this.#logvarLayers.forward(gamma).reshape(-1, 1, 1, 1);
  }
}

/**
 * Fourier features, `layers` times (linear, SiLU), and a linear layer to one value: (B,) → (B, 1). PyTorch's own
 * initialisation.
 */
class LogVariance extends nn.Module {
  readonly #fourier: FourierEmbedding;
  readonly #hidden: nn.Linear[];
  readonly #output: nn.Linear;

  constructor(channels: number, layers: number) {
    super();
    this.#fourier = this.register("0", new FourierEmbedding(channels));
    this.#hidden = Array.from({ length: layers }, (_, i) =>
      this.register(String(1 + 2 * i), new nn.Linear(channels, channels)),
    );
    this.#output = this.register(String(1 + 2 * layers), new nn.Linear(channels, 1));
  }

  forward(gamma: Tensor): Tensor {
    let h = this.#fourier.forward(gamma).to(this.#output.weight.dtype);
    for (const linear of this.#hidden) h = nn.functional.silu(linear.forward(h));
    return this.#output.forward(h);
  }
}
