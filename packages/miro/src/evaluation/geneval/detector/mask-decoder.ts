/**
 * The transformer decoder of Mask2Former (Cheng et al. 2022): queries attend to the maps in turn, each only where its
 * own mask of the layer before lies, and say at the end what they are and which pixels they cover.
 *
 *   x ← norm₁(x + cross(x + q, memory)),  x ← norm₂(x + self(x + q)),  x ← norm₃(x + mlp(x))
 *
 * A mask is the product of a query's embedding and the features of stride 4. The masks between layers are wanted at the
 * size of a map alone; resizing is linear, so the features are resized once instead of the masks of each layer.
 *
 * Shapes: B pictures, Q queries, N cells of a map, D channels.
 */
import { empty, F, nn, scope, type Tensor } from "@miro-t2i/torch";
import { Linear } from "../../../networks/linear.js";
import { LEVELS, type PixelFeatures } from "./pixel-decoder.js";
import type { Mask2FormerShape } from "./shape.js";
import { asCells, asPicture, type CellMap } from "./swin.js";

/** What the queries say. */
export interface Predictions {
  /** (B, Q, D): after the last layer, before the norm. */
  queries: Tensor;
  /** (B, Q, classes + 1): the last is "no object". */
  classLogits: Tensor;
  /** (B, Q, H, W) at stride 4. */
  maskLogits: Tensor;
}

/** The transformer decoder. Random weights until they are loaded. */
export class MaskDecoder extends nn.Module {
  readonly #content: Tensor;
  readonly #position: Tensor;
  readonly #levelEmbed: Tensor;
  readonly #layers: nn.ModuleList<DecoderLayer>;
  readonly #norm: nn.LayerNorm;
  readonly #classes: nn.Linear;
  readonly #mask: nn.ModuleList<Linear>;

  constructor({ width: D, heads, decoder, queries, classes }: Mask2FormerShape) {
    super();
    this.#content = this.parameter("query_feat", nn.init.normal_(empty([queries, D])));
    this.#position = this.parameter("query_embed", nn.init.normal_(empty([queries, D])));
    this.#levelEmbed = this.parameter("level_embed", nn.init.normal_(empty([LEVELS, D])));
    this.#layers = this.register(
      "layers",
      new nn.ModuleList(Array.from({ length: decoder.layers }, () => new DecoderLayer(D, heads, decoder.hidden))),
    );
    this.#norm = this.register("norm", new nn.LayerNorm(D));
    this.#classes = this.register("classes", new nn.Linear(D, classes + 1));
    this.#mask = this.register("mask", new nn.ModuleList([0, 1, 2].map(() => new Linear(D, D))));
  }

  /** @param codes (N, D) of the three maps; the caller owns what is returned */
  forward({ levels, masks }: PixelFeatures, codes: readonly Tensor[]): Predictions {
    return scope(() => {
      const B = masks.cells.size(0);
      const memories = levels.map(({ cells }, l) => {
        const value = cells.add(this.#levelEmbed.select(0, l));
        return { value, key: value.add(codes[l]!) };
      });
      const sized = levels.map(({ height, width }) => resize(masks, height, width));
      let x_BQD = this.#content.unsqueeze(0).expand(B, -1, -1);
      for (const [i, layer] of [...this.#layers].entries()) {
        const { key, value } = memories[i % LEVELS]!;
        const allowed = this.#attentionMask(x_BQD, sized[i % LEVELS]!);
        x_BQD = scope(() => layer.forward(x_BQD, this.#position, key, value, allowed));
      }
      const normed = this.#norm.forward(x_BQD);
      const maskLogits = this.#masks(normed, masks.cells).view(B, -1, masks.height, masks.width);
      return { queries: x_BQD, classLogits: this.#classes.forward(normed), maskLogits };
    });
  }

  /** (B, Q, D), (B, N, D) → mask logits (B, Q, N) */
  #masks(normed: Tensor, features: Tensor): Tensor {
    const [first, second, third] = [...this.#mask] as [Linear, Linear, Linear];
    return third.forward(second.forward(first.forward(normed, "relu"), "relu")).matmul(features.transpose(1, 2));
  }

  /** Where each query may look: in its mask, everywhere if that is empty. (B, 1, Q, N) */
  #attentionMask(x: Tensor, features: Tensor): Tensor {
    return scope(() => {
      const inside = this.#masks(this.#norm.forward(x), features).sigmoid().ge(0.5);
      return inside.logicalOr(inside.any(-1, true).logicalNot()).unsqueeze(1);
    });
  }
}

function resize(map: CellMap, height: number, width: number): Tensor {
  return asCells(F.interpolate(asPicture(map), { size: [height, width], mode: "bilinear" })).cells;
}

class DecoderLayer extends nn.Module {
  readonly #cross: Attention;
  readonly #norm1: nn.LayerNorm;
  readonly #self: Attention;
  readonly #norm2: nn.LayerNorm;
  readonly #fc1: Linear;
  readonly #fc2: Linear;
  readonly #norm3: nn.LayerNorm;

  constructor(D: number, heads: number, hidden: number) {
    super();
    this.#cross = this.register("cross_attn", new Attention(D, heads));
    this.#norm1 = this.register("norm1", new nn.LayerNorm(D));
    this.#self = this.register("self_attn", new Attention(D, heads));
    this.#norm2 = this.register("norm2", new nn.LayerNorm(D));
    this.#fc1 = this.register("fc1", new Linear(D, hidden));
    this.#fc2 = this.register("fc2", new Linear(hidden, D));
    this.#norm3 = this.register("norm3", new nn.LayerNorm(D));
  }

  forward(x: Tensor, position: Tensor, key: Tensor, value: Tensor, allowed: Tensor): Tensor {
    x = this.#norm1.forward(x.add(this.#cross.forward(x.add(position), key, value, allowed)));
    const query = x.add(position);
    x = this.#norm2.forward(x.add(this.#self.forward(query, query, x, null)));
    return this.#norm3.forward(x.add(this.#fc2.forward(this.#fc1.forward(x, "relu"))));
  }
}

class Attention extends nn.Module {
  readonly #heads: number;
  /** Rows of q, k and v. */
  readonly #weight: Tensor;
  readonly #bias: Tensor;
  readonly #out: Linear;

  constructor(D: number, heads: number) {
    super();
    this.#heads = heads;
    this.#weight = this.parameter("in_proj_weight", nn.init.normal_(empty([3 * D, D]), 0, D ** -0.5));
    this.#bias = this.parameter("in_proj_bias", empty([3 * D]).zero_());
    this.#out = this.register("out_proj", new Linear(D, D));
  }

  /** (B, Q, D), (B, N, D), (B, N, D) → (B, Q, D) */
  forward(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | null): Tensor {
    const D = query.size(-1);
    const [q, k, v] = [query, key, value].map((x, i) =>
      F.linear(x, this.#weight.narrow(0, i * D, D), this.#bias.narrow(0, i * D, D)).unflatten(-1, [this.#heads, -1]),
    ) as [Tensor, Tensor, Tensor];
    return this.#out.forward(F.multiHeadAttention(q, k, v, allowed));
  }
}
