/**
 * The network of MIRO (arXiv 2510.25897): a recurrent interface network (Jabri et al. 2022) on latent pictures, told of
 * text and of a vector of rewards. Module and tensor names in the state dict are those of the published checkpoints.
 *
 * Shapes
 *   B batch            P patch side, p = P² · channels features of a patch
 *   M data tokens      D their width
 *   N latent tokens    L their width
 *   T text tokens, K rewards, R text registers, C = K + R + T conditioning tokens (width L)
 */
import { cat, isGradEnabled, nn, noGrad, ones, scope, type Tensor, where, zeros, zerosLike } from "@miro-t2i/torch";
import { invalid } from "../errors.js";
import { checkContent } from "../expectations.js";
import { message } from "../message.js";
import { type CrossAttentionBlock, type KeyMask, type KeyValue, TransformerBlock } from "./attention.js";
import {
  type Conditioning,
  type ConditioningInput,
  keyMask,
  rewardKeepMask,
  rewardMatrix,
  trimText,
} from "./conditioning.js";
import {
  CONDITIONING_HEADS,
  CONDITIONING_LAYERS,
  type RinConfig,
  type RinConfigInput,
  rinConfigSchema,
} from "./config.js";
import { ScalarEmbedder } from "./embedders.js";
import { GeluMlp } from "./feed-forward.js";
import { inTurn } from "./fused.js";
import { Linear } from "./linear.js";
import { LayerNorm, RmsNorm } from "./norms.js";
import { RinBlock, type RinState } from "./rin-blocks.js";
import { type RinInput, rinInput, type UpstreamBatch } from "./rin-input.js";

export type { Conditioning, ConditioningInput } from "./conditioning.js";
export type { RinConfig } from "./config.js";
export type { RinInput, UpstreamBatch } from "./rin-input.js";

/** The network's output. */
export interface RinOutput {
  /** Raw prediction of the velocity: the shape and dtype of `y`. */
  F: Tensor;
  /** Final latents (B, N, L), in the dtype of the network. */
  z: Tensor;
}

/** Choices that a checkpoint does not record. */
export interface RinOptions {
  /**
   * In training, take a NaN reward for a reward of 0.0, as the published code does. By default NaN means "nothing is
   * known" in training as in evaluation: the sample's token for that reward is the positional embedding alone.
   */
  nanRewardAsZeroInTraining?: boolean | undefined;
  /**
   * With `concatCondTokenToLatents`, keep everything from attending padded text. Off by default, because networks of
   * that kind which exist were trained with padding attended; turn it on for new ones.
   */
  maskPaddedText?: boolean | undefined;
}

/** The RIN, the network of MIRO: latents that read from the picture's patches, compute, and write back. */
export class Rin extends nn.Module {
  readonly dataPositions: Tensor;
  readonly latents: Tensor;
  readonly rewardPositions: Tensor;
  readonly textRegisters: Tensor;
  readonly patchExtractor: Linear;
  readonly dataNorm: RmsNorm;
  readonly timeEmbedder: ScalarEmbedder;
  readonly transformer: nn.ModuleList<TransformerBlock>;
  readonly rewardEmbedders: RewardEmbedders;
  readonly mapTextTokens: Linear;
  readonly selfConditioning: SelfConditioning | null;
  readonly blocks: nn.ModuleList<RinBlock>;
  readonly toPatches: ToPatches;

  readonly config: RinConfig;

