/** A network's input, in this package's spelling and in that of the published code's batches. */
import type { Tensor } from "@miro-t2i/torch";
import { InvalidInputError } from "../errors.js";
import type { Conditioning, ConditioningInput } from "./conditioning.js";

/** The network's input. */
export interface RinBatch extends ConditioningInput {
  /** Noisy latent picture, already scaled by c_in: (B, channels, side, side). */
  y: Tensor;
  /** Signal level: 1 is clean data, 0 pure noise. (B,) float32 */
  gamma: Tensor;
  /** Latents z of an earlier pass (B, N, L) for self-conditioning; null or absent counts as zeros. */
  previousLatents?: Tensor | null | undefined;
  /** Result of `Rin.condition`; text and rewards are then not read. */
  conditioning?: Conditioning | null | undefined;
}

/** The same input under the published code's keys; rewards are `<key>_coherence`. */
export interface UpstreamBatch {
  y: Tensor;
  gamma: Tensor;
  text_tokens_embeddings: Tensor;
  text_tokens_mask: Tensor;
  previous_latents?: Tensor | null | undefined;
  [key: string]: unknown;
}

const REWARD_SUFFIX = "_coherence";

/**
 * Accepts either spelling.
 * @throws InvalidInputError naming the entries of a batch that are missing
 */
export function rinBatch(batch: RinBatch | UpstreamBatch): RinBatch {
  const missing = ["y", "gamma"].filter((key) => batch[key as "y"] === undefined);
  if (!("text_tokens_embeddings" in batch)) {
    if ((batch as RinBatch).conditioning == null) {
      missing.push(
        ...["textEmbeddings", "textMask", "rewards"].filter(
          (key) => (batch as RinBatch)[key as "textMask"] === undefined,
        ),
      );
    }
    refuse(missing);
    return batch as RinBatch;
  }
  const upstream = batch as UpstreamBatch;
  if (upstream.text_tokens_mask === undefined) missing.push("text_tokens_mask");
  refuse(missing);
  const rewards = Object.entries(upstream).filter(([key, value]) => key.endsWith(REWARD_SUFFIX) && value != null);
  return {
    y: upstream.y,
    gamma: upstream.gamma,
    textEmbeddings: upstream.text_tokens_embeddings,
    textMask: upstream.text_tokens_mask,
    rewards: Object.fromEntries(rewards.map(([key, value]) => [key.slice(0, -REWARD_SUFFIX.length), value as Tensor])),
    previousLatents: upstream.previous_latents,
  };
}

function refuse(missing: string[]): void {
  if (missing.length > 0) throw new InvalidInputError(`batch: ${missing.join(", ")} missing`);
}
