/** Pictures from a network in training, for whatever conditioning and noise is given. */
import { noGrad, scope, type Tensor } from "@miro-t2i/torch";
import type { Autoencoder } from "../../autoencoder/index.js";
import { denormalize } from "../../autoencoder/normalization.js";
import { type Guidance, guidedSteps } from "../../flow/guidance.js";
import { release } from "../../flow/release.js";
import type { LinearSchedule } from "../../flow/schedule.js";
import type { FlowPrecond } from "../../networks/precond.js";
import type { Rin } from "../../networks/rin.js";
import { type RgbImage, toRgb } from "../../pictures/rgb.js";
import { condition } from "../../pipeline/conditioning.js";
import { drawLatents, predictBy } from "../../pipeline/draw-latents.js";
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
 * Draws one batch of pictures with Euler steps and guidance against the empty prompt. The network and the
 * preconditioning are in evaluation mode meanwhile; the latter is put back into the mode it had.
 */
export async function drawSamples(parts: SamplingParts, samples: Samples): Promise<RgbImage[]> {
  const { network, preconditioning, schedule, steps, normalization, signal } = parts;
  const wasTraining = preconditioning.training;
  network.eval();
  preconditioning.eval();
  const guidance: Guidance = { scale: parts.guidanceScale, type: "constant", start: 0, end: null };
  const branches = branchesOf(parts, samples, guidance);
  const noise = scope(() => samples.noise.to({ device: parts.uncondEmbedding.device }).clone());
  try {
    const latents = await drawLatents(noise, {
      predict: predictBy(preconditioning, () => network),
      branches,
      guidance,
      sampler: "euler",
      gammas: schedule.grid(steps),
      signal,
    });
    const images = scope(() =>
      noGrad(() =>
        toRgb(parts.autoencoder.decode(denormalize(latents.to({ device: normalization.scale.device }), normalization))),
      ),
    );
    latents.dispose();
    return images;
  } finally {
    noise.dispose();
    release({ ...branches });
    preconditioning.train(wasTraining);
  }
}

/** Every picture's own text and the target of every reward, against the empty prompt and rewards of 0. */
function branchesOf(parts: SamplingParts, { textEmbeddings, textMask }: Samples, guidance: Guidance) {
  const { network, rewardTarget, uncondEmbedding } = parts;
  const rows = Array.from({ length: textEmbeddings.size(0) }, (_, i) => i);
  const every = (value: number) => Object.fromEntries(network.config.coherenceKeys.map((key) => [key, value]));
  return scope(() =>
    condition({
      network,
      texts: rows.map((i) => ({ embeddings: textEmbeddings.select(0, i), mask: textMask.select(0, i) })),
      wanted: rows.map(() => every(rewardTarget)),
      unwantedTexts: rows.map(() => ({ embeddings: uncondEmbedding })),
      unwanted: rows.map(() => every(0)),
      guided: guidedSteps(guidance, parts.steps),
      device: uncondEmbedding.device,
    }),
  );
}
