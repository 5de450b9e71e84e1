/**
 * A small, fast autoencoder for pictures with smooth surfaces, made for training within minutes on a CPU.
 *
 * The first three latents are the mean colour of each cell in opponent coordinates, a fixed linear map; the others are
 * learned detail. The decoder adds a network's output to the bicubic interpolation of the colours. So the latents look
 * like a small picture, which is what a denoiser learns soonest, large areas have their exact colour before the first
 * step of training, and the networks only have to say what is inside the cells.
 *
 * The networks work on patches instead of strided convolutions: pixel-unshuffle brings the picture to a
 * `1 / patch_size` grid, residual blocks work there and once more at half of it, and the decoder mirrors this with
 * pixel-shuffle. Norms are taken over the channels of each position alone: a group norm over the whole picture mixes
 * object and background.
 *
 * Shapes: B batch, C channels, H and W sides of the picture, p `patch_size`; latents are (B, latent_channels, H/2p,
 * W/2p).
 */
import { cat, nn, noGrad, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { takeAll } from "@miro-t2i/torch/io";
import { z } from "zod";
import { checkObject } from "../arguments.js";
import { invalid } from "../errors.js";
import { message } from "../message.js";
import { setting } from "../options.js";
import type { Pieces } from "../pieces.js";
import type { Autoencoder, LatentDistribution, LoadAutoencoderOptions } from "./autoencoder.js";
import { loadWeights, parseConfig, readConfig } from "./weights.js";

const { avgPool2d, conv2d, interpolate, layerNorm, pixelShuffle, pixelUnshuffle, silu } = nn.functional;
const EPS = 1e-6;

/** Bounds that no real autoencoder comes near. */
const count = z.int().nonnegative().max(256);
const width = z.int().positive().max(16_384);
export const patchAutoencoderConfigSchema = z.object({
  _class_name: setting(z.literal("PatchAutoencoder").default("PatchAutoencoder"), "what this is the configuration of"),
  patch_size: setting(
    z.int().positive().max(64).default(4),
    "pixels along a side of the finer grid's cells; the coarser grid, that of the latents, has cells twice as wide",
  ),
  channels: setting(z.tuple([width, width]).default([32, 64]), "channels on the finer and on the coarser grid"),
  latent_channels: setting(z.int().min(4).max(1024).default(4), "channels of the latents"),
  encoder_blocks: setting(
    z.tuple([count, count]).default([0, 1]),
    "residual blocks of the encoder on the finer and on the coarser grid",
  ),
  decoder_blocks: setting(
    z.tuple([count, count]).default([1, 2]),
    "residual blocks of the decoder on the finer and on the coarser grid",
  ),
});

/** `config.json` of a PatchAutoencoder. */
export type PatchAutoencoderConfig = z.output<typeof patchAutoencoderConfigSchema>;

/**
 * Checks the content of a `config.json`.
 *
 * @param source the file, for messages
 * @throws InvalidInputError naming every field that is wrong
 */
export function parsePatchAutoencoderConfig(json: unknown, source = "PatchAutoencoder"): PatchAutoencoderConfig {
  return parseConfig(patchAutoencoderConfigSchema, json, source);
}

/**
 * RGB → intensity, red against green, yellow against blue. The rows are orthogonal; emoji scenes have a deviation near
 * 0.6 in each.
 */
const OPPONENT = [
  [0.46, 0.46, 0.46],
  [1.12, -1.12, 0],
  [0.6, 0.6, -1.2],
];
/** The inverse: the transpose with each row over its squared length. */
const OPPONENT_INVERSE = [0, 1, 2].map((rgb) =>
  OPPONENT.map((row) => row[rgb]! / row.reduce((sum, value) => sum + value * value, 0)),
);
/** The bundled model's autoencoder: patches of pixels to latents and back. */
export class PatchAutoencoder extends nn.Module implements Autoencoder {
  readonly config: PatchAutoencoderConfig;
  readonly latentChannels: number;
  readonly downsampling: number;
  readonly #encoder: Encoder;
  readonly #decoder: Decoder;

  /** @param config as in `config.json`; missing fields have the bundled model's values */
  constructor(config: unknown = {}) {
    super();
    this.config = parsePatchAutoencoderConfig(config);
    this.latentChannels = this.config.latent_channels;
    this.downsampling = 2 * this.config.patch_size;
    this.#encoder = this.register("encoder", new Encoder(this.config));
    this.#decoder = this.register("decoder", new Decoder(this.config));
  }

  /**
   * Loads a folder with `config.json` and weights, in evaluation mode.
   * @throws MiroError or TorchError naming the file and what is wrong with it
   */
  static fromPretrained(folder: string, options: LoadAutoencoderOptions = {}): PatchAutoencoder {
    return takeAll(PatchAutoencoder.loading(folder, options));
  }

  /** As {@link fromPretrained}, in pieces. */
  static *loading(folder: string, options: LoadAutoencoderOptions = {}): Pieces<PatchAutoencoder> {
    checkObject("options", options, "{ dtype, device }");
    const { dtype = "float32", device = "cpu" } = options;
    const config = parsePatchAutoencoderConfig(readConfig(folder), `${folder}/config.json`);
    const { channels, encoder_blocks, decoder_blocks } = config;
    // Two convolutions in each residual block.
    const leastWeights = channels.reduce(
      (sum, width, i) => sum + (encoder_blocks[i]! + decoder_blocks[i]!) * 2 * 9 * width ** 2,
      0,
    );
    const plan = { leastWeights, create: () => new PatchAutoencoder(config) };
    return yield* loadWeights(folder, plan, { dtype, device });
  }

  /**
   * The same autoencoder with more residual blocks in its decoder: those behind the others change nothing until they
   * are trained. The caller owns it.
   * @param blocks on the finer and on the coarser grid
   */
  withDecoderBlocks(blocks: PatchAutoencoderConfig["decoder_blocks"]): PatchAutoencoder {
    const { decoder_blocks: own } = this.config;
    if (blocks.some((count, grid) => count < own[grid]!))
      throw invalid(
        "decoder_blocks",
        `at least the ${own.join(" and ")} that the autoencoder has`,
        blocks.join(" and "),
      );
    const grown = new PatchAutoencoder({ ...this.config, decoder_blocks: blocks });
    const weights = this.stateDict();
    noGrad(() =>
      scope(() => {
        for (const [name, value] of grown.stateDict()) {
          const known = weights.get(name);
          if (known !== undefined) value.copy_(known);
          // The second convolution's weight begins at zero, its bias does not.
          else if (name.endsWith("conv2.bias")) value.zero_();
        }
      }),
    );
    return grown;
  }

  /** Turns gradients on for the decoder and off for the encoder. */
  trainDecoderOnly(): this {
    this.#encoder.requiresGrad_(false);
    this.#decoder.requiresGrad_(true);
    return this;
  }

  /** The encoder is deterministic: the standard deviation is zero. */
  encode(pictures: Tensor): LatentDistribution {
    const [, C, H = 0, W = 0] = pictures.shape;
    if (pictures.ndim !== 4 || C !== 3 || H % this.downsampling !== 0 || W % this.downsampling !== 0) {
      throw invalid(
        "pictures",
        `shape (batch, 3, H, W), sides multiples of ${this.downsampling}`,
        message`(${pictures.shape.join(", ")})`,
      );
    }
    return scope(() => {
      const mean = this.#encoder.forward(pictures.to(this.#encoder.dtype)).float().contiguous();
      return { mean, std: noGrad(() => mean.detach().mul(0)) };
    });
  }

  decode(latents: Tensor): Tensor {
    if (latents.ndim !== 4 || latents.shape[1] !== this.latentChannels) {
      throw invalid("latents", `shape (batch, ${this.latentChannels}, h, w)`, message`(${latents.shape.join(", ")})`);
    }
    return scope(() => this.#decoder.forward(latents.to(this.#decoder.dtype)).float().contiguous());
  }
}

/** (B, 3, H, W) → (B, latent channels, H/2p, W/2p) */
class Encoder extends nn.Module {
  readonly #patchIn: nn.Conv2d;
  readonly #fineBlocks: nn.ModuleList<ResidualBlock>;
  readonly #merge: nn.Conv2d;
  readonly #coarseBlocks: nn.ModuleList<ResidualBlock>;
  readonly #normOut: ChannelNorm;
  readonly #detailOut: nn.Conv2d;
  readonly #c: PatchAutoencoderConfig;

  constructor(c: PatchAutoencoderConfig) {
    super();
    this.#c = c;
    const [fine, coarse] = c.channels;
    this.#patchIn = this.register("patch_in", new nn.Conv2d(3 * c.patch_size ** 2, fine, 1));
    this.#fineBlocks = this.register("fine_blocks", residualBlocks(fine, c.encoder_blocks[0]));
    this.#merge = this.register("merge", new nn.Conv2d(4 * fine, coarse, 1));
    this.#coarseBlocks = this.register("coarse_blocks", residualBlocks(coarse, c.encoder_blocks[1]));
    this.#normOut = this.register("norm_out", new ChannelNorm(coarse));
    this.#detailOut = this.register("detail_out", new nn.Conv2d(coarse, c.latent_channels - 3, 1));
  }

  get dtype() {
    return this.#patchIn.weight.dtype;
  }

  forward(x: Tensor): Tensor {
    const p = this.#c.patch_size;
    let h = this.#patchIn.forward(channelsLast(pixelUnshuffle(x, p)));
    for (const block of this.#fineBlocks.items) h = block.forward(h);
    h = this.#merge.forward(pixelUnshuffle(h, 2));
    for (const block of this.#coarseBlocks.items) h = block.forward(h);
    return cat([mapChannels(avgPool2d(x, 2 * p), OPPONENT), this.#detailOut.forward(this.#normOut.forward(h))], 1);
  }
}

/** (B, latent channels, h, w) → (B, 3, h·2p, w·2p) */
class Decoder extends nn.Module {
  readonly #latentIn: nn.Conv2d;
  readonly #coarseBlocks: nn.ModuleList<ResidualBlock>;
  readonly #coarseNorm: ChannelNorm;
  readonly #split: nn.Conv2d;
  readonly #fineBlocks: nn.ModuleList<ResidualBlock>;
  readonly #fineNorm: ChannelNorm;
  readonly #patchOut: nn.Conv2d;
  readonly #c: PatchAutoencoderConfig;

  constructor(c: PatchAutoencoderConfig) {
    super();
    this.#c = c;
    const [fine, coarse] = c.channels;
    this.#latentIn = this.register("latent_in", new nn.Conv2d(c.latent_channels, coarse, 3, { padding: 1 }));
    this.#coarseBlocks = this.register("coarse_blocks", residualBlocks(coarse, c.decoder_blocks[1]));
    this.#coarseNorm = this.register("coarse_norm", new ChannelNorm(coarse));
    this.#split = this.register("split", new nn.Conv2d(coarse, 4 * fine, 1));
    this.#fineBlocks = this.register("fine_blocks", residualBlocks(fine, c.decoder_blocks[0]));
    this.#fineNorm = this.register("fine_norm", new ChannelNorm(fine));
    this.#patchOut = this.register("patch_out", new nn.Conv2d(fine, 3 * c.patch_size ** 2, 1));
    // At first the picture is the interpolated colours alone.
    nn.init.zeros_(this.#patchOut.weight);
    nn.init.zeros_(this.#patchOut.bias!);
  }

  get dtype() {
    return this.#patchOut.weight.dtype;
  }

  forward(latents: Tensor): Tensor {
    const p = this.#c.patch_size;
    let h = this.#latentIn.forward(channelsLast(latents));
    for (const block of this.#coarseBlocks.items) h = block.forward(h);
    h = pixelShuffle(this.#split.forward(this.#coarseNorm.forward(h)), 2);
    for (const block of this.#fineBlocks.items) h = block.forward(h);
    const detail = pixelShuffle(this.#patchOut.forward(this.#fineNorm.forward(h)), p);
    const colours = mapChannels(latents.narrow(1, 0, 3), OPPONENT_INVERSE);
    return detail.add(interpolate(colours, { scaleFactor: 2 * p, mode: "bicubic" }));
  }
}

/** x + conv(SiLU(conv(norm(x)))), the second convolution starting at zero. */
class ResidualBlock extends nn.Module {
  readonly #norm: ChannelNorm;
  readonly #conv1: nn.Conv2d;
  readonly #conv2: nn.Conv2d;

  constructor(channels: number) {
    super();
    this.#norm = this.register("norm", new ChannelNorm(channels));
    this.#conv1 = this.register("conv1", new nn.Conv2d(channels, channels, 3, { padding: 1 }));
    this.#conv2 = this.register("conv2", new nn.Conv2d(channels, channels, 3, { padding: 1 }));
    nn.init.zeros_(this.#conv2.weight);
  }

  forward(x: Tensor): Tensor {
    return x.add(this.#conv2.forward(silu(this.#conv1.forward(this.#norm.forward(x)))));
  }
}

/** Layer norm over the channels of each position of (B, C, H, W). */
class ChannelNorm extends nn.Module {
  readonly #weight: Tensor;
  readonly #bias: Tensor;
  readonly #channels: number;

  constructor(channels: number) {
    super();
    this.#channels = channels;
    this.#weight = this.parameter("weight", tensor(new Float32Array(channels).fill(1)));
    this.#bias = this.parameter("bias", tensor(new Float32Array(channels)));
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x.permute(0, 2, 3, 1), [this.#channels], this.#weight, this.#bias, EPS).permute(0, 3, 1, 2);
  }
}

function residualBlocks(channels: number, blocks: number): nn.ModuleList<ResidualBlock> {
  return new nn.ModuleList(Array.from({ length: blocks }, () => new ResidualBlock(channels)));
}

/** (B, 3, H, W) → (B, 3, H, W): each position's channels times a 3 × 3 matrix. */
function mapChannels(x: Tensor, matrix: number[][]): Tensor {
  return conv2d(x, tensor(matrix, { dtype: x.dtype, device: x.device }).view(3, 3, 1, 1));
}

/**
 * The same values with the channels of a position beside each other in memory: what convolution and norm work on
 * fastest.
 */
function channelsLast(x: Tensor): Tensor {
  return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2);
}