  /**
   * A network with random weights.
   * @throws InvalidInputError naming the first argument that is unknown, missing or impossible
   */
  constructor(
    given: RinConfigInput,
    readonly options: RinOptions = {},
  ) {
    super();
    const config = checkContent(rinConfigSchema, given, "network");
    this.config = config;
    const { latentsDim: L, dataDim: D, coherenceKeys, numTextRegisters: R } = config;
    const K = coherenceKeys.length;
    const M = (config.dataSize / config.patchSize) ** 2;
    const learned = config.concatCondTokenToLatents ? config.numLatents - config.numCondTokens - 1 : config.numLatents;
    const patch = config.patchSize ** 2 * config.numInputChannels;
    const truncatedNormal = (...shape: number[]) =>
      nn.init.truncNormal_(zeros(shape), { std: 0.02, a: -0.04, b: 0.04 });

    this.dataPositions = this.parameter("data_pos_embedding", truncatedNormal(M, D));
    this.latents = this.parameter("latents", truncatedNormal(learned, L));
    this.rewardPositions = this.parameter("coherence_positional_embedding", truncatedNormal(K, L));
    this.textRegisters = this.parameter("text_registers", truncatedNormal(R, L));
    // Constants that the published checkpoints hold; kept so that files agree in both directions.
    this.buffer("registers_coherence_mask", ones([R + K], { dtype: "bool" }));
    this.buffer("cond_mask", ones([R + K + 1], { dtype: "bool" }));

    this.patchExtractor = this.register("patch_extractor", new Linear(patch, D));
    this.dataNorm = this.register("data_ln", new RmsNorm(D));
    this.timeEmbedder = this.register("time_embedder", new ScalarEmbedder(L));
    const layer = () => new TransformerBlock(L, CONDITIONING_HEADS);
    this.transformer = this.register(
      "transformers_blocks",
      new nn.ModuleList(Array.from({ length: CONDITIONING_LAYERS }, layer)),
    );
    this.rewardEmbedders = this.register("coherence_embedder", new RewardEmbedders(coherenceKeys, L));
    this.mapTextTokens = this.register("map_text_tokens", new Linear(config.labelDim, L));
    // These three stand at the top level of the state dict.
    this.selfConditioning = config.useSelfConditioning
      ? {
          norm1: this.register("ln_previous_1", new LayerNorm(L)),
          mlp: this.register("linear_previous", new GeluMlp(L, config.latentMlpMultiplier)),
          norm2: this.register("ln_previous_2", new LayerNorm(L)),
        }
      : null;
    this.blocks = this.register(
      "rin_blocks",
      new nn.ModuleList(Array.from({ length: config.numBlocks }, () => new RinBlock(config))),
    );
    this.toPatches = this.register("map_tokens_to_patches", new ToPatches(D, patch));
    this.#initialise();
  }

