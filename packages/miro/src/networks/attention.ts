/**
 * Multi-head attention and the pre-norm blocks around it.
 *
 * Shapes: B batch, Q receiving tokens, S source tokens, A attention width = heads · E, E head width.
 * The head is the outer index of a feature: feature = head · E + e.
 *
 * With `qkNorm`, queries and keys are layer-normalised over E after the split (Dehghani et al. 2023), one set of
 * parameters for all heads.
 */
import { full, nn, ones, scope, type Tensor } from "@miro-t2i/torch";
import { GeluMlp, SwiGlu } from "./feed-forward.js";
import { residual } from "./fused.js";
import { Linear } from "./linear.js";
import { LayerNorm, RmsNorm } from "./norms.js";

/** Keys and values of the source tokens, heads split and keys normalised: both (B, S, heads, E). */
export interface KeyValue {
  keys: Tensor;
  values: Tensor;
}

/** True where a source token may be attended: (B, 1, 1, S). Null when every token may. */
export type KeyMask = Tensor | null;

/** What one product has computed side by side: (B, Q, n · heads · E) → n times (B, Q, heads, E) */
function splitParts(x: Tensor, n: number, heads: number): Tensor[] {
  return x.unflatten(-1, [n, heads, -1]).unbind(-3);
}

/** Attention of receiving tokens to source tokens. */
export class CrossAttention extends nn.Module {
  readonly q: Linear;
  readonly kv: Linear;
  readonly out: Linear;
  readonly qNorm: LayerNorm;
  readonly kNorm: LayerNorm;

  constructor(
    dimTo: number,
    dimFrom: number,
    readonly heads: number,
  ) {
    super();
    const width = Math.min(dimTo, dimFrom);
    this.q = this.register("q", new Linear(dimTo, width, { bias: false }));
    this.kv = this.register("kv", new Linear(dimFrom, 2 * width, { bias: false }));
    this.out = this.register("out", new Linear(width, dimTo));
    this.qNorm = this.register("q_norm", new LayerNorm(width / heads));
    this.kNorm = this.register("k_norm", new LayerNorm(width / heads));
  }

  /**
   * What the receiving tokens look up: (B, S, dimFrom) → keys and values. Depends on the source alone, so it can be
   * kept.
   */
  keyValue(from: Tensor): KeyValue {
    const [keys, values] = splitParts(this.kv.forward(from), 2, this.heads) as [Tensor, Tensor];
    return { keys: this.kNorm.forward(keys), values };
  }

  /** (B, Q, dimTo) → (B, Q, dimTo) */
  forward(to: Tensor, source: KeyValue, mask: KeyMask): Tensor {
    return this.out.forward(this.hidden(to, source, mask));
  }

  /** The heads' results side by side: (B, Q, dimTo) → (B, Q, A) */
  hidden(to: Tensor, { keys, values }: KeyValue, mask: KeyMask): Tensor {
    const q_BQHE = this.qNorm.forward(this.q.forward(to).unflatten(-1, [this.heads, -1]));
    return nn.functional.multiHeadAttention(q_BQHE, keys, values, mask);
  }
}

/** Attention of tokens to each other. The conditioning transformer has biased projections and no norm of q and k. */
export class SelfAttention extends nn.Module {
  readonly qkv: Linear;
  readonly out: Linear;
  readonly qNorm: LayerNorm | null;
  readonly kNorm: LayerNorm | null;

  constructor(
    dim: number,
    readonly heads: number,
    { qkvBias, qkNorm }: { qkvBias: boolean; qkNorm: boolean },
  ) {
    super();
    this.qkv = this.register("qkv", new Linear(dim, 3 * dim, { bias: qkvBias }));
    this.out = this.register("out", new Linear(dim, dim));
    this.qNorm = qkNorm ? this.register("q_norm", new LayerNorm(dim / heads)) : null;
    this.kNorm = qkNorm ? this.register("k_norm", new LayerNorm(dim / heads)) : null;
  }

  /** (B, Q, dim) → (B, Q, dim) */
  forward(x: Tensor, mask: KeyMask): Tensor {
    return this.out.forward(this.hidden(x, mask));
  }

  /** The heads' results side by side: (B, Q, dim) → (B, Q, dim) */
  hidden(x: Tensor, mask: KeyMask): Tensor {
    const [q, k, v] = splitParts(this.qkv.forward(x), 3, this.heads) as [Tensor, Tensor, Tensor];
    const [queries, keys] = [this.qNorm?.forward(q) ?? q, this.kNorm?.forward(k) ?? k];
    return nn.functional.multiHeadAttention(queries, keys, v, mask);
  }
}

