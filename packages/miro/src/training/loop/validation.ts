/**
 * The loss on samples that are not trained with, of the network and of its average.
 *
 * As upstream measures it: the training loss without any dropping, every reward at 1, the same noise, times and latents
 * at each validation. Different from it: latents are drawn from fixed seeds, too, and the two networks see the very
 * same inputs, so that the two losses, and those of different steps, can be compared.
 */
import { Generator, noGrad, ones, scope, type Tensor, zeros } from "@miro-t2i/torch";
import { drawFrom, type FlowMatchingLoss } from "../../flow/loss.js";
import { toDevice } from "../../flow/to-device.js";
import type { FlowPrecond } from "../../networks/precond.js";
import type { Rin } from "../../networks/rin.js";
import { streamSeed } from "../../random/streams.js";
import type { BatchSource } from "../batches/batches.js";
import { DataParallelGroup } from "../process-group/process-group.js";
import type { Recipe } from "../recipes/recipe.js";
import { inPrecision } from "./gradients.js";
import { createLoss } from "./model.js";

/** What {@link Validation} needs. */
export interface ValidationOptions {
  recipe: Recipe;
  /** Batches of the validation data, the same ones whenever they are asked for. */
  source: BatchSource;
  /** How many of its batches are looked at. */
  batches: number;
  batchSize: number;
  /** The processes that divide the batches among them; by default this one alone. */
  group?: DataParallelGroup;
}

export class Validation {
  readonly #loss: FlowMatchingLoss;
  readonly #none: Tensor;
  readonly #options: ValidationOptions;

  constructor(options: ValidationOptions) {
    this.#options = options;
    const { recipe } = options;
    this.#none = zeros([1, recipe.network.label_dim as number]).keep();
    const loss = { ...recipe.loss, condDropRate: 0, textDropRate: 0, rewardDropRate: 0 };
    this.#loss = createLoss({ ...recipe, loss }, this.#none);
  }

  /**
   * Figures by upstream's names: `val/loss`, `val/raw_loss`, `val/loss_gradnorm_reweighted`, `val/logvar`, and the same
   * with `_ema` for the average.
   * @returns null when any process has been asked to stop meanwhile, the same on all of them
   */
  async measure(
    { network, average, preconditioning }: { network: Rin; average: Rin; preconditioning: FlowPrecond },
    signal?: AbortSignal,
  ): Promise<Record<string, number> | null> {
    const { source, batches, group = DataParallelGroup.alone() } = this.#options;
    const names = [
      "loss",
      "raw_loss",
      ...(this.#loss.options.doGradnormReweighting ? ["loss_gradnorm_reweighted", "logvar"] : []),
    ];
    const sums = Object.fromEntries(["", "_ema"].flatMap((suffix) => names.map((name) => [`val/${name}${suffix}`, 0])));
    network.eval();
    preconditioning.eval();
    try {
      for (let start = 0; start < batches; start += group.worldSize) {
        // What several processes do together, none of them may leave alone.
        const [stops] = await group.sum([Number(signal?.aborted === true)]);
        if (stops! > 0) return null;
        const i = start + group.rank;
        if (i >= batches) continue;
        await source.ready(i, group.isAlone ? signal : undefined);
        for (const [name, value] of Object.entries(this.#terms({ "": network, _ema: average }, preconditioning, i)))
          sums[name]! += value / batches;
      }
    } finally {
      network.train();
      preconditioning.train();
    }
    const totals = await group.sum(Object.values(sums));
    return Object.fromEntries(Object.keys(sums).map((name, i) => [name, totals[i]!]));
  }

  /** The losses of the networks, by the suffix of their names, on one batch. */
  #terms(networks: Record<string, Rin>, preconditioning: FlowPrecond, i: number): Record<string, number> {
    const { source, recipe, batchSize } = this.#options;
    return noGrad(() =>
      scope(() => {
        const batch = toDevice(source.batch(i), networks[""]!.latents.device);
        const figures: Record<string, number> = {};
        for (const [suffix, network] of Object.entries(networks)) {
          const { device } = network.latents;
          const keys = network.config.coherenceKeys;
          const rewards = Object.fromEntries(keys.map((key) => [key, ones([batchSize], { device })]));
          const draw = drawFrom(new Generator().manualSeed(streamSeed(recipe.seed, "validation", i)));
          const precision = inPrecision(recipe.trainer.precision, device);
          const terms = scope(() =>
            this.#loss.call(preconditioning, network, { ...batch, rewards }, { draw, precision }),
          );
          const add = (name: string, value: Tensor | undefined) => {
            if (value !== undefined) figures[`val/${name}${suffix}`] = value.item();
          };
          add("loss", terms.loss);
          add("raw_loss", terms.rawLoss);
          add("loss_gradnorm_reweighted", terms.reweightedLoss);
          add("logvar", terms.logvar);
        }
        return figures;
      }),
    );
  }

  async close(): Promise<void> {
    this.#none.dispose();
    await this.#options.source.close();
  }
}