  /**
   * Every linear layer, the last one included: Xavier-uniform weight, zero bias. Self-conditioning begins as a no-op.
   */
  #initialise(): void {
    for (const [, module] of this.namedModules()) {
      if (!(module instanceof Linear)) continue;
      nn.init.xavierUniform_(module.weight);
      if (module.bias !== null) nn.init.zeros_(module.bias);
    }
    if (this.selfConditioning !== null) {
      nn.init.zeros_(this.selfConditioning.norm2.weight!);
      nn.init.zeros_(this.selfConditioning.norm2.bias!);
    }
  }

  /**
   * Turns the weights of the blocks, nearly all of the network's arithmetic, into int8 (see int8.ts). The network can
   * then only be evaluated, on a CPU; its own weights are gone.
   */
  quantize(): this {
    for (const [, module] of this.blocks.namedModules()) {
      if (module instanceof Linear) noGrad(() => scope(() => module.quantize()));
    }
    return this;
  }

  /** One pass. The caller owns the result; call it inside a `scope()`. */
  forward(input: RinInput | UpstreamBatch): RinOutput {
    const batch = rinInput(input);
    return scope(() => {
      const conditioning = batch.conditioning ?? this.condition(batch);
      const time_BL = this.timeEmbedder.forward(batch.gamma);
      const latentMask = this.#latentMask(conditioning);
      const initial: RinState = {
        z: scope(() => this.#initialLatents(time_BL, conditioning, batch.previousLatents)),
        x: scope(() => this.#dataTokens(batch.y)),
      };
      const { z, x } = inTurn(this.blocks.items, initial, (block, state, i) => {
        const source = block.retrieveCond && keyValueOf(block.retrieveCond, time_BL.unsqueeze(1), conditioning, i);
        return block.forward(state, source && { source, mask: conditioning.mask }, latentMask);
      });
      return { F: this.#picture(x).to(batch.y.dtype), z };
    });
  }

  /**
   * Everything that depends on text and rewards alone: the conditioning transformer and each block's keys and values of
   * its tokens. Pass the result as `conditioning` to {@link forward} as often as it is needed; the output is the same.
   *
   * In training, hidden rewards (`coherenceDropout`) are drawn here, once for all passes that share the result, and
   * the keys and values are left to the passes.
   *
   * @param keepPadding leaves padded text where it is, masked, instead of looking for what can be left out
   */
  condition(input: ConditioningInput, { keepPadding = false } = {}): Conditioning {
    return scope(() => {
      const { text_BTL, textMask } = this.#textTokens(input, keepPadding);
      const { coherenceKeys, numTextRegisters } = this.config;
      const rewards_BKL = this.#rewardTokens(
        rewardMatrix(input.rewards, coherenceKeys, input.textEmbeddings, this.training),
      );
      const registers_BRL = this.textRegisters.expand(text_BTL.size(0), -1, -1);
      const leading = coherenceKeys.length + numTextRegisters;

      let tokens_BCL = cat([rewards_BKL, registers_BRL, text_BTL], 1);
      const mask = textMask && keyMask(textMask, leading);
      for (const layer of this.transformer.items) tokens_BCL = layer.forward(tokens_BCL, mask);

      return {
        tokens: this.config.concatCondTokenToLatents || this.training ? tokens_BCL : null,
        keyValues: this.training
          ? []
          : this.blocks.items.flatMap((block) => block.retrieveCond?.ca.keyValue(tokens_BCL) ?? []),
        mask: textMask && keyMask(textMask, leading + 1),
      };
    });
  }

  /** The text that is attended, (B, T, label width) → (B, T, L), and its mask, null when nothing of it is padded. */
  #textTokens(
    { textEmbeddings, textMask }: ConditioningInput,
    keepPadding: boolean,
  ): { text_BTL: Tensor; textMask: Tensor | null } {
    const { labelDim } = this.config;
    const { device, dtype } = this.latents;
    if (textEmbeddings.ndim !== 3 || textEmbeddings.size(2) !== labelDim) {
      throw invalid(
        "textEmbeddings",
        `shape (batch, tokens, ${labelDim})`,
        message`(${textEmbeddings.shape.join(", ")})`,
      );
    }
    // Padded text can be left out unless it is attended. Looking at the mask makes the host wait for the device, which
    // would stall each training step on an accelerator.
    const attended = this.config.concatCondTokenToLatents && this.options.maskPaddedText !== true;
    const look = !attended && !keepPadding && (device === "cpu" || !isGradEnabled());
    const trimmed = look ? trimText(textEmbeddings, textMask) : { text: textEmbeddings, mask: textMask };
    return { text_BTL: this.mapTextTokens.forward(trimmed.text.to(dtype)), textMask: trimmed.mask };
  }

  /** (B, K) → (B, K, L). What is not known, or hidden in training, is the positional embedding alone. */
  #rewardTokens(rewards_BK: Tensor): Tensor {
    const known_BK = rewards_BK.isfinite();
    const values_BK = where(known_BK, rewards_BK, zerosLike(rewards_BK));
    const embedded_BKL = this.rewardEmbedders.forward(values_BK);
    const asZero = this.training && this.options.nanRewardAsZeroInTraining === true;
    let shown_BK = asZero ? null : known_BK.to(embedded_BKL.dtype);
    const { coherenceDropout: p, dropoutStrategy } = this.config;
    if (this.training && dropoutStrategy !== "none" && (p > 0 || dropoutStrategy === "uniform")) {
      const [B, K] = rewards_BK.shape as [number, number];
      const keep_BK = rewardKeepMask(B, K, dropoutStrategy, p, rewards_BK.device).to(embedded_BKL.dtype);
      shown_BK = shown_BK?.mul(keep_BK) ?? keep_BK;
    }
    const shown_BKL = shown_BK === null ? embedded_BKL : embedded_BKL.mul(shown_BK.unsqueeze(-1));
    return shown_BKL.add(this.rewardPositions);
  }

  /** Learned latents and time; then the conditioning tokens, or the latents of an earlier pass. (B, N, L) */
  #initialLatents(time_BL: Tensor, conditioning: Conditioning, previous?: Tensor | null): Tensor {
    const time_B1L = time_BL.unsqueeze(1);
    if (this.config.concatCondTokenToLatents) {
      return cat([this.latents.expand(time_BL.size(0), -1, -1), time_B1L, conditioning.tokens!], 1);
    }
    const z_BNL = this.latents.add(time_B1L);
    if (this.selfConditioning === null || previous == null) return z_BNL;
    const p = previous.to(z_BNL.dtype);
    const { norm1, mlp, norm2 } = this.selfConditioning;
    return z_BNL.add(norm2.forward(p.add(mlp.forward(norm1.forward(p)))));
  }

  /** Key mask over the latents, for networks whose latents include padded text that is to be hidden. */
  #latentMask(conditioning: Conditioning): KeyMask {
    if (!this.config.concatCondTokenToLatents || conditioning.mask === null || this.options.maskPaddedText !== true)
      return null;
    const [B] = conditioning.mask.shape as [number];
    const learned = ones([B, 1, 1, this.latents.size(0)], { dtype: "bool", device: conditioning.mask.device });
    return cat([learned, conditioning.mask], 3);
  }

  /**
   * Patches in row-major order, features ordered (row, column, channel), to tokens: (B, channels, side, side) → (B, M,
   * D).
   */
  #dataTokens(y: Tensor): Tensor {
    const { dataSize, numInputChannels: channels, patchSize: P } = this.config;
    if (y.ndim !== 4 || y.size(1) !== channels || y.size(2) !== dataSize || y.size(3) !== dataSize) {
      throw invalid("y", `shape (batch, ${channels}, ${dataSize}, ${dataSize})`, message`(${y.shape.join(", ")})`);
    }
    const side = dataSize / P;
    const patches_BMp = y
      .to(this.latents.dtype)
      .reshape(y.size(0), channels, side, P, side, P)
      .permute(0, 2, 4, 3, 5, 1)
      .reshape(y.size(0), side * side, P * P * channels);
    return this.dataNorm.forward(this.patchExtractor.forward(patches_BMp)).add(this.dataPositions);
  }

  /** The inverse of the patching: (B, M, D) → (B, channels, side, side). */
  #picture(x_BMD: Tensor): Tensor {
    const { dataSize, numInputChannels: channels, patchSize: P } = this.config;
    const [B, side] = [x_BMD.size(0), dataSize / P];
    return this.toPatches
      .forward(x_BMD)
      .reshape(B, side, side, P, P, channels)
      .permute(0, 5, 1, 3, 2, 4)
      .reshape(B, channels, dataSize, dataSize);
  }
}

