/**
 * Batches whose texts have one of a few lengths, for GPUs: a recording of a step serves one length, and cuDNN's
 * attention, where it is asked for, builds a plan for each, which takes it between 25 ms and a second.
 *
 * What is added is masked, so that it changes nothing but how sums are rounded; a network that attends what is masked
 * keeps its texts as they are.
 */
import { aten } from "@miro-t2i/torch";
import type { LossBatch } from "../../flow/loss.js";
import { RECORDED_TOKENS } from "../../flow/recording.js";
import type { RinConfig } from "../../networks/config.js";

/** The batch with its texts as long as {@link paddedLength} says. The caller's scope owns what is new. */
export function withPaddedTexts(batch: LossBatch, config: RinConfig): LossBatch {
  if (config.concatCondTokenToLatents) return batch;
  const length = batch.textEmbeddings.size(1);
  const missing = paddedLength(length, config) - length;
  if (missing === 0) return batch;
  return {
    ...batch,
    textEmbeddings: aten.constant_pad_nd(batch.textEmbeddings, [0, 0, 0, missing]),
    textMask: aten.constant_pad_nd(batch.textMask, [0, missing]),
  };
}

/**
 * The next multiple of {@link RECORDED_TOKENS}; one more where cuDNN would be given 64 masked keys more than a multiple
 * of 128, of which its backward pass on Hopper can make NaN (pytorch/pytorch#196678). The keys are the text and, before
 * it, rewards and registers, in the blocks time as well.
 */
export function paddedLength(length: number, { coherenceKeys, numTextRegisters }: RinConfig): number {
  const padded = Math.ceil(length / RECORDED_TOKENS) * RECORDED_TOKENS;
  const keys = coherenceKeys.length + numTextRegisters + padded;
  return [keys, keys + 1].some((count) => count % 128 === 64) ? padded + RECORDED_TOKENS : padded;
}
