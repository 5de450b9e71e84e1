/**
 * What a training step hides of a sample's conditioning, so that the network can be guided (Ho and Salimans,
 * "Classifier-Free Diffusion Guidance", arXiv 2207.12598): the text becomes the empty prompt, a reward becomes unknown
 * (NaN).
 */
import { cat, type Tensor, where, zeros } from "@miro-t2i/torch";
import { invalid } from "../errors.js";
import type { ConditioningInput } from "../networks/conditioning.js";
import type { Draw } from "./draws.js";

/** How often what is hidden. */
export interface DropRates {
  /** Probability that a sample loses its text and all its rewards. */
  condDropRate: number;
  /**
   * Probability that a sample loses its text and keeps its rewards: what the negative branch of guidance is asked for.
   */
  textDropRate: number;
  /** Probability, for each single reward of each sample, that it becomes unknown. */
  rewardDropRate: number;
}

/**
 * The conditioning after dropping; new tensors, what is given stays as it was.
 * @param uncondEmbedding text states of the empty prompt, (U, labelDim), U ≤ T
 */
export function dropConditions(
  { textEmbeddings, textMask, rewards }: ConditioningInput,
  uncondEmbedding: Tensor,
  { condDropRate, textDropRate, rewardDropRate }: DropRates,
  draw: Draw,
): ConditioningInput {
  const B = textEmbeddings.size(0);
  const keys = Object.keys(rewards);
  if (condDropRate + textDropRate > 0) {
    const u = draw("textDrop", "uniform", [B]);
    const dropText = u.lt(condDropRate + textDropRate);
    const dropAll = u.lt(condDropRate);
    const empty = emptyPrompt(uncondEmbedding, textEmbeddings);
    textEmbeddings = where(dropText.view(B, 1, 1), empty.embeddings, textEmbeddings);
    textMask = where(dropText.view(B, 1), empty.mask, textMask);
    rewards = Object.fromEntries(keys.map((key) => [key, unknown(rewards[key]!, dropAll)]));
  }
  if (rewardDropRate > 0 && keys.length > 0) {
    const drop = draw("rewardDrop", "uniform", [B, keys.length]).lt(rewardDropRate);
    rewards = Object.fromEntries(keys.map((key, i) => [key, unknown(rewards[key]!, drop.select(1, i))]));
  }
  return { textEmbeddings, textMask, rewards };
}

function unknown(reward: Tensor, drop: Tensor): Tensor {
  return reward.maskedFill(drop, Number.NaN);
}

/**
 * The empty prompt padded to the T tokens of a batch's text: embeddings (1, T, labelDim), mask (1, T). A single token
 * is repeated over all positions, as upstream does; of a prompt that has T tokens already, padding included, the first
 * is the real one. In both, only the first is unmasked, so the others count in networks alone that attend padding.
 */
function emptyPrompt(uncondEmbedding: Tensor, text_BTE: Tensor): { embeddings: Tensor; mask: Tensor } {
  const T = text_BTE.size(1);
  const uncond = uncondEmbedding.to({ device: text_BTE.device, dtype: text_BTE.dtype });
  const [U, width] = [uncond.size(0), uncond.size(1)];
  if (U > T) throw invalid("uncondEmbedding", `at most ${T} tokens, as many as the batch's text has`, U);
  const padded =
    U === 1 ? uncond.expand(T, width) : U === T ? uncond : cat([uncond, zeros([T - U, width], text_BTE)], 0);
  const real = zeros([T], { dtype: "bool", device: text_BTE.device });
  real.narrow(0, 0, U === T ? 1 : U).fill_(true);
  return { embeddings: padded.unsqueeze(0), mask: real.unsqueeze(0) };
}