/** `z ← z + LN₂(p + MLP(LN₁(p)))` with p the latents of an earlier pass. */
interface SelfConditioning {
  norm1: LayerNorm;
  mlp: GeluMlp;
  norm2: LayerNorm;
}

/** One scalar embedder for each reward. (B, K) → (B, K, L) */
class RewardEmbedders extends nn.Module {
  readonly #embedders: ScalarEmbedder[];

  constructor(keys: readonly string[], dim: number) {
    super();
    this.#embedders = keys.map((key) => this.register(`${key}_coherence`, new ScalarEmbedder(dim)));
  }

  forward(rewards_BK: Tensor): Tensor {
    const columns = rewards_BK.unbind(1);
    return stackTokens(this.#embedders.map((embedder, k) => embedder.forward(columns[k]!)));
  }
}

/** Norm and projection of the data tokens to the features of their patches. */
class ToPatches extends nn.Module {
  readonly #norm: RmsNorm;
  readonly #linear: Linear;

  constructor(dim: number, features: number) {
    super();
    this.#norm = this.register("0", new RmsNorm(dim));
    this.#linear = this.register("1", new Linear(dim, features));
  }

  forward(x: Tensor): Tensor {
    return this.#linear.forward(this.#norm.forward(x));
  }
}

/** K vectors (B, L) → (B, K, L). */
function stackTokens(vectors: Tensor[]): Tensor {
  return cat(
    vectors.map((vector) => vector.unsqueeze(1)),
    1,
  );
}

/**
 * Keys and values of the time token and the conditioning tokens. In training they are one matrix product, as in the
 * published code: two products round differently, and Adam makes whole steps of the difference where a gradient is
 * nearly zero.
 */
function keyValueOf(
  reader: CrossAttentionBlock,
  time_B1L: Tensor,
  { tokens, keyValues }: Conditioning,
  block: number,
): KeyValue {
  const known = keyValues[block];
  if (known === undefined) return reader.ca.keyValue(cat([time_B1L, tokens!], 1));
  const time = reader.ca.keyValue(time_B1L);
  return { keys: cat([time.keys, known.keys], 1), values: cat([time.values, known.values], 1) };
}
