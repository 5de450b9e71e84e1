/**
 * A small CLIP (Radford et al. 2021) for the bundled model's world: pictures and captions as unit vectors of one space.
 *
 *   picture (3, S, S) → PictureTower → all places, flattened → linear → I / ‖I‖
 *   caption → a frozen text encoder → states (T, D)
 *           → a = softmax over tokens of (A·LN(states)), H heads;  v = gelu(V·LN(states));  linear(Σ a v) → T / ‖T‖
 *
 * The text encoder lies beside the weights, in `text_encoder/`; `text_encoder_sha256` makes sure that it is the one
 * that the projection was trained for.
 *
 * Shapes: B pictures or captions, T tokens, D width of the text states, H heads, E shared width.
 */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { nn, scope, type Tensor } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { z } from "zod";
import { InvalidInputError } from "../../errors.js";
import { parseJsonFile } from "../../files/json-file.js";
import { isFolder } from "../../files/make-folder.js";
import { readBytes } from "../../files/whole-files.js";
import { PictureTower } from "./picture-tower.js";

const { gelu, layerNorm, normalize, softmax } = nn.functional;

const width = z.int().min(8).max(4096);

const configSchema = z.object({
  model_type: z.literal("emoji-clip").default("emoji-clip"),
  /** Side of the pictures that the tower sees. */
  image_size: z.int().min(16).max(512).multipleOf(16).default(64),
  /** Channels of the tower's four stages. */
  tower_widths: z.array(width.multipleOf(8)).length(4).default([32, 64, 128, 128]),
  /** Width of the text encoder's states. */
  text_dim: width.default(128),
  text_heads: z.int().min(1).max(64).default(4),
  text_hidden: width.default(64),
  /** Width of the common space. */
  shared_dim: width.default(128),
  /** Captions are cut behind this many tokens. */
  max_text_len: z.int().min(2).max(4096).default(32),
  /** The cosines that become the scores 0 and 1: the means over captions of other scenes, and over true ones. */
  cosine_of_other: z.number().default(0),
  cosine_of_true: z.number().default(1),
  /** SHA-256 of the text encoder's model.safetensors. */
  text_encoder_sha256: z.string().regex(/^[0-9a-f]{64}$/),
});

/** `config.json` of an emoji CLIP. */
export type EmojiClipConfig = z.output<typeof configSchema>;

export class EmojiClip extends nn.Module {
  readonly config: EmojiClipConfig;
  readonly #tower: PictureTower;
  readonly #pictureProjection: nn.Linear;
  readonly #attention: nn.Linear;
  readonly #value: nn.Linear;
  readonly #textProjection: nn.Linear;

  /** @param config as in `config.json`; missing fields have the values of the released model */
  constructor(config: z.input<typeof configSchema>) {
    super();
    this.config = configSchema.parse(config);
    const { image_size, tower_widths, text_dim, text_heads, text_hidden, shared_dim } = this.config;
    this.#tower = this.register("tower", new PictureTower(tower_widths));
    // All places are kept apart, so that left and right can be distinguished.
    const features = this.#tower.channels * (image_size / 16) ** 2;
    const linear = (dimIn: number, dimOut: number) => new nn.Linear(dimIn, dimOut, { bias: false });
    this.#pictureProjection = this.register("picture_projection", linear(features, shared_dim));
    this.#attention = this.register("text_attention", linear(text_dim, text_heads));
    this.#value = this.register("text_value", linear(text_dim, text_hidden * text_heads));
    this.#textProjection = this.register("text_projection", linear(text_hidden * text_heads, shared_dim));
  }

  /**
   * Loads a folder with `config.json` and `model.safetensors`, in evaluation mode.
   * @throws MiroError or TorchError naming the file and what is wrong with it
   */
  static fromPretrained(folder: string, device = "cpu"): EmojiClip {
    const path = join(folder, "config.json");
    if (!existsSync(path)) {
      const what =
        existsSync(folder) && !isFolder(folder) ? `${folder}: is a file, not a folder` : `${path}: no such file`;
      throw new InvalidInputError(`${what}; make a CLIP with: miro train emoji-clip`);
    }
    const config = parseJsonFile(path, configSchema);
    return scope(() => {
      const model = nn.init.skipped(() => new EmojiClip(config));
      model.loadStateDict(readSafetensors(join(folder, "model.safetensors")));
      return model.to({ device }).requiresGrad_(false).eval() as EmojiClip;
    });
  }

  /** (B, 3, S, S) in [-1, 1] → unit vectors (B, E) */
  embedPictures(x: Tensor): Tensor {
    return normalize(this.#pictureProjection.forward(this.#tower.forward(x).flatten(1)));
  }

  /** Text states (B, T, D) and mask (B, T), true on tokens → unit vectors (B, E) */
  embedTexts(states: Tensor, mask: Tensor): Tensor {
    const { text_dim, text_heads: H, text_hidden } = this.config;
    const h = layerNorm(states, [text_dim]);
    const logits_BHT = this.#attention.forward(h).transpose(1, 2).maskedFill(mask.logicalNot().unsqueeze(1), -1e4);
    const [B, T] = mask.shape as [number, number];
    const value_BHTV = gelu(this.#value.forward(h)).view(B, T, H, text_hidden).transpose(1, 2);
    const pooled = softmax(logits_BHT, -1).unsqueeze(2).matmul(value_BHTV);
    return normalize(this.#textProjection.forward(pooled.flatten(1)));
  }
}

/** The hash that `text_encoder_sha256` holds. */
export function textEncoderHash(folder: string): string {
  return createHash("sha256")
    .update(readBytes(join(folder, "model.safetensors")))
    .digest("hex");
}
