/**
 * AutoencoderKL in diffusers' layout: the convolutional autoencoder of latent diffusion (Rombach et al. 2022) that SDXL
 * uses.
 *
 * Shapes: B batch, C channels, H and W the sides at the resolution of the layer. Picture 3 channels, latents usually 4.
 * All norms are group norms with epsilon 1e-6, the activation is SiLU. Channels come first in memory: with channels
 * last oneDNN's float32 convolutions are up to 40 % faster, but ten times less exact.
 */
import { cat, nn, scope, type Tensor } from "@miro-t2i/torch";
import { takeAll } from "@miro-t2i/torch/io";
import { z } from "zod";
import { checkObject } from "../arguments.js";
import { invalid } from "../errors.js";
import { message } from "../message.js";
import type { Pieces } from "../pieces.js";
import type { Autoencoder, LatentDistribution, LoadAutoencoderOptions } from "./autoencoder.js";
import { loadWeights, parseConfig, readConfig } from "./weights.js";

const { silu } = nn.functional;
const EPS = 1e-6;
/** Latent pixels decoded at once: bounds the memory of the widest activations whatever the batch. */
const LATENT_PIXELS_AT_ONCE = 8 * 32 * 32;

/** Bounds that no real autoencoder comes near. */
const size = z.int().positive().max(65_536);
const configSchema = z
  .object({
    _class_name: z.literal("AutoencoderKL").optional(),
    in_channels: size.default(3),
    out_channels: size.default(3),
    latent_channels: size.default(4),
    block_out_channels: z.array(size).min(1).max(16),
    layers_per_block: size.max(64).default(1),
    norm_num_groups: size.default(32),
    act_fn: z.literal("silu").default("silu"),
    down_block_types: z.array(z.literal("DownEncoderBlock2D")).min(1).max(16),
    up_block_types: z.array(z.literal("UpDecoderBlock2D")).min(1).max(16),
    mid_block_add_attention: z.boolean().default(true),
    use_quant_conv: z.boolean().default(true),
    use_post_quant_conv: z.boolean().default(true),
    scaling_factor: z.number().positive().default(0.18215),
  })
  .superRefine((c, ctx) => {
    const levels = c.block_out_channels.length;
    for (const key of ["down_block_types", "up_block_types"] as const) {
      if (c[key].length !== levels)
        ctx.addIssue({ code: "custom", path: [key], message: `must have ${levels} entries like block_out_channels` });
    }
    if (c.block_out_channels.some((channels) => channels % c.norm_num_groups !== 0)) {
      ctx.addIssue({
        code: "custom",
        path: ["norm_num_groups"],
        message: "must divide every entry of block_out_channels",
      });
    }
  });

/** `config.json` of an AutoencoderKL, what this implementation reads of it. */
export type AutoencoderKLConfig = z.output<typeof configSchema>;

/**
 * Checks the content of a `config.json`.
 *
 * @param source the file, for messages
 * @throws InvalidInputError naming every field that is missing or not supported
 */
export function parseAutoencoderKLConfig(json: unknown, source = "AutoencoderKL"): AutoencoderKLConfig {
  return parseConfig(configSchema, json, source);
}

/** The autoencoder of Stable Diffusion XL: pictures (B, 3, H, W) in [-1, 1] to latents (B, C, H/8, W/8) and back. */
export class AutoencoderKL extends nn.Module implements Autoencoder {
  readonly config: AutoencoderKLConfig;
  readonly latentChannels: number;
  readonly downsampling: number;
  readonly #encoder: Encoder;
  readonly #decoder: Decoder;
  readonly #quantConv: nn.Conv2d | null;
  readonly #postQuantConv: nn.Conv2d | null;

  /** @param config as in `config.json` */
  constructor(config: unknown) {
    super();
    const c = parseAutoencoderKLConfig(config);
    this.config = c;
    this.latentChannels = c.latent_channels;
    this.downsampling = 2 ** (c.block_out_channels.length - 1);
    this.#encoder = this.register("encoder", new Encoder(c));
    this.#decoder = this.register("decoder", new Decoder(c));
    const latents = c.latent_channels;
    this.#quantConv = c.use_quant_conv ? this.register("quant_conv", new nn.Conv2d(2 * latents, 2 * latents, 1)) : null;
    this.#postQuantConv = c.use_post_quant_conv
      ? this.register("post_quant_conv", new nn.Conv2d(latents, latents, 1))
      : null;
  }

