/** Pictures of fixed prompts and seeds from the averaged network, so that the sheets of a run can be compared. */
import { full, noGrad, scope, type Tensor } from "@miro-t2i/torch";
import type { Autoencoder } from "../autoencoder/index.js";
import { guidedDenoise } from "../flow/guidance.js";
import { release } from "../flow/release.js";
import { euler } from "../flow/samplers.js";
import type { LinearSchedule } from "../flow/schedule.js";
import { type Conditioning, joinConditioning } from "../networks/conditioning.js";
import type { FlowPrecond } from "../networks/precond.js";
import type { Rin } from "../networks/rin.js";
import { contactSheet, toRgb } from "../pipeline/images.js";
import { initialNoise } from "../pipeline/noise.js";
import { denormalize } from "../pipeline/normalization.js";
import { encodePng } from "../pipeline/png.js";
import type { FrozenModels } from "./batches.js";

export interface SampleSheetOptions {
  network: Rin;
  preconditioning: FlowPrecond;
  schedule: LinearSchedule;
  frozen: FrozenModels;
  autoencoder: Autoencoder;
  prompts: readonly string[];
  maxTextLen: number;
  steps: number;
  guidanceScale: number;
  /** Every reward's target; the negative branch gets 0. */
  rewardTarget: number;
  /** Picture i uses seed + i. */
  seed: number;
  columns: number;
  signal?: AbortSignal;
}

/** Draws every prompt once and returns a PNG, prompts row by row. */
export async function drawSampleSheet(options: SampleSheetOptions): Promise<Uint8Array> {
  const { network, preconditioning, prompts, seed, signal } = options;
  const { numInputChannels: channels, dataSize: side } = network.config;
  const seeds = prompts.map((_, i) => seed + i);
  const wasTraining = preconditioning.training;
  network.eval();
  preconditioning.eval();
  const { both, conditional } = scope(() => noGrad(() => condition(options)));
  const noise = initialNoise(seeds, [channels, side, side]).to({ device: options.frozen.uncondEmbedding.device });
  try {
    const latents = await euler(
      guidedDenoise<Conditioning>({
        predict: (y, gamma, conditioning, previousLatents) =>
          preconditioning.apply(network, { y, gamma, conditioning, previousLatents, ...unread(y) }),
        guidance: { scale: options.guidanceScale, type: "constant", start: 0, end: null },
        both,
        conditional,
      }),
      noise,
      options.schedule.grid(options.steps),
      { signal },
    );
    const images = scope(() =>
      noGrad(() => {
        const { normalization } = options.frozen;
        return toRgb(
          options.autoencoder.decode(denormalize(latents.to({ device: normalization.scale.device }), normalization)),
        );
      }),
    );
    latents.dispose();
    const sheet = contactSheet(images, { columns: options.columns });
    return encodePng(sheet.data, sheet.width, sheet.height, [{ keyword: "prompts", text: prompts.join("\n") }]);
  } finally {
    noise.dispose();
    release({ both, conditional });
    preconditioning.train(wasTraining);
  }
}

/** The conditioning of all prompts, alone and followed by the unconditional one. */
function condition(options: SampleSheetOptions): { both: Conditioning; conditional: Conditioning } {
  const { network, prompts, rewardTarget } = options;
  const { tokenizer, encoder, uncondEmbedding } = options.frozen;
  const device = uncondEmbedding.device;
  const B = prompts.length;
  const rewards = (value: number) =>
    Object.fromEntries(
      network.config.coherenceKeys.map((key) => [key, full([B], value, { dtype: "float32", device })]),
    );
  const { ids, mask } = tokenizer.encodeBatch(prompts, { maxLength: options.maxTextLen, padTo: "longest" });
  const textMask = mask.to({ device });
  const conditional = network.condition({
    textEmbeddings: encoder.forward(ids.to({ device }), textMask),
    textMask,
    rewards: rewards(rewardTarget),
  });
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
