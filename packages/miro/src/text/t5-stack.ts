/**
 * The layers of T5:
 *
 * x ← x + o · softmax(q kᵀ + relative bias + mask) v,  x ← x + wo · (gelu(wi_0 h) ⊙ (wi_1 h)),  each of h = RMSNorm(x)
 *
 * A decoder's layers have attention to the encoder's states in between, without a bias. There are no biases of linear
 * layers and no 1/√d on the scores. Shapes: B texts, T tokens of a text, N of all texts, L labels, d width of the
 * states, H heads, k width of a head. States, norms, softmax and attention are float32 whatever the dtype of the
 * weights; in bfloat16 only the products with weights are.
 */
import { aten, cat, F, isGradEnabled, nn, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { atOnce, type ByLayer, holding } from "../networks/by-layer.js";
import type { T5Config } from "./t5-config.js";

/** Bias of a padded key: the lowest float32, as the reference has it, so that a text without tokens gives no NaN. */
const MASKED = -3.4028234663852886e38;
/** Lengths of which the relative bias is kept. */
const CACHED_LENGTHS = 8;

/** Which of the two stacks. */
export type T5Side = "encoder" | "decoder";

/** Texts of different lengths without padding, one behind another. */
export interface T5Rows {
  /** (N, d) float32 */
  states: Tensor;
  /** Of each text; their sum is N. */
  lengths: readonly number[];
}

/** Which positions see which: queries, keys and values (…, H·k) of a batch → (…, H·k) */
type Attend = (q: Tensor, k: Tensor, v: Tensor) => Tensor;

/** All layers of one side. */
export class T5Stack extends nn.Module {
  readonly #blocks: Iterable<T5Block>;
  readonly #norm: Norm;
  readonly #config: T5Config;
  readonly #side: T5Side;
  /** (buckets, H) */
  readonly #relativeBias: nn.Embedding;
  /**
   * Bias (1, H, T, T) by length, device and state of its table, of a frozen encoder: fused optimizers change a table
   * unseen.
   */
  readonly #biases = new Map<string, Tensor>();

  /**
   * @param blocks that are kept elsewhere, for weights that are not all in memory; the table of the relative bias is
   *   then the stack's own, `relative_attention_bias`. Default: blocks of the stack's own, with random weights
   */
  constructor(config: T5Config, side: T5Side = "encoder", blocks: Iterable<T5Block> | null = null) {
    super();
    this.#config = config;
    this.#side = side;
    if (blocks === null) {
      const own = Array.from({ length: config.numLayers }, (_, i) => new T5Block(config, side, i === 0));
      this.#blocks = this.register("block", new nn.ModuleList(own));
      this.#relativeBias = own[0]!.relativeBias!;
    } else {
      this.#blocks = blocks;
      this.#relativeBias = this.register("relative_attention_bias", relativeBiasTable(config));
    }
    this.#norm = this.register("final_layer_norm", new Norm(config));
  }

  /** Padded texts: (B, T, d), (B, T) bool → (B, T, d). What stands in padded positions has no influence. */
  forward(x: Tensor, mask: Tensor): Tensor {
    const bias = this.#bias(x.size(1)).maskedFill(mask.logicalNot().unsqueeze(1).unsqueeze(1), MASKED);
    return atOnce(this.#run(x, this.#attendPadded(bias)));
  }

  /** Texts without padding, which see nothing of each other: → (N, d) */
  encode(rows: T5Rows): Tensor {
    return atOnce(this.encodeByLayer(rows));
  }

  /** As {@link encode}, with stops. */
  *encodeByLayer({ states, lengths }: T5Rows): ByLayer<Tensor> {
    const bias = this.#newBias(Math.max(...lengths));
    const attend: Attend = (q, k, v) => this.#attendRows(q, k, v, lengths, bias);
    return yield* holding([bias], this.#run(states, attend));
  }

  /** Labels that see those before them and all of their text: (B, L, d) → (B, L, d) */
  *decodeByLayer(x: Tensor, encoded: T5Rows): ByLayer<Tensor> {
    const L = x.size(1);
    const later = tensor(Array.from({ length: L * L }, (_, i) => i % L > Math.floor(i / L))).view(L, L);
    const bias = this.#bias(L).maskedFill(later.to({ device: x.device }), MASKED);
    return yield* holding([bias], this.#run(x, this.#attendPadded(bias), encoded));
  }

  *#run(x: Tensor, attend: Attend, encoded: T5Rows | null = null): ByLayer<Tensor> {
    const dropout = this.training ? this.#config.dropoutRate : 0;
    let states = F.dropout(x, dropout);
    for (const block of this.#blocks) {
      yield states === x ? [] : [states];
      states = scope(() => block.forward(states, attend, encoded));
    }
    return F.dropout(this.#norm.forward(states), dropout);
  }

  #attendPadded(bias: Tensor): Attend {
    const { numHeads: H, dKv } = this.#config;
    return (...qkv) => {
      const [B, T] = qkv[0].shape as [number, number];
      const [q_BHTk, k_BHTk, v_BHTk] = qkv.map((x) => x.view(B, T, H, dKv).transpose(1, 2)) as [Tensor, Tensor, Tensor];
      const dropout = this.training ? this.#config.dropoutRate : 0;
      const attended_BHTk = F.scaledDotProductAttention(q_BHTk, k_BHTk, v_BHTk, { mask: bias, scale: 1, dropout });
      return attended_BHTk.transpose(1, 2).reshape(B, T, -1);
    };
  }

  #attendRows(q: Tensor, k: Tensor, v: Tensor, lengths: readonly number[], bias: Tensor): Tensor {
    const dropout = this.training ? this.#config.dropoutRate : 0;
    return cat(
      splitRows(lengths).map(({ start, length: T }) =>
        scope(() => {
          const [q_1HTk, k_1HTk, v_1HTk] = [q, k, v].map((x) =>
            x.narrow(0, start, T).view(1, T, this.#config.numHeads, -1).transpose(1, 2),
          ) as [Tensor, Tensor, Tensor];
          const mask = bias.narrow(2, 0, T).narrow(3, 0, T);
          const attended = F.scaledDotProductAttention(q_1HTk, k_1HTk, v_1HTk, { mask, scale: 1, dropout });
          return attended.transpose(1, 2).reshape(T, -1);
        }),
      ),
      0,
    );
  }

  #newBias(length: number): Tensor {
    const { relativeAttentionNumBuckets: buckets, relativeAttentionMaxDistance: furthest } = this.#config;
    const { weight } = this.#relativeBias;
    return scope(() => {
      const indices = tensor(relativeBuckets(length, buckets, furthest, this.#side), {
        shape: [length, length],
        device: weight.device,
      });
      return F.embedding(indices, weight).float().permute(2, 0, 1).unsqueeze(0).contiguous();
    });
  }

  #bias(length: number): Tensor {
    const table = this.#relativeBias.weight;
    if (table.requiresGrad || isGradEnabled()) return this.#newBias(length);
    const key = `${length} ${table.device} ${table.dtype} ${aten._version(table)}`;
    let bias = this.#biases.get(key);
    if (!bias) {
      if (this.#biases.size >= CACHED_LENGTHS) this.forgetBias();
      bias = this.#newBias(length).keep();
      this.#biases.set(key, bias);
    }
    return bias;
  }

  /** To be called when the table may have become another one. */
  forgetBias(): void {
    for (const bias of this.#biases.values()) bias.dispose();
    this.#biases.clear();
  }

  override dispose(): void {
    this.forgetBias();
    super.dispose();
  }
}

/** Where each text lies among the rows. */
function splitRows(lengths: readonly number[]): { start: number; length: number }[] {
  let start = 0;
  return lengths.map((length) => {
    start += length;
    return { start: start - length, length };
  });
}

/** One layer: attention, in a decoder also to the encoder's states, and feed-forward. */
export class T5Block extends nn.Module {
  readonly #attention: AttentionLayer;
  readonly #cross: CrossAttentionLayer | null;
  readonly #feedForward: FeedForwardLayer;

  /** @param withBias whether the stack's relative bias is here, as the first layer of a whole stack has it */
  constructor(config: T5Config, side: T5Side, withBias = false) {
    super();
    this.#attention = new AttentionLayer(config, withBias);
    this.#cross = side === "decoder" ? new CrossAttentionLayer(config) : null;
    this.#feedForward = new FeedForwardLayer(config);
    const layers = [this.#attention, ...(this.#cross ? [this.#cross] : []), this.#feedForward];
    this.register("layer", new nn.ModuleList<nn.Module>(layers));
  }

  get relativeBias(): nn.Embedding | null {
    return this.#attention.relativeBias;
  }

  forward(x: Tensor, attend: Attend, encoded: T5Rows | null): Tensor {
    x = this.#attention.forward(x, attend);
    if (this.#cross && encoded) x = this.#cross.forward(x, encoded);
    return this.#feedForward.forward(x);
  }
}

class AttentionLayer extends nn.Module {
  readonly #attention: Attention;
  readonly #norm: Norm;
  readonly #dropout: number;

  constructor(config: T5Config, withBias: boolean) {
    super();
    this.#attention = this.register("SelfAttention", new Attention(config, withBias));
    this.#norm = this.register("layer_norm", new Norm(config));
    this.#dropout = config.dropoutRate;
  }

  get relativeBias(): nn.Embedding | null {
    return this.#attention.relativeBias;
  }

  forward(x: Tensor, attend: Attend): Tensor {
    return x.add(F.dropout(this.#attention.forward(this.#norm.forward(x), attend), this.#dropout, this.training));
  }
}

class CrossAttentionLayer extends nn.Module {
  readonly #attention: CrossAttention;
  readonly #norm: Norm;
  readonly #dropout: number;

  constructor(config: T5Config) {
    super();
    this.#attention = this.register("EncDecAttention", new CrossAttention(config));
    this.#norm = this.register("layer_norm", new Norm(config));
    this.#dropout = config.dropoutRate;
  }

  forward(x: Tensor, encoded: T5Rows): Tensor {
    return x.add(F.dropout(this.#attention.forward(this.#norm.forward(x), encoded), this.#dropout, this.training));
  }
}

class FeedForwardLayer extends nn.Module {
  readonly #feedForward: FeedForward;
  readonly #norm: Norm;
  readonly #dropout: number;

  constructor(config: T5Config) {
    super();
    this.#feedForward = this.register("DenseReluDense", new FeedForward(config));
    this.#norm = this.register("layer_norm", new Norm(config));
    this.#dropout = config.dropoutRate;
  }

  forward(x: Tensor): Tensor {
    return x.add(F.dropout(this.#feedForward.forward(this.#norm.forward(x)), this.#dropout, this.training));
  }
}

/** The weights of attention. */
class Projections extends nn.Module {
  protected readonly q: nn.Linear;
  protected readonly k: nn.Linear;
  protected readonly v: nn.Linear;
  protected readonly o: nn.Linear;

  constructor({ dModel, dKv, numHeads, initializerFactor: f }: T5Config) {
    super();
    const inner = numHeads * dKv;
    this.q = this.register("q", linear(dModel, inner, f * (dModel * dKv) ** -0.5));
    this.k = this.register("k", linear(dModel, inner, f * dModel ** -0.5));
    this.v = this.register("v", linear(dModel, inner, f * dModel ** -0.5));
    this.o = this.register("o", linear(inner, dModel, f * inner ** -0.5));
  }
}

class Attention extends Projections {
  readonly relativeBias: nn.Embedding | null;

  constructor(config: T5Config, withBias: boolean) {
    super(config);
    this.relativeBias = withBias ? this.register("relative_attention_bias", relativeBiasTable(config)) : null;
  }

  /** (…, d) → (…, d) */
  forward(x: Tensor, attend: Attend): Tensor {
    const h = x.to({ dtype: this.q.weight.dtype });
    const [q, k, v] = [this.q, this.k, this.v].map((projection) => projection.forward(h).float()) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    return this.o.forward(attend(q, k, v).to({ dtype: this.o.weight.dtype }));
  }
}

/**
 * Attention of a few labels to the many states of their text. Keys and values of the states are never made:
 *
 *   q · (Wₖ h) = (Wₖᵀ q) · h,   Σ aᵢ (Wᵥ hᵢ) = Wᵥ (Σ aᵢ hᵢ)
 */
class CrossAttention extends Projections {
  readonly #heads: number;
  readonly #dropout: number;

  constructor(config: T5Config) {
    super(config);
    this.#heads = config.numHeads;
    this.#dropout = config.dropoutRate;
  }

  /** (B, L, d) and the text of each → (B, L, d) */
  forward(x: Tensor, { states, lengths }: T5Rows): Tensor {
    const [B, L, d] = x.shape as [number, number, number];
    const H = this.#heads;
    const { dtype } = this.q.weight;
    const q_BLHk = this.q.forward(x.to({ dtype })).view(B * L, H, -1);
    const asked_HBLd = q_BLHk.transpose(0, 1).matmul(this.k.weight.view(H, -1, d));
    const asked_BHLd = asked_HBLd
      .float()
      .view(H, B, L, d)
      .transpose(0, 1)
      .reshape(B, H * L, d);
    const found_BHLd = cat(
      splitRows(lengths).map(({ start, length: T }, b) =>
        scope(() => {
          const h_Td = states.narrow(0, start, T);
          const weights = asked_BHLd.select(0, b).matmul(h_Td.t()).softmax(-1);
          return F.dropout(weights, this.#dropout, this.training).matmul(h_Td);
        }),
      ),
      0,
    );
    const found_HBLd = found_BHLd
      .view(B, H, L, d)
      .transpose(0, 1)
      .reshape(H, B * L, d)
      .to({ dtype });
    const v_HBLk = found_HBLd.matmul(this.v.weight.view(H, -1, d).transpose(1, 2));
    return this.o.forward(v_HBLk.transpose(0, 1).reshape(B, L, -1));
  }
}

class FeedForward extends nn.Module {
  readonly #gate: nn.Linear;
  readonly #value: nn.Linear;
  readonly #out: nn.Linear;
  readonly #dropout: number;

  constructor({ dModel, dFf, dropoutRate, initializerFactor: f }: T5Config) {
    super();
    this.#gate = this.register("wi_0", linear(dModel, dFf, f * dModel ** -0.5));
    this.#value = this.register("wi_1", linear(dModel, dFf, f * dModel ** -0.5));
    this.#out = this.register("wo", linear(dFf, dModel, f * dFf ** -0.5));
    this.#dropout = dropoutRate;
  }

  forward(x: Tensor): Tensor {
    const h = x.to({ dtype: this.#gate.weight.dtype });
    const gated = F.gelu(this.#gate.forward(h), { approximate: "tanh" }).mul(this.#value.forward(h));
    return this.#out.forward(F.dropout(gated, this.#dropout, this.training));
  }
}

/** Root-mean-square norm in float32. */
class Norm extends nn.Module {
  readonly #weight: Tensor;
  readonly #eps: number;

  constructor({ dModel, layerNormEpsilon, initializerFactor }: T5Config) {
    super();
    this.#weight = this.parameter("weight", tensor(new Float32Array(dModel).fill(initializerFactor)));
    this.#eps = layerNormEpsilon;
  }

  forward(x: Tensor): Tensor {
    return F.rmsNorm(x, this.#weight.shape, this.#weight.float(), this.#eps);
  }
}

/** (buckets, H) */
function relativeBiasTable({ relativeAttentionNumBuckets, numHeads, dModel, initializerFactor: f }: T5Config) {
  const table = new nn.Embedding(relativeAttentionNumBuckets, numHeads);
  nn.init.normal_(table.weight, 0, f * dModel ** -0.5);
  return table;
}

function linear(inputs: number, outputs: number, std: number): nn.Linear {
  const layer = nn.init.skipped(() => new nn.Linear(inputs, outputs, { bias: false }));
  nn.init.normal_(layer.weight, 0, std);
  return layer;
}

/**
 * Buckets of the relative positions key − query, as T5 has them. In an encoder half of them are for keys before the
 * query and half for those behind it; in a decoder all are for keys before it, and those behind share the first. Of
 * each direction's the first half are exact distances, the rest logarithmically wider ones up to `furthest`.
 *
 * @returns (length · length), row by query; in float32 steps, as the reference rounds
 */
export function relativeBuckets(
  length: number,
  buckets: number,
  furthest: number,
  side: T5Side = "encoder",
): BigInt64Array {
  const inOneDirection = side === "encoder" ? buckets / 2 : buckets;
  const exact = Math.floor(inOneDirection / 2);
  const span = Math.fround(Math.log(furthest / exact));
  const bucketOf = (distance: number) => {
    if (distance < exact) return distance;
    const position = Math.fround(Math.fround(Math.log(Math.fround(distance / exact))) / span);
    return Math.min(inOneDirection - 1, exact + Math.trunc(Math.fround(position * (inOneDirection - exact))));
  };
  const before = BigInt64Array.from({ length }, (_, distance) => BigInt(bucketOf(distance)));
  const behind = side === "encoder" ? before.map((bucket) => bucket + BigInt(inOneDirection)) : before.map(() => 0n);
  const result = new BigInt64Array(length * length);
  for (let query = 0; query < length; query++)
    for (let key = 0; key < length; key++)
      result[query * length + key] = key > query ? behind[key - query]! : before[query - key]!;
  return result;
}
