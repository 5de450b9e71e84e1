/**
 * `emoji_clip_score`: does the picture show what the caption says? The cosine of picture and caption in the emoji
 * CLIP's space, moved and scaled so that captions of other scenes score 0 on average and true ones 1:
 *
 *   score = (cos(I, T) − cos_other) / (cos_true − cos_other)
 *
 * Not clipped: a particularly good match exceeds 1. Pictures of any size: the middle square, resized to the tower's
 * side with a low-pass filter where they are larger. Pictures and captions outside the emoji world have no meaningful
 * score, so the published reward `clip_score`, which is another CLIP's, is never filled with this one.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { cat, nn, noGrad, scope, type Tensor, tensor } from "@miro-t2i/torch";
import type { Autoencoder } from "../../autoencoder/index.js";
import { PatchAutoencoder } from "../../autoencoder/patch-autoencoder.js";
import { compiledModule } from "../../compiled-module.js";
import { InvalidInputError, MiroError } from "../../errors.js";
import type { RgbImage } from "../../pictures/rgb.js";
import { bundledFolder } from "../../pipeline/loading/bundled.js";
import { RELEASES } from "../../pipeline/loading/releases.js";
import type { LoadScorerOptions, ScorerModel, ScorerSpec } from "../../rewards/scorer.js";
import { T5Encoder } from "../../text/t5.js";
import { Tokenizer } from "../../text/tokenizer.js";
import type { EmojiClip } from "./emoji-clip.js";

const NAME = "emoji-clip";
/**
 * Pictures of one call; on a CPU they are computed one at a time all the same, so that a score does not depend on the
 * others.
 */
const BATCH = 64;

export const clipScoreSpec: ScorerSpec = {
  key: "emoji_clip_score",
  name: NAME,
  description: "how well picture and text agree, about 0 to 1 (small CLIP of the emoji scenes)",
  stage: "rewards",
  usesText: true,
  // What a model draws is told from the autoencoder that it was trained with, the emoji scenes' own, or from its name.
  refusal: ({ name, autoencoder }) =>
    (autoencoder === null ? !RELEASES.some(({ repository }) => repository === name) : isEmoji(autoencoder))
      ? null
      : `emoji_clip_score was trained on emoji scenes alone and cannot judge the pictures of ${name}; choose another scorer, for example sharpness`,
  module: compiledModule("emoji/register.js"),
  load: loadClipScore,
};

function isEmoji(autoencoder: Autoencoder): boolean {
  return autoencoder instanceof PatchAutoencoder;
}

async function loadClipScore({ device = "cpu", model, signal }: LoadScorerOptions): Promise<ScorerModel> {
  const folder = model ?? bundledFolder(NAME);
  if (folder === null)
    throw new InvalidInputError(
      `emoji_clip_score: models/${NAME} is not in this copy; make it with miro train emoji-clip`,
    );
  const { EmojiClip, textEncoderHash } = await import("./emoji-clip.js");
  const clip = EmojiClip.fromPretrained(folder, device);
  try {
    const textFolder = ownTextEncoder(folder, (own) => textEncoderHash(own) === clip.config.text_encoder_sha256);
    const tokenizer = await Tokenizer.fromFile(textFolder);
    const text = await T5Encoder.fromPretrained(textFolder, { device, signal });
    text.requiresGrad_(false).eval();
    if (text.config.dModel !== clip.config.text_dim)
      throw new MiroError(
        `${folder}/config.json: text_dim: expected ${text.config.dModel}, found ${clip.config.text_dim}`,
      );
    return new ClipScore(clip, tokenizer, text, device);
  } catch (error) {
    clip.dispose();
    throw error;
  }
}

/** The text encoder that the CLIP was trained with. */
function ownTextEncoder(folder: string, isOwn: (folder: string) => boolean): string {
  const own = join(folder, "text_encoder");
  if (!existsSync(join(own, "model.safetensors")))
    throw new MiroError(`${own}: not there; it is a part of the scorer: copy it with the rest`);
  if (!isOwn(own))
    throw new MiroError(`${own}: does not match the text encoder this scorer was trained with; restore the original`);
  return own;
}

class ClipScore implements ScorerModel {
  readonly name = NAME;
  readonly batchSize = BATCH;
  readonly #clip: EmojiClip;
  readonly #tokenizer: Tokenizer;
  readonly #text: T5Encoder;
  readonly #device: string;

  constructor(clip: EmojiClip, tokenizer: Tokenizer, text: T5Encoder, device: string) {
    this.#clip = clip;
    this.#tokenizer = tokenizer;
    this.#text = text;
    this.#device = device;
  }

  score(images: readonly RgbImage[], captions: readonly string[]): number[] {
    const { image_size, cosine_of_other, cosine_of_true } = this.#clip.config;
    return noGrad(() =>
      scope(() => {
        const texts = new Map<string, Tensor>();
        for (const caption of captions) if (!texts.has(caption)) texts.set(caption, this.#embedText(caption));
        const together = this.#device === "cpu" ? 1 : images.length;
        const scores: number[] = [];
        for (let start = 0; start < images.length; start += together) {
          const end = start + together;
          const pixels = images.slice(start, end).map((image) => prepare(image, image_size));
          const I = this.#clip.embedPictures(cat(pixels, 0).to({ device: this.#device }));
          const T = cat(
            captions.slice(start, end).map((caption) => texts.get(caption)!),
            0,
          );
          const cosines = I.mul(T).sum(1).toList() as number[];
          scores.push(...cosines.map((cosine) => (cosine - cosine_of_other) / (cosine_of_true - cosine_of_other)));
        }
        return scores;
      }),
    );
  }

  dispose(): void {
    this.#clip.dispose();
    this.#text.dispose();
  }

  #embedText(caption: string): Tensor {
    const { max_text_len: maxLength } = this.#clip.config;
    const { ids, mask } = this.#tokenizer.encodeBatch([caption], { maxLength, padTo: "longest" });
    const [onDevice, tokens] = [ids.to({ device: this.#device }), mask.to({ device: this.#device })];
    return this.#clip.embedTexts(this.#text.forward(onDevice, tokens), tokens);
  }
}

/**
 * The middle square as (1, 3, size, size) in [-1, 1], on the CPU: CUDA's filter refuses pictures that are reduced by
 * much, for want of shared memory, and a small picture is sent sooner.
 */
function prepare({ width, height, data }: RgbImage, size: number): Tensor {
  const side = Math.min(width, height);
  const square = tensor(data, { shape: [height, width, 3] })
    .narrow(0, (height - side) >> 1, side)
    .narrow(1, (width - side) >> 1, side)
    .permute(2, 0, 1)
    .unsqueeze(0)
    .float()
    .div(127.5)
    .sub(1);
  if (side === size) return square.contiguous();
  return nn.functional.interpolate(square, { size, mode: "bicubic", antialias: true }).clamp(-1, 1);
}
