/**
 * XLM-RoBERTa (Conneau et al. 2020) with rotary positions, as jina-embeddings-v3 has it (Sturua et al. 2024): post-norm
 * layers, and the mean of the last states as the feature of a text.
 *
 *   x ← ln₁(x + attn x),  x ← ln₂(x + fc₂ GELU(fc₁ x))
 *
 * The tokens of all texts stand in one matrix, one text behind the other, so that nothing is computed for padding.
 * Shapes: N tokens of all texts, B texts, T tokens of one, W width, H heads, K width of a head.
 */
import { cat, F, nn, scope, stack, type Tensor, tensor } from "@miro-t2i/torch";
import { atOnce, type ByLayer } from "./by-layer.js";
import { Linear } from "./linear.js";
import { frequencies, type Rotation, rotate, rotationOf } from "./rotary.js";

/** The shape of an encoder. */
export interface XlmRobertaConfig {
  /** Of the states. */
  width: number;
  /** Of the encoder. */
  layers: number;
  /** Of attention; must divide the width. */
  heads: number;
  /** Width of the feed-forward layers. */
  hidden: number;
  /** Rows of the embedding. */
  vocabulary: number;
  /** Of the rotary positions. */
  base: number;
  /** Of the norms. */
  eps: number;
}

/** Texts to features. */
export class XlmRoberta extends nn.Module {
  /** Its shape. */
  readonly config: XlmRobertaConfig;
  readonly #words: nn.Embedding;
  readonly #types: nn.Embedding;
  readonly #norm: nn.LayerNorm;
  readonly #layers: nn.ModuleList<Layer>;

  constructor(config: XlmRobertaConfig) {
    super();
    const { width: W, vocabulary, layers, eps } = config;
    this.config = config;
    this.#words = this.register("word_embeddings", new nn.Embedding(vocabulary, W));
    this.#types = this.register("token_type_embeddings", new nn.Embedding(1, W));
    this.#norm = this.register("emb_ln", new nn.LayerNorm(W, { eps }));
    this.#layers = this.register("layers", new nn.ModuleList(Array.from({ length: layers }, () => new Layer(config))));
  }

  /**
   * Token ids → features (B, W) in float32, not of unit length.
   *
   * @param texts ids of each text, at least one
   * @param ignored a token that is not there, but has a position: padding
   */
  forward(texts: readonly (readonly number[])[], ignored: number): Tensor {
    return atOnce(this.forwardByLayer(texts, ignored));
  }

  /** As {@link forward}, with stops. */
  *forwardByLayer(texts: readonly (readonly number[])[], ignored: number): ByLayer<Tensor> {
    const { device } = this.#words.weight;
    const tokens = texts.map((ids) => [...ids.entries()].filter(([, id]) => id !== ignored));
    const lengths = tokens.map((text) => text.length);
    const all = tokens.flat();
    const frequency = frequencies(this.config.base, this.config.width / this.config.heads / 2);
    const angles = all.map(([position]) => Float64Array.from(frequency, (f) => position * f));
    const rotation = rotationOf(angles, device);
    const ids_N = tensor(
      BigInt64Array.from(all, ([, id]) => BigInt(id)),
      { dtype: "int64" },
    ).to({ device });
    let x_NW = scope(() => this.#norm.forward(this.#words.forward(ids_N).add(this.#types.weight)));
    for (const layer of this.#layers) {
      yield [x_NW, ...Object.values(rotation)];
      x_NW = layer.forward(x_NW, lengths, rotation);
    }
    return stack(
      x_NW
        .float()
        .split(lengths, 0)
        .map((x_TW) => x_TW.mean(0)),
    );
  }
}

class Layer extends nn.Module {
  readonly #attn: Attention;
  readonly #norm1: nn.LayerNorm;
  readonly #fc1: Linear;
  readonly #fc2: Linear;
  readonly #norm2: nn.LayerNorm;

  constructor(config: XlmRobertaConfig) {
    super();
    const { width, hidden, eps } = config;
    this.#attn = this.register("mixer", new Attention(config));
    this.#norm1 = this.register("norm1", new nn.LayerNorm(width, { eps }));
    this.#fc1 = this.register("fc1", new Linear(width, hidden));
    this.#fc2 = this.register("fc2", new Linear(hidden, width));
    this.#norm2 = this.register("norm2", new nn.LayerNorm(width, { eps }));
  }

  /** (N, W) → (N, W) */
  forward(x: Tensor, lengths: readonly number[], rotation: Rotation): Tensor {
    return scope(() => {
      const h = this.#norm1.forward(this.#attn.forward(x, lengths, rotation));
      return this.#norm2.forward(this.#fc2.forward(this.#fc1.forward(h, "gelu"), { add: h }));
    });
  }
}

class Attention extends nn.Module {
  readonly #heads: number;
  readonly #qkv: Linear;
  readonly #out: Linear;

  constructor({ width, heads }: XlmRobertaConfig) {
    super();
    this.#heads = heads;
    this.#qkv = this.register("Wqkv", new Linear(width, 3 * width));
    this.#out = this.register("out_proj", new Linear(width, width));
  }

  /** (N, W) → x + attention within each text, (N, W) */
  forward(x: Tensor, lengths: readonly number[], rotation: Rotation): Tensor {
    const [N, W] = x.shape as [number, number];
    const qkv_N3HK = this.#qkv.forward(x).view(N, 3, this.#heads, W / this.#heads);
    const [q_HNK, k_HNK, v_HNK] = qkv_N3HK.permute(1, 2, 0, 3).contiguous().unbind(0) as [Tensor, Tensor, Tensor];
    const [queries, keys, values] = [rotate(q_HNK, rotation), rotate(k_HNK, rotation), v_HNK].map((x_HNK) =>
      x_HNK.unsqueeze(0).split(lengths, 2),
    ) as [Tensor[], Tensor[], Tensor[]];
    const attended = queries.map((q_1HTK, i) =>
      F.scaledDotProductAttention(q_1HTK, keys[i]!, values[i]!).select(0, 0).transpose(0, 1).flatten(1),
    );
    return this.#out.forward(cat(attended), { add: x });
  }
}
