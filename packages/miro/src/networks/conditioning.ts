/**
 * What conditions the network besides the noisy picture: text and rewards, as one sequence of tokens.
 *
 * Shapes: B batch, T text tokens, K rewards, R text registers, C = K + R + T conditioning tokens, L token width.
 * Nothing here depends on the signal level γ, so a sampler computes it once and reuses it at every step.
 */
import { arange, cat, full, ones, rand, randint, stack, type Tensor, where } from "@miro-t2i/torch";
import { InvalidInputError } from "../errors.js";
import type { KeyMask, KeyValue } from "./attention.js";

/** The text and the rewards of a batch. */
export interface ConditioningInput {
  /** Text encoder states (B, T, label width), any floating dtype. */
  textEmbeddings: Tensor;
  /** (B, T) bool, true at real tokens. */
  textMask: Tensor;
  /**
   * One (B,) tensor for each reward key (without the `_coherence` suffix that checkpoints use); other keys are not
   * read. NaN says that nothing is known of that sample's reward.
   */
  rewards: Readonly<Record<string, Tensor>>;
}

/**
 * Text and rewards after everything that can be computed without γ. Plain tensors owned by the caller: it can leave a
 * `scope()`, be reused over steps, and cut by `narrowConditioning`. In training it is part of the graph.
 */
export interface Conditioning {
  /**
   * The tokens after the conditioning transformer (B, C, L), for networks whose latents include them and in training;
   * otherwise null.
   */
  tokens: Tensor | null;
  /**
   * Keys and values of the tokens in each block's `retrieve_cond`, (B, C, heads, E); empty for networks without it and
   * in training.
   */
  keyValues: KeyValue[];
  /** Key mask (B, 1, 1, 1 + C) over the time token and the conditioning tokens; null when nothing is padded. */
  mask: KeyMask;
}

/**
 * The text up to the longest prompt of the batch, and its mask, null when nothing of what remains is padded. Masked
 * tokens are read by no-one, so leaving them out changes nothing.
 */
export function trimText(text: Tensor, mask: Tensor): { text: Tensor; mask: Tensor | null } {
  const length = longestText(mask);
  const trimmed = mask.narrow(1, 0, length);
  return { text: text.narrow(1, 0, length), mask: trimmed.all().item() ? null : trimmed };
}

/** How many tokens the longest text of a batch has, by its mask (B, T); waits for the device. */
export function longestText(mask: Tensor): number {
  return (mask.any(0).toList() as unknown[]).map(Boolean).lastIndexOf(true) + 1;
}

/** The key mask of `leading` tokens that are always there followed by the text: (B, T) → (B, 1, 1, leading + T). */
export function keyMask(textMask: Tensor, leading: number): Tensor {
  const always = ones([textMask.size(0), leading], { dtype: "bool", device: textMask.device });
  return cat([always, textMask], 1).unsqueeze(1).unsqueeze(1);
}

/**
 * The rewards as one matrix (B, K) float32 in the order of `keys`.
 * @param required whether a missing reward is an error; otherwise it is NaN
 */
export function rewardMatrix(
  rewards: ConditioningInput["rewards"],
  keys: readonly string[],
  like: Tensor,
  required: boolean,
): Tensor {
  const missing = keys.filter((key) => rewards[key] === undefined);
  if (required && missing.length > 0)
    throw new InvalidInputError(`rewards: training needs every reward, missing ${missing.join(", ")}`);
  const batch = like.size(0);
  const unknown = () => full([batch], Number.NaN, { dtype: "float32", device: like.device });
  return stack(
    keys.map((key) => rewards[key]?.to({ dtype: "float32", device: like.device }) ?? unknown()),
    1,
  );
}

/** How training hides rewards, see {@link rewardKeepMask}. */
export type DropoutStrategy = "binomial" | "uniform" | "none";

/**
 * Which rewards a training step may see: 1 keeps, 0 hides. (B, K) float32, drawn from the global generator.
 *
 * - `binomial`: each is kept with probability 1 - p; a sample left with none keeps one, chosen uniformly.
 * - `uniform`: the number hidden is uniform in 0 … K-1 for each sample, and which ones as well; p is not used.
 * - `none`: all are kept.
 */
export function rewardKeepMask(
  batch: number,
  count: number,
  strategy: DropoutStrategy,
  p: number,
  device: string,
): Tensor {
  if (strategy === "none") return ones([batch, count], { device });
  if (strategy === "uniform") {
    const hidden = randint(0, count, [batch, 1], { device });
    const u = rand([batch, count], { device });
    const rank = u.unsqueeze(2).gt(u.unsqueeze(1)).sum(2); // a uniform permutation of 0 … K-1
    return rank.ge(hidden).float();
  }
  const keep = rand([batch, count], { device }).ge(p);
  const one = arange(count, { device }).eq(randint(0, count, [batch, 1], { device }));
  return where(keep.any(1, true), keep, one).float();
}

/** The conditioning of samples `start` … `start + length - 1` (views). */
export function narrowConditioning(c: Conditioning, start: number, length: number): Conditioning {
  const cut = (t: Tensor) => t.narrow(0, start, length);
  return {
    tokens: c.tokens && cut(c.tokens),
    keyValues: c.keyValues.map(({ keys, values }) => ({ keys: cut(keys), values: cut(values) })),
    mask: c.mask && cut(c.mask),
  };
}
