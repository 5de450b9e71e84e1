/**
 * CLIP (Radford et al. 2021): a vision transformer and a causal text transformer into one space.
 *
 *   x ← x + attn(ln₁ x),  x ← x + mlp(ln₂ x)
 *
 *   image  class token and patches + positions → ln_pre → blocks → ln_post of the class token → projection
 *   text   tokens + positions → blocks with a causal mask → ln_final of the end token → projection
 *
 * Shapes: B pictures or texts, T tokens, W width of a tower, H heads, K width of a head, D width of the shared space.
 * Projections are computed in float32 whatever the dtype of the towers. The state dict has open_clip's names, but
 * both projections are (D, W).
 */
import { aten, cat, type DType, empty, F, nn, scope, type Tensor } from "@miro-t2i/torch";
import { atOnce, type ByLayer } from "./by-layer.js";
import { Linear } from "./linear.js";

/** The activation of the feed-forward layers: `quick_gelu` is x σ(1.702 x), OpenAI's; `gelu` the exact one, LAION's. */
export type ClipActivation = "quick_gelu" | "gelu";

/** One of the two transformers. */
export interface ClipTower {
  /** Of the states. */
  width: number;
  /** Blocks. */
  layers: number;
  /** Of attention; must divide the width. */
  heads: number;
  /** Width of the feed-forward layers. */
  hidden: number;
  /** Of the feed-forward layers. */
  activation: ClipActivation;
  /** Of the norms. */
  eps: number;
}

/** The shape of a CLIP. */
export interface ClipConfig {
  /** Width of the shared space. */
  joint: number;
  /** Pictures of `image` pixels on a side are cut into patches of `patch`. */
  vision: ClipTower & { image: number; patch: number };
  /** At most `context` tokens of `vocabulary`. */
  text: ClipTower & { vocabulary: number; context: number };
}

/** The image side without its projection. */
export class ClipVisionTower extends nn.Module {
  /** Its shape. */
  readonly config: ClipConfig["vision"];
  readonly #conv1: nn.Conv2d;
  readonly #class: Tensor;
  readonly #positions: Tensor;
  readonly #before: nn.LayerNorm;
  readonly #blocks: Blocks;
  readonly #after: nn.LayerNorm;

  constructor(vision: ClipConfig["vision"]) {
    super();
    const { width: W, patch, image, eps } = vision;
    this.config = vision;
    this.#class = this.parameter("class_embedding", nn.init.normal_(empty([W]), 0, W ** -0.5));
    const tokens = (image / patch) ** 2 + 1;
    this.#positions = this.parameter("positional_embedding", nn.init.normal_(empty([tokens, W]), 0, W ** -0.5));
    this.#conv1 = this.register("conv1", new nn.Conv2d(3, W, patch, { stride: patch, bias: false }));
    this.#before = this.register("ln_pre", new nn.LayerNorm(W, { eps }));
    this.#blocks = this.register("transformer", new Blocks(vision));
    this.#after = this.register("ln_post", new nn.LayerNorm(W, { eps }));
  }

  /**
   * Normalised pixels (B, 3, S, S) → states of the patches (B, T, W) before the last block: what language models that
   * see pictures take (LLaVA).
   */
  patches(pixels: Tensor): Tensor {
    return atOnce(this.patchesByLayer(pixels));
  }

  /** As {@link patches}, with stops. */
  *patchesByLayer(pixels: Tensor): ByLayer<Tensor> {
    const x_BTW = yield* this.#blocks.forwardByLayer(this.#embed(pixels), false, this.config.layers - 1);
    return x_BTW.narrow(1, 1, x_BTW.size(1) - 1);
  }

  /** Normalised pixels (B, 3, S, S) → state of the class token behind the last norm (B, W) */
  protected *pooledByLayer(pixels: Tensor, stream?: DType): ByLayer<Tensor> {
    const x_BTW = yield* this.#blocks.forwardByLayer(this.#embed(pixels, stream), false);
    return this.#after.forward(x_BTW.select(1, 0));
  }

