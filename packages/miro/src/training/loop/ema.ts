/**
 * Exponential moving average of a network's weights:   ē ← ē + (1 − d)·(p − ē)   after every successful optimizer step.
 *
 * With `everyNSteps` = k, k updates are made at once towards the newest weights, with the product of their decays.
 *
 * With `warmup` the decay of update k (from 0) is min(d, (1 + k) / (10 + k)), so that a short run does not average in
 * its random initial weights. Only tensors that require gradients are averaged; buffers keep the values they were
 * copied with.
 */
import type { nn } from "@miro-t2i/torch";
import { TensorList } from "@miro-t2i/torch/optim";
import { invalid } from "../../errors.js";
import { pythonFloat } from "../../files/python-number.js";

/** Options of {@link Ema}. */
export interface EmaOptions {
  /** d, in [0, 1). */
  decay?: number | undefined;
  /** Start with a short horizon and lengthen it to `decay`. */
  warmup?: boolean | undefined;
  /** Average at every k-th update only, with the decay of k of them. */
  everyNSteps?: number | undefined;
}

/** The published name of the average number `index`: `ema_network`, then `ema_network_0_999`. */
export function emaName(decay: number, index: number): string {
  return index === 0 ? "ema_network" : `ema_network_${pythonFloat(decay).replaceAll(".", "_")}`;
}

/** Exponential moving averages of a module's parameters (EMA weights). */
export class Ema<M extends nn.Module = nn.Module> {
  readonly decay: number;
  readonly warmup: boolean;
  readonly everyNSteps: number;
  /** Updates made so far. */
  updates = 0;
  readonly #averages: TensorList;
  readonly #sources: TensorList;

  /**
   * @param source the network that is being trained
   * @param module a second network of the same construction; it receives the source's weights and buffers, is frozen
   *   and put in eval mode, and holds the EMA weights from then on
   */
  constructor(
    source: nn.Module,
    readonly module: M,
    options: EmaOptions = {},
  ) {
    this.decay = options.decay ?? 0.9999;
    this.warmup = options.warmup ?? false;
    this.everyNSteps = options.everyNSteps ?? 1;
    if (!(this.decay >= 0 && this.decay < 1)) throw invalid("decay", "a number in [0, 1)", this.decay);
    for (const [name, network] of Object.entries({ source, module }))
      if (typeof network?.namedParameters !== "function") throw invalid(name, "a network (nn.Module)", network);
    const copies = new Map(module.namedParameters());
    module.loadStateDict(source.stateDict());
    const trained = [...source.namedParameters()].filter(([, parameter]) => parameter.requiresGrad);
    this.#sources = new TensorList(trained.map(([, parameter]) => parameter));
    this.#averages = new TensorList(trained.map(([name]) => copies.get(name)!));
    module.requiresGrad_(false).eval();
  }

  /** The decay of an update, from 0; by default of the next one. */
  decayOf(update = this.updates): number {
    return this.warmup ? Math.min(this.decay, (1 + update) / (10 + update)) : this.decay;
  }

  /** Moves the EMA weights towards the weights of the source. Call once after each successful optimizer step. */
  update(): void {
    this.updates++;
    if (this.updates % this.everyNSteps !== 0) return;
    let kept = 1;
    for (let update = this.updates - this.everyNSteps; update < this.updates; update++) kept *= this.decayOf(update);
    this.#averages.lerp_(this.#sources, 1 - kept);
  }
}
