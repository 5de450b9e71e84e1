/** Rows of a batch, and how a batch is divided among threads, processes and accumulation steps. */
import type { Tensor } from "@miro-t2i/torch";
import type { LossBatch } from "../../flow/loss.js";

/** Rows `start` … `start + count - 1` of a batch of `batchSize`. */
export interface Rows {
  start: number;
  count: number;
  batchSize: number;
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
export function partsOf(rows: Rows, parts: number): Rows[] {
  return divideRows(rows.count, parts).map(({ start, count }) => ({
    start: rows.start + start,
    count,
    batchSize: rows.batchSize,
  }));
}
