/**
 * Gradients of one step, for all rows of the batch or for some of them.
 *
 * Everything random in step k is drawn from generators seeded by (seed, k), for the whole batch, and each replica takes its rows;
 * so the batch's gradient does not depend, up to rounding, on how its rows are divided. (Reward dropout inside the network
 * does: it is drawn from the process-wide generator, which is seeded by (seed, k, first row).)
 */
import { autocast, Generator, manualSeed, scope, type Tensor } from "@miro-t2i/torch";
import {
  type Draw,
  type DrawPurpose,
  drawFrom,
  type FlowMatchingLoss,
  type LossBatch,
  type LossTerms,
  type Precision,
} from "../flow/loss.js";
import type { FlowPrecond } from "../networks/precond.js";
import type { Rin } from "../networks/rin.js";
import { mixSeed } from "./data/batches.js";

/** Names of the precisions, as upstream has them. */
export const PRECISIONS = ["32-true", "bf16-mixed", "16-mixed"] as const;
export type PrecisionName = (typeof PRECISIONS)[number];

/** Rows `start` … `start + count - 1` of a batch of `batchSize`. */
export interface Rows {
  start: number;
  count: number;
  batchSize: number;
}

/** Means over a replica's rows. */
export interface StepTerms {
  loss: number;
  rawLoss: number;
  logvar?: number;
}

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
}

/**
 * Adds the gradients of some rows in `turns` of equally many, each of which needs the memory of its rows only. Each turn is freed
 * before the next begins.
 */
export function accumulateInTurns(
  model: Model,
  batch: LossBatch,
  { turns, ...options }: GradientOptions & { turns: number },
): StepTerms {
  const { rows } = options;
  const drawn = new Map<DrawPurpose, Tensor>();
  try {
    const parts = partsOf(rows, turns).map((some) => {
      const own = { start: some.start - rows.start, count: some.count, batchSize: rows.count };
      const terms = scope(() => accumulateGradients(model, rowsOf(batch, own), { ...options, rows: some, drawn }));
      return { terms, rows: own };
    });
    return combineTerms(parts);
  } finally {
    for (const tensor of drawn.values()) tensor.dispose();
  }
}

/**
 * Adds this replica's share of the gradient of the batch's mean loss to the parameters. Call it inside a `scope()`.
 * @param batch the rows of this replica
 */
export function accumulateGradients(model: Model, batch: LossBatch, options: GradientOptions): StepTerms {
  const { rows, lossScale = 1 } = options;
  const terms = lossOf(model, batch, options);
  terms.loss.mul((lossScale * rows.count) / rows.batchSize).backward();
  return { loss: terms.loss.item(), rawLoss: terms.rawLoss.item(), logvar: terms.logvar?.item() };
}

/** The mean loss of some rows with the draws of a step: the same as often as it is called. Call it inside a `scope()`. */
export function lossOf(
  { network, preconditioning, loss }: Model,
  batch: LossBatch,
  { seed, k, rows, precision, drawn }: Omit<GradientOptions, "lossScale">,
): LossTerms {
  manualSeed(mixSeed(seed, 2, k, rows.start));
  const drawAll = drawFrom(new Generator().manualSeed(mixSeed(seed, 3, k)));
  const draw: Draw = (purpose, kind, [, ...rest]) => {
    const all = drawn?.get(purpose) ?? drawAll(purpose, kind, [rows.batchSize, ...rest]);
    if (drawn?.has(purpose) === false) drawn.set(purpose, all.keep());
    return all.narrow(0, rows.start, rows.count);
  };
  return loss.call(preconditioning, network, batch, {
    draw,
    precision: inPrecision(precision, network.latents.device),
  });
}

/** How a network on a device is run in a precision. */
export function inPrecision(precision: PrecisionName, on: string): Precision {
  if (precision === "32-true") return (run) => run();
  const device = on.startsWith("cuda") ? "cuda" : "cpu";
  const dtype = precision === "16-mixed" ? "float16" : "bfloat16";
  return (run) => autocast({ device, dtype }, run);
}

/** The rows of a batch (views). */
export function rowsOf(batch: LossBatch, { start, count }: Rows): LossBatch {
  const narrow = (t: Tensor) => t.narrow(0, start, count);
  return {
    x0: narrow(batch.x0),
    textEmbeddings: narrow(batch.textEmbeddings),
    textMask: narrow(batch.textMask),
    rewards: Object.fromEntries(Object.entries(batch.rewards).map(([key, value]) => [key, narrow(value)])),
  };
}

/** `batchSize` rows divided as evenly as can be. */
export function divideRows(batchSize: number, replicas: number): Rows[] {
  return Array.from({ length: replicas }, (_, r) => {
    const start = Math.floor((r * batchSize) / replicas);
    return { start, count: Math.floor(((r + 1) * batchSize) / replicas) - start, batchSize };
  });
}

/** Some rows of a batch in equally many at a time. */
export function partsOf(rows: Rows, turns: number): Rows[] {
  return divideRows(rows.count, turns).map(({ start, count }) => ({
    start: rows.start + start,
    count,
    batchSize: rows.batchSize,
  }));
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
