/**
 * What the network is told besides the noisy picture: text and rewards, as one sequence of tokens.
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
   * One (B,) tensor for each reward key (without the `_coherence` suffix that checkpoints use); other keys are not read.
   * NaN says that nothing is known of that sample's reward.
   */
  rewards: Readonly<Record<string, Tensor>>;
}

/**
 * Text and rewards after everything that can be computed without γ. Plain tensors owned by the caller: it can leave a
 * `scope()`, be reused over steps, joined and repeated with the functions below. In training it is part of the graph.
 */
export interface Conditioning {
  /** The tokens after the conditioning transformer (B, C, L), for networks whose latents include them and in training; otherwise null. */
  tokens: Tensor | null;
  /** Keys and values of the tokens in each block's `retrieve_cond`, (B, C, heads, E); empty for networks without it and in training. */
  keyValues: KeyValue[];
  /** Key mask (B, 1, 1, 1 + C) over the time token and the conditioning tokens; null when nothing is padded. */
  mask: KeyMask;
}

/**
 * The text up to the longest prompt of the batch, and its mask, null when nothing of what remains is padded. Masked
 * tokens are read by no-one, so leaving them out changes nothing.
 */
export function trimText(text: Tensor, mask: Tensor): { text: Tensor; mask: Tensor | null } {
  const length = (mask.any(0).toList() as unknown[]).map(Boolean).lastIndexOf(true) + 1;
  const trimmed = mask.narrow(1, 0, length);
  return { text: text.narrow(1, 0, length), mask: trimmed.all().item() ? null : trimmed };
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

/** The conditioning of one sample for a batch of them (views, no copies). Batch 1 → `batch`. */
export function expandConditioning(c: Conditioning, batch: number): Conditioning {
  return mapConditioning(c, (t) => t.expand(batch, ...t.shape.slice(1)));
}

/** The conditioning of samples `start` … `start + length - 1` (views). */
export function narrowConditioning(c: Conditioning, start: number, length: number): Conditioning {
  return mapConditioning(c, (t) => t.narrow(0, start, length));
}

/**
 * Several conditionings as one batch, in order. Texts of different lengths are padded at the end and masked.
 * Networks whose latents include the text attend padded text as well; for them the lengths must be equal.
 */
export function joinConditioning(parts: readonly Conditioning[]): Conditioning {
  const lengths = parts.map((part) => (part.tokens ?? part.keyValues[0]?.keys)?.size(1) ?? 0);
  const longest = Math.max(...lengths);
  const equal = lengths.every((length) => length === longest);
  const tokens = parts.flatMap((part) => part.tokens ?? []);
  if (tokens.length > 0 && !equal) {
    throw new InvalidInputError(
      `conditioning: this network needs texts padded to one length, received ${lengths.join(" and ")} tokens`,
    );
  }
  const joined = (pick: (c: Conditioning) => Tensor) =>
    cat(
      parts.map((part) => padTokens(pick(part), longest)),
      0,
    );
  return {
    tokens: tokens.length > 0 ? cat(tokens, 0) : null,
    keyValues: parts[0]!.keyValues.map((_, block) => ({
      keys: joined((c) => c.keyValues[block]!.keys),
      values: joined((c) => c.keyValues[block]!.values),
    })),
    mask:
      equal && parts.every((part) => part.mask === null)
        ? null
        : cat(
            parts.map((part) => padMask(part, longest + 1)),
            0,
          ),
  };
}

function mapConditioning(c: Conditioning, map: (t: Tensor) => Tensor): Conditioning {
  return {
    tokens: c.tokens && map(c.tokens),
    keyValues: c.keyValues.map(({ keys, values }) => ({ keys: map(keys), values: map(values) })),
    mask: c.mask && map(c.mask),
  };
}

/** (B, S, ...) → (B, length, ...), zeros at the end. */
function padTokens(t: Tensor, length: number): Tensor {
  const short = length - t.size(1);
  if (short === 0) return t;
  const [batch, , ...rest] = t.shape;
  return cat([t, full([batch!, short, ...rest], 0, { dtype: t.dtype, device: t.device })], 1);
}

/** The mask of one part over `length` keys: (B, 1, 1, length). */
function padMask(c: Conditioning, length: number): Tensor {
  const first = (c.tokens ?? c.keyValues[0]?.keys)!;
  const real = c.mask ?? full([first.size(0), 1, 1, first.size(1) + 1], true, { dtype: "bool", device: first.device });
  const [batch, , , width] = real.shape as [number, number, number, number];
  return width === length
    ? real
    : cat([real, full([batch, 1, 1, length - width], false, { dtype: "bool", device: real.device })], 3);
}
