/** Pictures from a network in training, for whatever conditioning and noise is given. */
import { full, noGrad, scope, type Tensor } from "@miro-t2i/torch";
import type { Autoencoder } from "../../autoencoder/index.js";
import { denormalize } from "../../autoencoder/normalization.js";
import { guidedDenoise } from "../../flow/guidance.js";
import { release } from "../../flow/release.js";
import { euler } from "../../flow/samplers.js";
import type { LinearSchedule } from "../../flow/schedule.js";
import { type Conditioning, joinConditioning } from "../../networks/conditioning.js";
import type { FlowPrecond } from "../../networks/precond.js";
import type { Rin } from "../../networks/rin.js";
import { type RgbImage, toRgb } from "../../pictures/rgb.js";
import type { DataConstants } from "../batches/batches.js";

/** What samples are drawn with, whatever the prompts. */
export interface SamplingParts extends DataConstants {
  network: Rin;
  preconditioning: FlowPrecond;
  schedule: LinearSchedule;
  autoencoder: Autoencoder;
  steps: number;
  guidanceScale: number;
  /** Every reward's target; the negative branch gets 0. */
  rewardTarget: number;
  signal?: AbortSignal | undefined;
}

/** What {@link drawSamples} draws. */
export interface Samples {
  /** Text states of each picture, (B, T, labelDim). */
  textEmbeddings: Tensor;
  /** (B, T) bool. */
  textMask: Tensor;
  /** (B, C, r, r) float32 on the CPU. */
  noise: Tensor;
}

/**
 * Draws one batch of pictures with Euler steps and guidance against the empty prompt. The network and the preconditioning are in evaluation mode
 * meanwhile; the latter is put back into the mode it had.
 */
export async function drawSamples(parts: SamplingParts, samples: Samples): Promise<RgbImage[]> {
  const { network, preconditioning, signal } = parts;
  const wasTraining = preconditioning.training;
  network.eval();
  preconditioning.eval();
  const { both, conditional } = scope(() => noGrad(() => condition(parts, samples)));
  const noise = scope(() => samples.noise.to({ device: parts.uncondEmbedding.device }).clone());
  try {
    const latents = await euler(
      guidedDenoise<Conditioning>({
        predict: (y, gamma, conditioning, previousLatents) =>
          preconditioning.apply(network, { y, gamma, conditioning, previousLatents, ...unread(y) }),
        guidance: { scale: parts.guidanceScale, type: "constant", start: 0, end: null },
        both,
        conditional,
      }),
      noise,
      parts.schedule.grid(parts.steps),
      { signal },
    );
    const images = scope(() =>
      noGrad(() => {
        const { normalization } = parts;
        return toRgb(
          parts.autoencoder.decode(denormalize(latents.to({ device: normalization.scale.device }), normalization)),
        );
      }),
    );
    latents.dispose();
    return images;
  } finally {
    noise.dispose();
    release({ both, conditional });
    preconditioning.train(wasTraining);
  }
}

/** The conditioning of all pictures, alone and followed by the unconditional one. */
function condition(
  { network, rewardTarget, uncondEmbedding }: SamplingParts,
  { textEmbeddings, textMask }: Samples,
): { both: Conditioning; conditional: Conditioning } {
  const device = uncondEmbedding.device;
  const B = textEmbeddings.size(0);
  const rewards = (value: number) =>
    Object.fromEntries(
      network.config.coherenceKeys.map((key) => [key, full([B], value, { dtype: "float32", device })]),
    );
  const conditional = network.condition({ textEmbeddings, textMask, rewards: rewards(rewardTarget) });
  const U = uncondEmbedding.size(0);
  const unconditional = network.condition({
    textEmbeddings: uncondEmbedding.unsqueeze(0).expand(B, U, uncondEmbedding.size(1)),
    textMask: full([B, U], true, { dtype: "bool", device }),
    rewards: rewards(0),
  });
  return { both: joinConditioning([conditional, unconditional]), conditional };
}

/** Text and rewards of a batch whose conditioning is given. */
function unread(y: Tensor): { textEmbeddings: Tensor; textMask: Tensor; rewards: Record<string, Tensor> } {
  return { textEmbeddings: y, textMask: y, rewards: {} };
}
