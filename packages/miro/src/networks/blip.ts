/**
 * What ImageReward (Xu et al. 2023) takes of BLIP (Li et al. 2022): a vision transformer (Dosovitskiy et al. 2021),
 * and a BERT (Devlin et al. 2019) whose layers also look at its tokens.
 *
 *   image  class token and patches + positions → x ← x + attn(norm₁ x), x ← x + mlp(norm₂ x) → norm
 *   text   norm(tokens + positions) → x ← norm(x + self x), x ← norm(x + cross(x, image)), x ← norm(x + mlp x)
 *
 * Shapes: B texts, N pictures, T tokens of a text, V those of a picture, W width of a tower, H heads, K width of a
 * head. The state dict has BLIP's names; the weights of queries, keys and values of one layer are one tensor, `qkv`,
 * and those of keys and values of the picture another, `kv`.
 */
import { cat, type DType, empty, F, nn, scope, type Tensor } from "@miro-t2i/torch";
import { atOnce, type ByLayer } from "./by-layer.js";
import { Linear } from "./linear.js";

/** One of the two transformers. The activation is the exact GELU. */
export interface BlipTower {
  /** Of the states. */
  width: number;
  /** Blocks. */
  layers: number;
  /** Of attention; must divide the width. */
  heads: number;
  /** Width of the feed-forward layers. */
  hidden: number;
  /** Of the norms. */
  eps: number;
}

/** The shape of both. */
export interface BlipConfig {
  /** Pictures of `image` pixels on a side are cut into patches of `patch`. */
  vision: BlipTower & { image: number; patch: number };
  /** At most `positions` tokens of `vocabulary`. */
  text: BlipTower & { vocabulary: number; positions: number };
}

/** The vision transformer and the text transformer that looks at pictures. Random weights until they are loaded. */
export class Blip extends nn.Module {
  /** The shape. */
  readonly config: BlipConfig;
  readonly #vision: Vision;
  readonly #text: Text;

  constructor(config: BlipConfig) {
    super();
    this.config = config;
    this.#vision = this.register("visual_encoder", new Vision(config.vision));
    this.#text = this.register("text_encoder", new Text(config.text, config.vision.width));
  }

  /** Where the weights are. */
  get device(): string {
    return this.#vision.classToken.device;
  }

  /** What they are in. */
  get dtype(): DType {
    return this.#vision.classToken.dtype;
  }

  /** Normalised pixels (N, 3, S, S) → tokens of pictures (N, V, W), the class token first */
  encodeImage(pixels: Tensor): Tensor {
    return atOnce(this.encodeImageByLayer(pixels));
  }

  /** As {@link encodeImage}, with stops. */
  encodeImageByLayer(pixels: Tensor): ByLayer<Tensor> {
    return this.#vision.forwardByLayer(pixels);
  }

  /**
   * States of texts that look at pictures.
   *
   * @param ids (B, T) int64
   * @param mask (B, T) bool, true where there is a token; null: everywhere
   * @param image tokens of the pictures (N, V, W)
   * @param of (B) int64, the picture of each text; null: text i looks at picture i, or all at the only one
   * @returns (B, T, W)
   */
  encodeText(ids: Tensor, mask: Tensor | null, image: Tensor, of: Tensor | null = null): Tensor {
    return atOnce(this.encodeTextByLayer(ids, mask, image, of));
  }

  /** As {@link encodeText}, with stops. */
  encodeTextByLayer(ids: Tensor, mask: Tensor | null, image: Tensor, of: Tensor | null = null): ByLayer<Tensor> {
    return this.#text.forwardByLayer(ids, mask, image, of);
  }
}

class Vision extends nn.Module {
  readonly classToken: Tensor;
  readonly #positions: Tensor;
  readonly #patches: nn.Conv2d;
  readonly #blocks: nn.ModuleList<VisionBlock>;
  readonly #norm: nn.LayerNorm;

