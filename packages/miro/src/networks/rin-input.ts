/** A network's input, and the same input in the spelling of the published code's batches. */
import type { Tensor } from "@miro-t2i/torch";
import { InvalidInputError } from "../errors.js";
import type { Conditioning, ConditioningInput } from "./conditioning.js";

/** The noisy picture, and how noisy it is. */
export interface NoisyPicture {
  /** Noisy latent picture, already scaled by c_in: (B, channels, side, side). */
  y: Tensor;
  /** Signal level: 1 is clean data, 0 pure noise. (B,) float32 */
  gamma: Tensor;
  /**
   * Latents z of an earlier pass (B, N, L) for self-conditioning. Null or absent adds nothing, which is not the same as
   * zeros: `FlowPrecond.apply` begins with zeros, as networks are trained.
   */
  previousLatents?: Tensor | null | undefined;
}

/** The network's input: text and rewards, or what `Rin.condition` has made of them. */
export type RinInput = NoisyPicture &
  ((ConditioningInput & { conditioning?: null | undefined }) | { conditioning: Conditioning });

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
 * @throws InvalidInputError naming the entries that are missing
 */
export function rinInput(given: RinInput | UpstreamBatch): RinInput {
  if ("text_tokens_embeddings" in given) {
    need(given, ["y", "gamma", "text_tokens_mask"]);
    return fromUpstream(given);
  }
  need(given, ["y", "gamma", ...(given.conditioning ? [] : ["textEmbeddings", "textMask", "rewards"])]);
  return given;
}

function fromUpstream(batch: UpstreamBatch): RinInput {
  const rewards = Object.entries(batch).filter(([key, value]) => key.endsWith(REWARD_SUFFIX) && value != null);
  return {
    y: batch.y,
    gamma: batch.gamma,
    textEmbeddings: batch.text_tokens_embeddings,
    textMask: batch.text_tokens_mask,
    rewards: Object.fromEntries(rewards.map(([key, value]) => [key.slice(0, -REWARD_SUFFIX.length), value as Tensor])),
    previousLatents: batch.previous_latents,
  };
}

function need(given: object, keys: readonly string[]): void {
  const missing = keys.filter((key) => (given as Record<string, unknown>)[key] === undefined);
  if (missing.length > 0) throw new InvalidInputError(`batch: ${missing.join(", ")} missing`);
}