  #embed(pixels: Tensor, stream: DType = this.#class.dtype): Tensor {
    return scope(() => {
      const B = pixels.size(0);
      const patches_BTW = this.#conv1
        .forward(pixels.to({ dtype: this.#class.dtype }))
        .flatten(2)
        .transpose(1, 2);
      const class_B1W = this.#class.view(1, 1, -1).expand(B, 1, -1).to({ dtype: stream });
      return this.#before.forward(cat([class_B1W, patches_BTW], 1).add(this.#positions.to({ dtype: stream })));
    });
  }
}

/** The image side alone. */
export class ClipVision extends ClipVisionTower {
  readonly #proj: nn.Linear;

  constructor({ joint, vision }: Pick<ClipConfig, "joint" | "vision">) {
    super(vision);
    this.#proj = this.register("proj", new nn.Linear(vision.width, joint, { bias: false }));
  }

  /**
   * Normalised pixels (B, 3, S, S) → features (B, D) in float32, not of unit length
   *
   * @param stream dtype of the residual stream, for autocast: open_clip has it in that of the products, transformers in
   *   float32
   */
  forward(pixels: Tensor, stream?: DType): Tensor {
    return atOnce(this.forwardByLayer(pixels, stream));
  }

  /** As {@link forward}, with stops. */
  *forwardByLayer(pixels: Tensor, stream?: DType): ByLayer<Tensor> {
    return project(yield* this.pooledByLayer(pixels, stream), this.#proj);
  }
}

/** The text side alone, with the scale of the products. Random weights until they are loaded. */
export class ClipText extends nn.Module {
  /** The shape of the whole. */
  readonly config: ClipConfig;
  readonly #tokens: nn.Embedding;
  readonly #positions: Tensor;
  readonly #blocks: Blocks;
  readonly #final: nn.LayerNorm;
  readonly #proj: nn.Linear;
  /** The logarithm of what cosines are multiplied by. */
  readonly logitScale: Tensor;

  constructor(config: ClipConfig) {
    super();
    const { width: W, vocabulary, context, eps } = config.text;
    this.config = config;
    this.logitScale = this.parameter("logit_scale", empty([]).fill_(Math.log(1 / 0.07)));
    this.#positions = this.parameter("positional_embedding", nn.init.normal_(empty([context, W]), 0, 0.01));
    this.#tokens = this.register("token_embedding", new nn.Embedding(vocabulary, W));
    this.#blocks = this.register("transformer", new Blocks(config.text));
    this.#final = this.register("ln_final", new nn.LayerNorm(W, { eps }));
    this.#proj = this.register("text_projection", new nn.Linear(W, config.joint, { bias: false }));
  }

  /**
   * Token ids → features (B, D) in float32, not of unit length. What follows the end token has no influence.
   *
   * @param ids (B, T) int64
   * @param ends (B) int64: position of the first end token of each text
   */
  encodeText(ids: Tensor, ends: Tensor): Tensor {
    return atOnce(this.encodeTextByLayer(ids, ends));
  }

  /** As {@link encodeText}, with stops. */
  *encodeTextByLayer(ids: Tensor, ends: Tensor): ByLayer<Tensor> {
    const [B, T] = ids.shape as [number, number];
    const x_BTW = this.#tokens.forward(ids).add(this.#positions.narrow(0, 0, T));
    const states_BTW = yield* this.#blocks.forwardByLayer(x_BTW, true);
    const index = ends.view(B, 1, 1).expand(B, 1, states_BTW.size(2));
    const pooled_BW = this.#final.forward(aten.gather(states_BTW, 1, index).select(1, 0));
    return project(pooled_BW, this.#proj);
  }
}

/** Both sides. Random weights until they are loaded. */
export class Clip extends ClipText {
  /** The image side. */
  readonly visual: ClipVision;

  constructor(config: ClipConfig) {
    super(config);
    this.visual = this.register("visual", new ClipVision(config));
  }

  /** Normalised pixels (B, 3, S, S) → features (B, D) in float32, not of unit length */
  encodeImage(pixels: Tensor): Tensor {
    return this.visual.forward(pixels);
  }
}

/** x · projectionᵀ in float32 */
function project(x: Tensor, projection: nn.Linear): Tensor {
  return F.linear(x.float(), projection.weight.float());
}

class Blocks extends nn.Module {
  readonly #resblocks: nn.ModuleList<Block>;

  constructor(tower: ClipTower) {
    super();
    this.#resblocks = this.register(
      "resblocks",
      new nn.ModuleList(Array.from({ length: tower.layers }, () => new Block(tower))),
    );
  }

  /** @param count of the blocks, the first ones; default all */
  *forwardByLayer(x: Tensor, isCausal: boolean, count = this.#resblocks.length): ByLayer<Tensor> {
    for (const block of this.#resblocks.items.slice(0, count)) {
      yield [x];
      x = scope(() => block.forward(x, isCausal));
    }
    return x;
  }
}

class Block extends nn.Module {
  readonly #ln1: nn.LayerNorm;
  readonly #attn: Attention;
  readonly #ln2: nn.LayerNorm;
  readonly #mlp: Mlp;

  constructor(tower: ClipTower) {
    super();
    this.#ln1 = this.register("ln_1", new nn.LayerNorm(tower.width, { eps: tower.eps }));
    this.#attn = this.register("attn", new Attention(tower));
    this.#ln2 = this.register("ln_2", new nn.LayerNorm(tower.width, { eps: tower.eps }));
    this.#mlp = this.register("mlp", new Mlp(tower));
  }

  forward(x: Tensor, isCausal: boolean): Tensor {
    x = this.#attn.forward(this.#ln1.forward(x), isCausal, x);
    return this.#mlp.forward(this.#ln2.forward(x), x);
  }
}

class Attention extends nn.Module {
  readonly #heads: number;
  /** Rows of q, k and v. */
  readonly #weight: Tensor;
  readonly #bias: Tensor;
  readonly #out: Linear;

  constructor({ width: W, heads }: ClipTower) {
    super();
    this.#heads = heads;
    this.#weight = this.parameter("in_proj_weight", nn.init.normal_(empty([3 * W, W]), 0, W ** -0.5));
    this.#bias = this.parameter("in_proj_bias", empty([3 * W]).zero_());
    this.#out = this.register("out_proj", new Linear(W, W));
  }

  /** (B, T, W) → residual + attention, (B, T, W) */
  forward(x: Tensor, isCausal: boolean, residual: Tensor): Tensor {
    const [B, T, W] = x.shape as [number, number, number];
    const qkv_BT3HK = F.linear(x, this.#weight, this.#bias).view(B, T, 3, this.#heads, W / this.#heads);
    const [q_BHTK, k_BHTK, v_BHTK] = qkv_BT3HK.permute(2, 0, 3, 1, 4).unbind(0) as [Tensor, Tensor, Tensor];
    const attended_BHTK = F.scaledDotProductAttention(q_BHTK, k_BHTK, v_BHTK, { isCausal });
    return this.#out.forward(attended_BHTK.transpose(1, 2).reshape(B, T, W), { add: residual });
  }
}

class Mlp extends nn.Module {
  readonly #fc: Linear;
  readonly #proj: Linear;
  readonly #activation: ClipActivation;

  constructor({ width, hidden, activation }: ClipTower) {
    super();
    this.#activation = activation;
    this.#fc = this.register("c_fc", new Linear(width, hidden));
    this.#proj = this.register("c_proj", new Linear(hidden, width));
  }

  /** (B, T, W) → residual + feed-forward, (B, T, W) */
  forward(x: Tensor, residual: Tensor): Tensor {
    const hidden = this.#activation === "gelu" ? this.#fc.forward(x, "gelu") : quickGelu(this.#fc.forward(x));
    return this.#proj.forward(hidden, { add: residual });
  }
}

/** x σ(1.702 x), Hendrycks and Gimpel 2016 */
function quickGelu(x: Tensor): Tensor {
  return x.mul(x.mul(1.702).sigmoid());
}