/** `to ← to + CA(norm(to), from)`, `to ← to + SwiGLU(norm(to))`. The source is not normalised. */
export class CrossAttentionBlock extends nn.Module {
  readonly initialNorm: RmsNorm;
  readonly ca: CrossAttention;
  readonly middleNorm: RmsNorm;
  readonly ffn: SwiGlu;

  constructor(
    dimTo: number,
    dimFrom: number,
    heads: number,
    mlpMultiplier: number,
    readonly dropRate: number,
  ) {
    super();
    this.buffer("attention_mask_dummy", ones([1, 1], { dtype: "bool" }));
    this.initialNorm = this.register("initial_to_ln", new RmsNorm(dimTo));
    this.ca = this.register("ca", new CrossAttention(dimTo, dimFrom, heads));
    this.middleNorm = this.register("middle_ln", new RmsNorm(dimTo));
    this.ffn = this.register("ffn", new SwiGlu(dimTo, mlpMultiplier));
  }

  /** (B, Q, dimTo) → (B, Q, dimTo), given the source's {@link CrossAttention.keyValue}. */
  forward(to: Tensor, source: KeyValue, mask: KeyMask = null): Tensor {
    const h = residual(this, to, this.initialNorm, this.ca, source, mask);
    return residual(this, h, this.middleNorm, this.ffn);
  }
}

/** `x ← x + SA(norm(x))`, `x ← x + SwiGLU(norm(x))`: how the latents of a RIN block compute among themselves. */
export class SelfAttentionBlock extends nn.Module {
  readonly initialNorm: RmsNorm;
  readonly sa: SelfAttention;
  readonly middleNorm: RmsNorm;
  readonly ffn: SwiGlu;

  constructor(
    dim: number,
    heads: number,
    mlpMultiplier: number,
    dropout: number,
    readonly dropRate: number,
  ) {
    super();
    this.buffer("attention_mask_dummy", ones([1, 1], { dtype: "bool" }));
    this.initialNorm = this.register("initial_ln", new RmsNorm(dim));
    this.sa = this.register("sa", new SelfAttention(dim, heads, { qkvBias: false, qkNorm: true }));
    this.middleNorm = this.register("middle_ln", new RmsNorm(dim));
    this.ffn = this.register("ffn", new SwiGlu(dim, mlpMultiplier, dropout));
  }

  /** (B, Q, dim) → (B, Q, dim) */
  forward(x: Tensor, mask: KeyMask = null): Tensor {
    const h = residual(this, x, this.initialNorm, this.sa, mask);
    return residual(this, h, this.middleNorm, this.ffn);
  }
}

/**
 * A layer of the conditioning transformer: `x ← x + s₁·SA(LN(x))`, `x ← x + s₂·MLP(LN(x))` with learned vectors s
 * (layer scale, Touvron et al. 2021) that begin at 0.1.
 */
export class TransformerBlock extends nn.Module {
  readonly scale1: Tensor;
  readonly scale2: Tensor;
  readonly initialNorm: LayerNorm;
  readonly sa: SelfAttention;
  readonly middleNorm: LayerNorm;
  readonly ffn: GeluMlp;

  constructor(dim: number, heads: number) {
    super();
    this.scale1 = this.parameter("layer_scale_1", full([dim], 0.1));
    this.scale2 = this.parameter("layer_scale_2", full([dim], 0.1));
    this.buffer("attention_mask_dummy", ones([1, 1], { dtype: "bool" }));
    this.initialNorm = this.register("initial_ln", new LayerNorm(dim));
    this.sa = this.register("sa", new SelfAttention(dim, heads, { qkvBias: true, qkNorm: false }));
    this.middleNorm = this.register("middle_ln", new LayerNorm(dim));
    this.ffn = this.register("ffn", new GeluMlp(dim));
  }

  /** (B, Q, dim) → (B, Q, dim) */
  forward(x: Tensor, mask: KeyMask): Tensor {
    return scope(() => {
      const h = x.add(this.scale1.mul(this.sa.forward(this.initialNorm.forward(x), mask)));
      return h.add(this.scale2.mul(this.ffn.forward(this.middleNorm.forward(h))));
    });
  }
}
