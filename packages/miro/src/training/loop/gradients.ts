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
import { MATMUL_DTYPE, type PrecisionName } from "../recipes/precision.js";

export interface Model {
  network: Rin;
  preconditioning: FlowPrecond;
  loss: FlowMatchingLoss;
}

/** What the loss of some rows draws, by its purpose: a row for each of theirs. */
export type Draws = Readonly<Partial<Record<DrawPurpose, Tensor>>>;

export interface GradientOptions {
  seed: number;
  /** The step, from 1. */
  k: number;
  /** Which rows of the whole batch these are. */
  rows: Rows;
  precision: PrecisionName;
  /** The gradients are to be divided by it; by default 1. On a device: one value. */
  lossScale?: number | Tensor | undefined;
  /** What {@link drawRows} gives, wherever it lies by now; by default it is called. */
  draws?: Draws;
  /**
   * Averages the gradients over the processes, once for all accumulation steps; then they are those of the whole batch
   * on each of them.
   */
  reducer?: DistributedReducer | undefined;
}

/** What the loss draws in step k for some rows; on the CPU, the same as often as it is called. */
export function drawRows(
  { network, loss }: Model,
  batch: LossBatch,
  { seed, k, rows }: Pick<GradientOptions, "seed" | "k" | "rows">,
): Draws {
  const drawAll = drawFrom(new Generator().manualSeed(streamSeed(seed, "lossBatch", k)));
  const drawn = loss.draws(network, batch).map(([purpose, kind, [, ...rest]]) => {
    if (purpose === "noise") return [purpose, noiseOf(rows, rest, seed, k)] as const;
    return [purpose, drawAll(purpose, kind, [rows.batchSize, ...rest]).narrow(0, rows.start, rows.count)] as const;
  });
  return Object.fromEntries(drawn);
}

/**
 * Adds the gradients of some rows in accumulation steps of equally many, each of which needs the memory of its rows
 * only and is freed before the next begins. Call it inside a `scope()`. Waits for no device.
 * @returns the means of the rows' terms on their device, see {@link termsIn}
 */
export function accumulateGradients(
  model: Model,
  batch: LossBatch,
  { accumulateGradBatches, reducer, ...options }: GradientOptions & { accumulateGradBatches: number },
): Tensor {
  const draws = options.draws ?? drawRows(model, batch, options);
  const parts = microBatches(batch, draws, options.rows, accumulateGradBatches);
  const means = parts.map(({ rows, own, batch, draws }, i) => {
    const add = () =>
      scope(() => {
        seedNetwork({ ...options, rows });
        return addGradients(model, batch, { ...options, rows, draws, reducer });
      });
    const last = i === accumulateGradBatches - 1;
    return { terms: reducer === undefined || last ? add() : reducer.noSync(add), rows: own };
  });
  return meanOf(means);
}

/** What one accumulation step computes. */
export interface MicroBatch {
  /** Its rows of the whole batch, and of the rows that are given. */
  rows: Rows;
  own: Rows;
  batch: LossBatch;
  draws: Draws;
}

/** Rows of a batch and what was drawn for them, in equally many at a time (views). */
export function microBatches(batch: LossBatch, draws: Draws, all: Rows, parts: number): MicroBatch[] {
  return partsOf(all, parts).map((rows) => {
    const own = { start: rows.start - all.start, count: rows.count, batchSize: all.count };
    return { rows, own, batch: rowsOf(batch, own), draws: cut(draws, own) };
  });
}

/** Rows of what was drawn. */
function cut(draws: Draws, { start, count }: Rows): Draws {
  return Object.fromEntries(Object.entries(draws).map(([purpose, all]) => [purpose, all.narrow(0, start, count)]));
}

/**
 * Adds these rows' share of the gradient of the batch's mean loss to the parameters. Call it inside a `scope()`, after
 * {@link seedNetwork}.
 * @param batch the rows
 */
export function addGradients(
  model: Model,
  batch: LossBatch,
  { rows, precision, draws, lossScale = 1, reducer }: Omit<GradientOptions, "seed" | "k"> & { draws: Draws },
): Tensor {
  reducer?.prepareForForward();
  const terms = lossWith(model, batch, draws, precision);
  // The reducer's mean over the processes becomes the sum of their shares.
  const processes = reducer?.group.worldSize ?? 1;
  const share =
    typeof lossScale === "number"
      ? terms.loss.mul((processes * lossScale * rows.count) / rows.batchSize)
      : terms.loss.mul((processes * rows.count) / rows.batchSize).mul(lossScale.view([]));
  if (reducer === undefined) share.backward();
  else reducer.backward(share);
  const { loss, rawLoss, logvar } = terms;
  return stack([loss.detach(), rawLoss, ...(logvar === undefined ? [] : [logvar])]).double();
}

/** Seeds the process-wide generator, from which the network draws what it hides of some rows in a step. */
export function seedNetwork({ seed, k, rows }: Pick<GradientOptions, "seed" | "k" | "rows">): void {
  manualSeed(streamSeed(seed, "networkDropout", k, rows.start));
}

/**
 * The mean loss of some rows with the draws of a step: the same as often as it is called. Call it inside a `scope()`.
 */
export function lossOf(
  model: Model,
  batch: LossBatch,
  options: Pick<GradientOptions, "seed" | "k" | "rows" | "precision">,
): LossTerms {
  const draws = drawRows(model, batch, options);
  seedNetwork(options);
  return lossWith(model, batch, draws, options.precision);
}

function lossWith(model: Model, batch: LossBatch, draws: Draws, precision: PrecisionName): LossTerms {
  const { network, preconditioning, loss } = model;
  return loss.call(preconditioning, network, batch, {
    draw: (purpose) => draws[purpose]!,
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
  return (run) => autocast({ device, dtype: MATMUL_DTYPE[precision] }, run);
}

/** Means over the whole batch from those of its parts, as float64 vectors on one device. */
export function meanOf(parts: readonly { terms: Tensor; rows: Rows }[]): Tensor {
  const shares = parts.map(({ terms, rows }) => terms.mul(rows.count).div(rows.batchSize));
  return shares.reduce((sum, share) => sum.add(share));
}

/** The terms in the values of such a vector. */
export function termsIn([loss, rawLoss, logvar]: readonly number[]): StepTerms {
  return { loss: loss!, rawLoss: rawLoss!, ...(logvar !== undefined && { logvar }) };
}
