/**
 * Gradients of one step, for all rows of the batch or for some of them.
 *
 * Everything random in step k is drawn from generators seeded by (seed, k), for the whole batch, and each thread or
 * process takes its rows; the noise, which is most of it, from a generator for each row, so that no process draws that
 * of others. So the batch's gradient does not depend, up to rounding, on how its rows are divided. (Reward dropout
 * inside the network does: it is drawn from the process-wide generator, which is seeded by (seed, k, first row).)
 */
import { autocast, Generator, manualSeed, randn, scope, stack, type Tensor } from "@miro-t2i/torch";
import type { DistributedReducer } from "@miro-t2i/torch/distributed";
import {
  type Draw,
  type DrawPurpose,
  drawFrom,
  type FlowMatchingLoss,
  type LossBatch,
  type LossTerms,
  type Precision,
} from "../../flow/loss.js";
import type { FlowPrecond } from "../../networks/precond.js";
import type { Rin } from "../../networks/rin.js";
import { streamSeed } from "../../random/streams.js";
import { partsOf, type Rows, rowsOf } from "../batches/batch-slices.js";
import type { StepTerms } from "../logging/meter.js";
import type { PrecisionName } from "../recipes/precision.js";

export interface Model {
  network: Rin;
  preconditioning: FlowPrecond;
  loss: FlowMatchingLoss;
}

export interface GradientOptions {
  seed: number;
  /** The step, from 1. */
  k: number;
  /** Which rows of the whole batch these are. */
  rows: Rows;
  precision: PrecisionName;
  /** The gradients are to be divided by it; by default 1. */
  lossScale?: number;
  /** Draws for the whole batch that are made already; new ones are added, and the caller disposes of them. */
  drawn?: Map<DrawPurpose, Tensor>;
  /**
   * Averages the gradients over the processes, once for all accumulation steps; then they are those of the whole batch
   * on each of them.
   */
  reducer?: DistributedReducer | undefined;
}

/**
 * Adds the gradients of some rows in accumulation steps of equally many, each of which needs the memory of its rows
 * only and is freed before the next begins.
 */
export function accumulateGradients(
  model: Model,
  batch: LossBatch,
  { accumulateGradBatches, reducer, ...options }: GradientOptions & { accumulateGradBatches: number },
): StepTerms {
  const { rows } = options;
  const drawn = new Map<DrawPurpose, Tensor>();
  try {
    const parts = partsOf(rows, accumulateGradBatches).map((some, i) => {
      const own = { start: some.start - rows.start, count: some.count, batchSize: rows.count };
      const add = () =>
        scope(() => addGradients(model, rowsOf(batch, own), { ...options, rows: some, drawn, reducer }));
      const last = i === accumulateGradBatches - 1;
      return { terms: reducer === undefined || last ? add() : reducer.noSync(add), rows: own };
    });
    return combineTerms(parts);
  } finally {
    for (const tensor of drawn.values()) tensor.dispose();
  }
}

/**
 * Adds these rows' share of the gradient of the batch's mean loss to the parameters. Call it inside a `scope()`.
 * @param batch the rows
 */
function addGradients(model: Model, batch: LossBatch, options: GradientOptions): StepTerms {
  const { rows, lossScale = 1, reducer } = options;
  reducer?.prepareForForward();
  const terms = lossOf(model, batch, options);
  // The reducer's mean over the processes becomes the sum of their shares.
  const processes = reducer?.group.worldSize ?? 1;
  const share = terms.loss.mul((processes * lossScale * rows.count) / rows.batchSize);
  if (reducer === undefined) share.backward();
  else reducer.backward(share);
  return { loss: terms.loss.item(), rawLoss: terms.rawLoss.item(), logvar: terms.logvar?.item() };
}

/**
 * The mean loss of some rows with the draws of a step: the same as often as it is called. Call it inside a `scope()`.
 */
export function lossOf(
  { network, preconditioning, loss }: Model,
  batch: LossBatch,
  { seed, k, rows, precision, drawn }: Omit<GradientOptions, "lossScale">,
): LossTerms {
  manualSeed(streamSeed(seed, "networkDropout", k, rows.start));
  const drawAll = drawFrom(new Generator().manualSeed(streamSeed(seed, "lossBatch", k)));
  const draw: Draw = (purpose, kind, [, ...rest]) => {
    if (purpose === "noise") return noiseOf(rows, rest, seed, k);
    const all = drawn?.get(purpose) ?? drawAll(purpose, kind, [rows.batchSize, ...rest]);
    if (drawn?.has(purpose) === false) drawn.set(purpose, all.keep());
    return all.narrow(0, rows.start, rows.count);
  };
  return loss.call(preconditioning, network, batch, {
    draw,
    precision: inPrecision(precision, network.latents.device),
  });
}

/** Normal noise (rows, …shape) of step k: each row's is its own. */
function noiseOf(rows: Rows, shape: readonly number[], seed: number, k: number): Tensor {
  const generator = new Generator();
  const noise = Array.from({ length: rows.count }, (_, i) =>
    randn([...shape], { generator: generator.manualSeed(streamSeed(seed, "rowNoise", k, rows.start + i)) }),
  );
  return stack(noise, 0);
}

/** How a network on a device is run in a precision. */
export function inPrecision(precision: PrecisionName, on: string): Precision {
  if (precision === "32-true") return (run) => run();
  const device = on.startsWith("cuda") ? "cuda" : "cpu";
  const dtype = precision === "16-mixed" ? "float16" : "bfloat16";
  return (run) => autocast({ device, dtype }, run);
}

/** Means over the whole batch from those of its parts. */
export function combineTerms(parts: { terms: StepTerms; rows: Rows }[]): StepTerms {
  const mean = (pick: (terms: StepTerms) => number) =>
    parts.reduce((sum, { terms, rows }) => sum + (pick(terms) * rows.count) / rows.batchSize, 0);
  return {
    loss: mean((t) => t.loss),
    rawLoss: mean((t) => t.rawLoss),
    logvar: parts[0]!.terms.logvar === undefined ? undefined : mean((t) => t.logvar!),
  };
}