  constructor(tower: BlipConfig["vision"]) {
    super();
    const { width: W, layers, image, patch, eps } = tower;
    const tokens = (image / patch) ** 2 + 1;
    this.classToken = this.parameter("cls_token", nn.init.normal_(empty([1, 1, W]), 0, 0.02));
    this.#positions = this.parameter("pos_embed", nn.init.normal_(empty([1, tokens, W]), 0, 0.02));
    this.#patches = this.register("patch_embed", new PatchEmbedding(W, patch)).proj;
    this.#blocks = this.register(
      "blocks",
      new nn.ModuleList(Array.from({ length: layers }, () => new VisionBlock(tower))),
    );
    this.#norm = this.register("norm", new nn.LayerNorm(W, { eps }));
  }

  *forwardByLayer(pixels: Tensor): ByLayer<Tensor> {
    const patches_NVW = this.#patches
      .forward(pixels.to({ dtype: this.classToken.dtype }))
      .flatten(2)
      .transpose(1, 2);
    const class_N1W = this.classToken.expand(pixels.size(0), 1, -1);
    let x_NVW = cat([class_N1W, patches_NVW], 1).add(this.#positions);
    for (const block of this.#blocks) {
      yield [x_NVW];
      x_NVW = scope(() => block.forward(x_NVW));
    }
    return this.#norm.forward(x_NVW);
  }
}

class PatchEmbedding extends nn.Module {
  readonly proj: nn.Conv2d;

  constructor(width: number, patch: number) {
    super();
    this.proj = this.register("proj", new nn.Conv2d(3, width, patch, { stride: patch }));
  }
}

class VisionBlock extends nn.Module {
  readonly #heads: number;
  readonly #norm1: nn.LayerNorm;
  readonly #attn: VisionAttention;
  readonly #norm2: nn.LayerNorm;
  readonly #mlp: VisionMlp;

  constructor({ width: W, heads, hidden, eps }: BlipTower) {
    super();
    this.#heads = heads;
    this.#norm1 = this.register("norm1", new nn.LayerNorm(W, { eps }));
    this.#attn = this.register("attn", new VisionAttention(W));
    this.#norm2 = this.register("norm2", new nn.LayerNorm(W, { eps }));
    this.#mlp = this.register("mlp", new VisionMlp(W, hidden));
  }

