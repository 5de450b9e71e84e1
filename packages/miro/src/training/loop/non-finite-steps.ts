/**
 * Steps whose loss or gradients are not finite: what is said of them, and when they end the run. The first tensor that
 * is not finite is named; it is looked for with the step's own batch and draws, once a step has gone wrong.
 */
import { aten, noGrad, scope, type Tensor } from "@miro-t2i/torch";
import type { TensorList } from "@miro-t2i/torch/optim";
import { MiroError } from "../../errors.js";
import type { LossBatch } from "../../flow/loss.js";
import { partsOf, type Rows, rowsOf } from "../batches/batch-slices.js";
import { groupGradientNorms } from "../logging/meter.js";
import { findNonFinite, nonFiniteGradients } from "../logging/non-finite.js";
import { accumulateGradients, type Draws, lossOf } from "./gradients.js";
import type { TrainerHooks, TrainerOptions, TrainerParts } from "./trainer-parts.js";

/** What a step came to, and what became of it. */
export interface StepFindings {
  loss: number;
  gradNorm: number;
  lossScale: number;
  /** Gradients were too large for float16. */
  overflow: boolean;
  /** The weights were changed, with zeros in place of gradients that are not finite. */
  made: boolean;
}

/** What {@link NonFiniteSteps} asks the trainer for. */
export interface StepAccess {
  /** The rows of each batch that this process computes. */
  rows: Rows;
  /** These rows of the batch of step k, on the device, and what the loss draws for them. */
  inputs(k: number): { batch: LossBatch; draws: Draws };
  /** Whether the parameters still have the gradients of step k. */
  hasGradients(k: number): boolean;
}

export class NonFiniteSteps {
  /** Since the last step that was right. */
  #inARow = 0;

  constructor(
    readonly parts: TrainerParts,
    readonly options: TrainerOptions,
    readonly trainable: TensorList,
    readonly steps: StepAccess,
    readonly onWarning: NonNullable<TrainerHooks["onWarning"]>,
  ) {}

  /** A step was right. */
  none(): void {
    this.#inARow = 0;
  }

  /** Says what is wrong with a step. @throws MiroError when nothing has been right for a while */
  async report(k: number, { loss, gradNorm, lossScale, overflow, made }: StepFindings): Promise<void> {
    // While the search for a scale goes on, overflows are part of it.
    if (overflow && Number.isFinite(loss) && lossScale > 1) {
      this.onWarning(k, `step ${k}: overflow at the loss scale ${lossScale}; the step was skipped`);
      return;
    }
    this.#inARow++;
    const culprit = await this.#culprit(k);
    const became = made ? "made with zeros in place of such gradients" : "skipped";
    const what = `step ${k}: loss ${loss}, gradient norm ${gradNorm}; ${culprit}; the step was ${became}`;
    if (this.#inARow >= this.options.maxSkippedInARow)
      throw new MiroError(
        `${what}, ${this.#inARow} in a row: lower optimizer.lr, or resume from an earlier checkpoint`,
      );
    this.onWarning(k, what);
  }

  /**
   * Puts zeros in place of gradients that are not finite, and says so; waits for the device.
   * @param terms of the loss, its mean first
   * @param overflow by the loss scaler: not 0 where gradients are not finite
   * @returns whether there were any, or the loss was not finite
   */
  async repair(k: number, terms: Tensor, overflow: Tensor | undefined): Promise<boolean> {
    const [loss, norms] = scope(() => [
      terms.select(0, 0).item(),
      groupGradientNorms(this.parts.optimizer.paramGroups).toList() as number[],
    ]);
    const overflowed = overflow !== undefined && overflow.item() !== 0;
    const gradNorm = Math.hypot(...norms);
    if (!overflowed && Number.isFinite(loss) && Number.isFinite(gradNorm)) return false;
    const lossScale = this.parts.scaler?.scale ?? 1;
    await this.report(k, { loss, gradNorm, lossScale, overflow: overflowed, made: !overflowed });
    noGrad(() =>
      scope(() => {
        for (const gradient of this.trainable.gradients()) if (gradient !== null) aten.nan_to_num_(gradient, 0, 0, 0);
      }),
    );
    return true;
  }

  /** The first tensor of step k that is not finite, in words. The weights must still be those that it began with. */
  async #culprit(k: number): Promise<string> {
    await this.parts.source.ready(k - 1); // sources can go back to a batch that has been taken
    return scope(() => {
      const { batch, draws } = this.steps.inputs(k); // they give it once
      return this.#withGradientsOf(k, batch, draws, () => this.#culpritIn(k, batch));
    });
  }

  /** Runs `look` with the gradients of step k in the parameters. */
  #withGradientsOf(k: number, batch: LossBatch, draws: Draws, look: () => string): string {
    if (this.steps.hasGradients(k)) return look();
    // By now they are gone, or those of the next step. Skipped, step k has changed no weight: they can be had anew.
    const next = this.trainable.gradients();
    this.trainable.clearGradients();
    const { seed, precision, accumulateGradBatches } = this.options;
    const options = { seed, k, rows: this.steps.rows, precision, accumulateGradBatches, draws };
    const again = () => void accumulateGradients(this.parts, batch, options);
    const reducer = this.parts.group?.reducer;
    try {
      if (reducer === undefined) again();
      else reducer.noSync(again);
      return look();
    } finally {
      for (const [i, parameter] of this.trainable.tensors.entries()) parameter.grad = next[i] ?? null;
    }
  }

  #culpritIn(k: number, batch: LossBatch): string {
    const { seed, precision, accumulateGradBatches } = this.options;
    const own = this.steps.rows;
    const forward = () => {
      for (const rows of (this.parts.replicas?.rows ?? [own]).flatMap((some) => partsOf(some, accumulateGradBatches))) {
        const part = { ...rows, start: rows.start - own.start };
        scope(() => void lossOf(this.parts, rowsOf(batch, part), { seed, k, rows, precision }));
      }
    };
    const [gradient, ...others] = nonFiniteGradients(this.parts, forward);
    const where = findNonFinite({ model: this.parts, batch, forward });
    const more = others.length > 0 ? ` and of ${others.length} others` : "";
    const gradients = gradient === undefined ? "" : `the gradient of ${gradient}${more} is not finite`;
    if (where !== null) return `first ${where}${gradients && `; ${gradients}`}`;
    return gradients || "no single tensor is the cause: the norm overflowed";
  }
}