  /**
   * Loads a folder with `config.json` and weights, in evaluation mode.
   * @throws MiroError or TorchError naming the file and what is wrong with it
   */
  static fromPretrained(folder: string, options: LoadAutoencoderOptions = {}): AutoencoderKL {
    return takeAll(AutoencoderKL.loading(folder, options));
  }

  /** As {@link fromPretrained}, in pieces. */
  static *loading(folder: string, options: LoadAutoencoderOptions = {}): Pieces<AutoencoderKL> {
    checkObject("options", options, "{ dtype, device }");
    const { dtype = "float32", device = "cpu" } = options;
    const config = parseAutoencoderKLConfig(readConfig(folder), `${folder}/config.json`);
    const widths = config.block_out_channels;
    return yield* loadWeights(
      folder,
      {
        // The convolutions of the residual blocks that keep their width, in encoder and decoder.
        leastWeights: 2 * widths.reduce((sum, width) => sum + config.layers_per_block * 9 * width ** 2, 0),
        create: () => new AutoencoderKL(config),
        rename: currentName,
      },
      { dtype, device },
    );
  }

  encode(pictures: Tensor): LatentDistribution {
    const { in_channels: channels } = this.config;
    const [, C, H = 0, W = 0] = pictures.shape;
    if (pictures.ndim !== 4 || C !== channels || H % this.downsampling !== 0 || W % this.downsampling !== 0) {
      throw invalid(
        "pictures",
        `shape (batch, ${channels}, H, W), sides multiples of ${this.downsampling}`,
        message`(${pictures.shape.join(", ")})`,
      );
    }
    return scope(() => {
      const h = this.#encoder.forward(pictures.to(this.#encoder.dtype));
      const moments = (this.#quantConv?.forward(h) ?? h).float();
      const [mean, logVariance] = moments.chunk(2, 1) as [Tensor, Tensor];
      return { mean: mean.contiguous(), std: logVariance.clamp(-30, 20).mul(0.5).exp() };
    });
  }

  decode(latents: Tensor): Tensor {
    const [B = 0, C, h = 0, w = 0] = latents.shape;
    if (latents.ndim !== 4 || C !== this.latentChannels) {
      throw invalid("latents", `shape (batch, ${this.latentChannels}, h, w)`, message`(${latents.shape.join(", ")})`);
    }
    const atOnce = Math.max(1, Math.floor(LATENT_PIXELS_AT_ONCE / (h * w)));
    if (B <= atOnce) return this.#decodeChunk(latents);
    return scope(() =>
      cat(
        latents.split(atOnce, 0).map((chunk) => this.#decodeChunk(chunk)),
        0,
      ),
    );
  }

  #decodeChunk(latents: Tensor): Tensor {
    return scope(() => {
      const z = latents.to(this.#decoder.dtype);
      return this.#decoder.forward(this.#postQuantConv?.forward(z) ?? z).float();
    });
  }
}

/** (B, 3, H, W) → moments (B, 2 · latent channels, h, w) */
class Encoder extends nn.Module {
  readonly #convIn: nn.Conv2d;
  readonly #downBlocks: nn.ModuleList<DownBlock>;
  readonly #midBlock: MidBlock;
  readonly #normOut: nn.GroupNorm;
  readonly #convOut: nn.Conv2d;

  constructor(c: AutoencoderKLConfig) {
    super();
    const widths = c.block_out_channels;
    const last = widths.at(-1)!;
    this.#convIn = this.register("conv_in", conv3(c.in_channels, widths[0]!));
    const block = (width: number, i: number) => new DownBlock(widths[i - 1] ?? width, width, i < widths.length - 1, c);
    this.#downBlocks = this.register("down_blocks", new nn.ModuleList(widths.map(block)));
    this.#midBlock = this.register("mid_block", new MidBlock(last, c));
    this.#normOut = this.register("conv_norm_out", norm(last, c));
    this.#convOut = this.register("conv_out", conv3(last, 2 * c.latent_channels));
  }

  get dtype() {
    return this.#convIn.weight.dtype;
  }

  forward(x: Tensor): Tensor {
    const steps = [this.#convIn, ...this.#downBlocks.items, this.#midBlock];
    return this.#convOut.forward(silu(this.#normOut.forward(inTurn(steps, x))));
  }
}

/** (B, latent channels, h, w) → (B, 3, H, W) */
class Decoder extends nn.Module {
  readonly #convIn: nn.Conv2d;
  readonly #upBlocks: nn.ModuleList<UpBlock>;
  readonly #midBlock: MidBlock;
  readonly #normOut: nn.GroupNorm;
  readonly #convOut: nn.Conv2d;

  constructor(c: AutoencoderKLConfig) {
    super();
    const widths = c.block_out_channels.toReversed();
    const [first, last] = [widths[0]!, widths.at(-1)!];
    this.#convIn = this.register("conv_in", conv3(c.latent_channels, first));
    const block = (width: number, i: number) => new UpBlock(widths[i - 1] ?? width, width, i < widths.length - 1, c);
    this.#upBlocks = this.register("up_blocks", new nn.ModuleList(widths.map(block)));
    this.#midBlock = this.register("mid_block", new MidBlock(first, c));
    this.#normOut = this.register("conv_norm_out", norm(last, c));
    this.#convOut = this.register("conv_out", conv3(last, c.out_channels));
  }

  get dtype() {
    return this.#convIn.weight.dtype;
  }

  forward(z: Tensor): Tensor {
    const steps = [this.#convIn, this.#midBlock, ...this.#upBlocks.items];
    return this.#convOut.forward(silu(this.#normOut.forward(inTurn(steps, z))));
  }
}

/** Residual blocks, then halving of the resolution: a convolution of stride 2 over a picture padded right and below. */
class DownBlock extends nn.Module {
  readonly #resnets: nn.ModuleList<ResnetBlock>;
  readonly #downsampler: nn.Conv2d | null;

  constructor(dimIn: number, dim: number, downsample: boolean, c: AutoencoderKLConfig) {
    super();
    const block = (_: unknown, i: number) => new ResnetBlock(i === 0 ? dimIn : dim, dim, c);
    this.#resnets = this.register("resnets", new nn.ModuleList(Array.from({ length: c.layers_per_block }, block)));
    const sampler = downsample ? new Resampler(new nn.Conv2d(dim, dim, 3, { stride: 2 })) : null;
    this.#downsampler = sampler && this.register("downsamplers", new nn.ModuleList([sampler])).items[0]!.conv;
  }

  forward(x: Tensor): Tensor {
    const h = inTurn(this.#resnets.items, x);
    return this.#downsampler?.forward(nn.functional.pad(h, [0, 1, 0, 1])) ?? h;
  }
}

/** Residual blocks, then doubling of the resolution: nearest neighbours and a convolution. */
class UpBlock extends nn.Module {
  readonly #resnets: nn.ModuleList<ResnetBlock>;
  readonly #upsampler: nn.Conv2d | null;

  constructor(dimIn: number, dim: number, upsample: boolean, c: AutoencoderKLConfig) {
    super();
    const block = (_: unknown, i: number) => new ResnetBlock(i === 0 ? dimIn : dim, dim, c);
    this.#resnets = this.register("resnets", new nn.ModuleList(Array.from({ length: c.layers_per_block + 1 }, block)));
    const sampler = upsample ? new Resampler(conv3(dim, dim)) : null;
    this.#upsampler = sampler && this.register("upsamplers", new nn.ModuleList([sampler])).items[0]!.conv;
  }

  forward(x: Tensor): Tensor {
    const h = inTurn(this.#resnets.items, x);
    return this.#upsampler?.forward(nn.functional.interpolate(h, { scaleFactor: 2, mode: "nearest" })) ?? h;
  }
}

/** Holds the convolution of a change of resolution under diffusers' name for it. */
class Resampler extends nn.Module {
  constructor(readonly conv: nn.Conv2d) {
    super();
    this.register("conv", conv);
  }
}

/** Residual block, attention, residual block, at the lowest resolution. */
class MidBlock extends nn.Module {
  readonly #resnets: nn.ModuleList<ResnetBlock>;
  readonly #attentions: nn.ModuleList<SpatialAttention>;

  constructor(dim: number, c: AutoencoderKLConfig) {
    super();
    this.#attentions = new nn.ModuleList(c.mid_block_add_attention ? [new SpatialAttention(dim, c)] : []);
    this.register("attentions", this.#attentions);
    this.#resnets = this.register(
      "resnets",
      new nn.ModuleList([new ResnetBlock(dim, dim, c), new ResnetBlock(dim, dim, c)]),
    );
  }

  forward(x: Tensor): Tensor {
    const [first, second] = this.#resnets.items as [ResnetBlock, ResnetBlock];
    return inTurn([first, ...this.#attentions.items, second], x);
  }
}

/** `shortcut(x) + conv(silu(norm(conv(silu(norm(x))))))` */
class ResnetBlock extends nn.Module {
  readonly #norm1: nn.GroupNorm;
  readonly #conv1: nn.Conv2d;
  readonly #norm2: nn.GroupNorm;
  readonly #conv2: nn.Conv2d;
  readonly #shortcut: nn.Conv2d | null;

  constructor(dimIn: number, dim: number, c: AutoencoderKLConfig) {
    super();
    this.#norm1 = this.register("norm1", norm(dimIn, c));
    this.#conv1 = this.register("conv1", conv3(dimIn, dim));
    this.#norm2 = this.register("norm2", norm(dim, c));
    this.#conv2 = this.register("conv2", conv3(dim, dim));
    this.#shortcut = dimIn === dim ? null : this.register("conv_shortcut", new nn.Conv2d(dimIn, dim, 1));
  }

  forward(x: Tensor): Tensor {
    const h = this.#conv1.forward(silu(this.#norm1.forward(x)));
    const update = this.#conv2.forward(silu(this.#norm2.forward(h)));
    return (this.#shortcut?.forward(x) ?? x).add(update);
  }
}

/** Attention of every position to every other, one head as wide as the channels. */
class SpatialAttention extends nn.Module {
  readonly #norm: nn.GroupNorm;
  readonly #q: nn.Linear;
  readonly #k: nn.Linear;
  readonly #v: nn.Linear;
  readonly #out: nn.Linear;

  constructor(dim: number, c: AutoencoderKLConfig) {
    super();
    this.#norm = this.register("group_norm", norm(dim, c));
    this.#q = this.register("to_q", new nn.Linear(dim, dim));
    this.#k = this.register("to_k", new nn.Linear(dim, dim));
    this.#v = this.register("to_v", new nn.Linear(dim, dim));
    this.#out = this.register("to_out", new nn.ModuleList([new nn.Linear(dim, dim)])).items[0]!;
  }

  forward(x: Tensor): Tensor {
    const [B, C, H, W] = x.shape as [number, number, number, number];
    const tokens = this.#norm
      .forward(x)
      .reshape(B, C, H * W)
      .transpose(1, 2);
    const [q, k, v] = [this.#q, this.#k, this.#v].map((linear) => linear.forward(tokens).unsqueeze(1)) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    const mixed = nn.functional.scaledDotProductAttention(q, k, v).squeeze(1);
    return x.add(this.#out.forward(mixed).transpose(1, 2).reshape(B, C, H, W));
  }
}

function conv3(dimIn: number, dim: number): nn.Conv2d {
  return new nn.Conv2d(dimIn, dim, 3, { padding: 1 });
}

function norm(dim: number, c: AutoencoderKLConfig): nn.GroupNorm {
  return new nn.GroupNorm(c.norm_num_groups, dim, { eps: EPS });
}

/** Layer after layer; what one leaves behind is freed before the next begins. */
function inTurn(layers: Iterable<{ forward(x: Tensor): Tensor }>, x: Tensor): Tensor {
  let h = x;
  for (const layer of layers) {
    const next = scope(() => layer.forward(h));
    if (h !== x && next !== h) h.dispose();
    h = next;
  }
  return h;
}

/**
 * Files written before diffusers 0.18 call the projections of the attention otherwise and may hold them as 1 × 1
 * convolutions.
 */
function currentName(key: string, shape: readonly number[]): { name: string; shape?: readonly number[] } {
  const names: Record<string, string> = { query: "to_q", key: "to_k", value: "to_v", proj_attn: "to_out.0" };
  const match =
    /^(.*\.mid_block\.attentions\.0\.)(query|key|value|proj_attn|to_q|to_k|to_v|to_out\.0)\.(weight|bias)$/.exec(key);
  if (match === null) return { name: key };
  const [, prefix, name, kind] = match as unknown as [string, string, string, string];
  const [rows, columns, ...rest] = shape;
  const flat = kind === "weight" && shape.length === 4 && rest.every((size) => size === 1);
  return { name: `${prefix}${names[name] ?? name}.${kind}`, ...(flat && { shape: [rows!, columns!] }) };
}