  /** (N, V, W) → (N, V, W) */
  forward(x: Tensor): Tensor {
    const { qkv, proj } = this.#attn;
    const { fc1, fc2 } = this.#mlp;
    const [q, k, v] = heads(qkv.forward(this.#norm1.forward(x)), 3, this.#heads) as [Tensor, Tensor, Tensor];
    x = proj.forward(joined(F.scaledDotProductAttention(q, k, v)), { add: x });
    return fc2.forward(fc1.forward(this.#norm2.forward(x), "gelu"), { add: x });
  }
}

class VisionAttention extends nn.Module {
  readonly qkv: Linear;
  readonly proj: Linear;

  constructor(width: number) {
    super();
    this.qkv = this.register("qkv", new Linear(width, 3 * width));
    this.proj = this.register("proj", new Linear(width, width));
  }
}

class VisionMlp extends nn.Module {
  readonly fc1: Linear;
  readonly fc2: Linear;

  constructor(width: number, hidden: number) {
    super();
    this.fc1 = this.register("fc1", new Linear(width, hidden));
    this.fc2 = this.register("fc2", new Linear(hidden, width));
  }
}

class Text extends nn.Module {
  readonly #embeddings: TextEmbeddings;
  readonly #layers: nn.ModuleList<TextLayer>;

  constructor(tower: BlipConfig["text"], visionWidth: number) {
    super();
    this.#embeddings = this.register("embeddings", new TextEmbeddings(tower));
    const layers = Array.from({ length: tower.layers }, () => new TextLayer(tower, visionWidth));
    this.#layers = this.register("encoder", new TextLayers(layers)).layer;
  }

  *forwardByLayer(ids: Tensor, mask: Tensor | null, image: Tensor, of: Tensor | null): ByLayer<Tensor> {
    const mask_B11T = mask?.unsqueeze(1).unsqueeze(1) ?? null;
    let x_BTW = this.#embeddings.forward(ids);
    for (const layer of this.#layers) {
      yield mask_B11T === null ? [x_BTW] : [x_BTW, mask_B11T];
      x_BTW = scope(() => layer.forward(x_BTW, mask_B11T, image, of));
    }
    return x_BTW;
  }
}

class TextLayers extends nn.Module {
  readonly layer: nn.ModuleList<TextLayer>;

  constructor(layers: TextLayer[]) {
    super();
    this.layer = this.register("layer", new nn.ModuleList(layers));
  }
}

class TextEmbeddings extends nn.Module {
  readonly #words: nn.Embedding;
  readonly #positions: nn.Embedding;
  readonly #norm: nn.LayerNorm;

  constructor({ width: W, vocabulary, positions, eps }: BlipConfig["text"]) {
    super();
    this.#words = this.register("word_embeddings", new nn.Embedding(vocabulary, W));
    this.#positions = this.register("position_embeddings", new nn.Embedding(positions, W));
    this.#norm = this.register("LayerNorm", new nn.LayerNorm(W, { eps }));
  }

  forward(ids: Tensor): Tensor {
    const positions_TW = this.#positions.weight.narrow(0, 0, ids.size(1));
    return this.#norm.forward(this.#words.forward(ids).add(positions_TW));
  }
}

class TextLayer extends nn.Module {
  readonly #heads: number;
  readonly #attention: SelfAttention;
  readonly #cross: CrossAttention;
  readonly #intermediate: Dense;
  readonly #output: DenseAndNorm;

  constructor({ width: W, heads, hidden, eps }: BlipTower, visionWidth: number) {
    super();
    this.#heads = heads;
    this.#attention = this.register("attention", new SelfAttention(W, eps));
    this.#cross = this.register("crossattention", new CrossAttention(W, visionWidth, eps));
    this.#intermediate = this.register("intermediate", new Dense(W, hidden));
    this.#output = this.register("output", new DenseAndNorm(hidden, W, eps));
  }

  /** (B, T, W) → (B, T, W) */
  forward(x: Tensor, mask: Tensor | null, image: Tensor, of: Tensor | null): Tensor {
    const { qkv, output: selfOutput } = this.#attention;
    const [q, k, v] = heads(qkv.forward(x), 3, this.#heads) as [Tensor, Tensor, Tensor];
    x = selfOutput.forward(joined(F.scaledDotProductAttention(q, k, v, { mask })), x);
    const { query, kv, output: crossOutput } = this.#cross;
    const [asked] = heads(query.forward(x), 1, this.#heads) as [Tensor];
    const [seen, told] = heads(kv.forward(image), 2, this.#heads).map((one_NHVK) =>
      of === null ? one_NHVK.expand(x.size(0), -1, -1, -1) : one_NHVK.indexSelect(0, of),
    ) as [Tensor, Tensor];
    const looked = F.scaledDotProductAttention(asked, seen, told);
    x = crossOutput.forward(joined(looked), x);
    return this.#output.forward(this.#intermediate.dense.forward(x, "gelu"), x);
  }
}

class SelfAttention extends nn.Module {
  readonly qkv: Linear;
  readonly output: DenseAndNorm;

  constructor(width: number, eps: number) {
    super();
    this.qkv = this.register("qkv", new Linear(width, 3 * width));
    this.output = this.register("output", new DenseAndNorm(width, width, eps));
  }
}

class CrossAttention extends nn.Module {
  readonly query: Linear;
  readonly kv: Linear;
  readonly output: DenseAndNorm;

  constructor(width: number, visionWidth: number, eps: number) {
    super();
    this.query = this.register("query", new Linear(width, width));
    this.kv = this.register("kv", new Linear(visionWidth, 2 * width));
    this.output = this.register("output", new DenseAndNorm(width, width, eps));
  }
}

class Dense extends nn.Module {
  readonly dense: Linear;

  constructor(inputs: number, outputs: number) {
    super();
    this.dense = this.register("dense", new Linear(inputs, outputs));
  }
}

/** norm(residual + dense x), the end of every part of a layer of BERT */
class DenseAndNorm extends nn.Module {
  readonly #dense: Linear;
  readonly #norm: nn.LayerNorm;

  constructor(inputs: number, width: number, eps: number) {
    super();
    this.#dense = this.register("dense", new Linear(inputs, width));
    this.#norm = this.register("LayerNorm", new nn.LayerNorm(width, { eps }));
  }

  forward(x: Tensor, residual: Tensor): Tensor {
    return this.#norm.forward(this.#dense.forward(x, { add: residual }));
  }
}

/** (B, T, parts · H · K) → parts of (B, H, T, K) */
function heads(x: Tensor, parts: number, H: number): Tensor[] {
  const [B, T, W] = x.shape as [number, number, number];
  return x
    .view(B, T, parts, H, W / parts / H)
    .permute(2, 0, 3, 1, 4)
    .unbind(0);
}

/** (B, H, T, K) → (B, T, H · K) */
function joined(x: Tensor): Tensor {
  const [B, H, T, K] = x.shape as [number, number, number, number];
  return x.transpose(1, 2).reshape(B, T, H * K);
}
