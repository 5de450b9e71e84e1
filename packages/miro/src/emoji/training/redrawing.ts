/**
 * Latents with a diffusion network's own error, for a decoder that is to mend it.
 *
 * The latents z of a scene are noised to a random signal level γ₀, and the network draws from there to the end, asked
 * for the scene's caption and rewards. What comes out shows the same scene with what the network leaves: neighbouring
 * cells that do not agree, and detail that is little more than noise. A decoder that is to give the true picture from
 * it learns which of the latents to trust, and draws an outline where the cells only hint at one.
 *
 *   y ← γ₀·z + (1 − γ₀)·n,   γ₀ ~ U(0, max_gamma) for each scene
 *   y ← y − (γ' − γ)·D(y; γ, caption, rewards)         `steps` Euler steps, spaced as the model's sampler spaces them
 */
import { noGrad, rand, randnLike, scope, type Tensor, tensor } from "@miro-t2i/torch";
import type { Autoencoder } from "../../autoencoder/autoencoder.js";
import { denormalize, normalize } from "../../autoencoder/normalization.js";
import { invalid } from "../../errors.js";
import { release } from "../../flow/release.js";
import { message } from "../../message.js";
import type { RinConfig } from "../../networks/config.js";
import type { Rin } from "../../networks/rin.js";
import { parseOptions } from "../../options.js";
import { modelOrBundled } from "../../pipeline/loading/bundled.js";
import type { Checkpoint } from "../../pipeline/loading/checkpoint.js";
import { loadSchema } from "../../pipeline/loading/load-options.js";
import { loadParts, Part, type TextEncoder } from "../../pipeline/loading/parts.js";
import { samplerDefaults } from "../../pipeline/loading/release-config.js";
import type { Scene } from "../scenes/scenes.js";

export interface RedrawingOptions {
  /** A release folder or a run. */
  model: string;
  /** Largest signal level at which the drawing begins. */
  maxGamma: number;
  steps: number;
}

type Model = Omit<Checkpoint, "network"> & { network: Rin } & TextEncoder;

/** γ is never 0 in training. */
const LEAST_GAMMA = 1e-9;

/** @throws InvalidInputError where a network knows other latents than those of scenes of `size` pixels */
export function checkLatents(
  { dataSize, numInputChannels }: Pick<RinConfig, "dataSize" | "numInputChannels">,
  { autoencoder, size }: { autoencoder: Pick<Autoencoder, "downsampling" | "latentChannels">; size: number },
  model: string,
): void {
  const side = size / autoencoder.downsampling;
  if (dataSize !== side || numInputChannels !== autoencoder.latentChannels)
    throw invalid(
      "loss.redrawn.model",
      `a model of latents ${autoencoder.latentChannels} × ${side} × ${side}`,
      message`${model} of ${numInputChannels} × ${dataSize} × ${dataSize}`,
    );
}

/** A frozen model that redraws scenes. */
export class Redrawing {
  readonly #model: Model;
  readonly #options: RedrawingOptions;
  readonly #device: string;

  private constructor(model: Model, options: RedrawingOptions, device: string) {
    this.#model = model;
    this.#options = options;
    this.#device = device;
  }

  /**
   * Loads the model.
   * @param autoencoder encodes the scenes, whose side is `size` pixels; the model must know such latents
   */
  static async load(
    options: RedrawingOptions,
    { autoencoder, size, device }: { autoencoder: Autoencoder; size: number; device: string },
  ): Promise<Redrawing> {
    const parts = await loadParts(
      modelOrBundled(options.model),
      parseOptions(loadSchema, { device, dtype: "float32" }),
    );
    // Its own decoder is of no use here.
    if (parts.autoencoder instanceof Part) parts.autoencoder.free();
    else parts.autoencoder.dispose();
    checkLatents(parts.config.network, { autoencoder, size }, options.model);
    const network = parts.network instanceof Part ? parts.network.module : parts.network;
    const text = await parts.loadTextEncoder();
    return new Redrawing({ ...parts, network, ...text }, options, device);
  }

  /** Latents (B, C, h, w) as the autoencoder gives them → the same scenes, redrawn. The caller owns the result. */
  redraw(latents: Tensor, scenes: readonly Scene[]): Tensor {
    const { config, network, preconditioning, preprocessing, postprocessing } = this.#model;
    const { steps, maxGamma } = this.#options;
    const { shift } = samplerDefaults(config.settings);
    return scope(() =>
      noGrad(() => {
        const conditioning = this.#condition(scenes);
        const x0 = normalize(latents, preprocessing);
        const begin = rand([scenes.length, 1, 1, 1], { device: this.#device }).mul(maxGamma).clamp(LEAST_GAMMA, 1);
        // Equal steps in u, of which the sampler's levels are γ = shift·u / (1 + (shift − 1)·u).
        const u0 = begin.div(begin.mul(1 - shift).add(shift));
        const levelAt = (step: number): Tensor => {
          const u = u0.add(
            u0
              .neg()
              .add(1)
              .mul(step / steps),
          );
          return u.mul(shift).div(u.mul(shift - 1).add(1));
        };
        let y = x0.mul(begin).add(randnLike(x0).mul(begin.neg().add(1)));
        let previousLatents: Tensor | null = null;
        let gamma = begin;
        for (let step = 1; step <= steps; step++) {
          const input = { y, gamma: gamma.flatten(), conditioning, previousLatents };
          const { D, z } = preconditioning.apply(network, input);
          const next = levelAt(step);
          y = y.sub(next.sub(gamma).mul(D));
          previousLatents = z;
          gamma = next;
        }
        return denormalize(y, postprocessing);
      }),
    );
  }

  dispose(): void {
    const { network, preconditioning, encoder, preprocessing, postprocessing, uncondEmbedding } = this.#model;
    for (const module of [network, preconditioning, encoder]) module.dispose();
    release([preprocessing, postprocessing, uncondEmbedding]);
  }

  /** The scenes' true captions and the rewards that their pictures have. */
  #condition(scenes: readonly Scene[]) {
    const { config, network, tokenizer, encoder } = this.#model;
    const device = this.#device;
    const maxLength = config.settings.max_text_len;
    const padTo = config.network.concatCondTokenToLatents ? "maxLength" : "longest";
    const encoded = tokenizer.encodeBatch(
      scenes.map(({ trueCaption }) => trueCaption),
      { maxLength, padTo },
    );
    const [ids, textMask] = [encoded.ids.to({ device }), encoded.mask.to({ device })];
    const rewards = Object.fromEntries(
      config.coherenceKeys.map((key) => [
        key,
        tensor(
          scenes.map((scene) => (key === "clip_score" ? 1 : (scene.rewards as Record<string, number>)[key])!),
          { dtype: "float32", device },
        ),
      ]),
    );
    return network.condition({ textEmbeddings: encoder.forward(ids, textMask).float(), textMask, rewards });
  }
}
