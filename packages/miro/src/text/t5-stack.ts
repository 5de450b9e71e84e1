/**
 * The layers of T5's encoder:
 *
 * x ← x + o · softmax(q kᵀ + relative bias + mask) v,  x ← x + wo · (gelu(wi_0 h) ⊙ (wi_1 h)),  each of h = RMSNorm(x)
 *
 * There are no biases and no 1/√d on the scores. Shapes: B texts, T tokens, d width of the states, H heads, k width of
 * a head. States, norms, softmax and attention are float32 whatever the dtype of the weights; in bfloat16 only the
 * products with weights are.
 */
import { aten, F, isGradEnabled, nn, scope, type Tensor, tensor } from "@miro-t2i/torch";
import type { T5Config } from "./t5-config.js";

/** Bias of a padded key: the lowest float32, as the reference has it, so that a text without tokens gives no NaN. */
const MASKED = -3.4028234663852886e38;
/** Lengths of which the relative bias is kept. */
const CACHED_LENGTHS = 8;

/** All layers. */
export class T5Stack extends nn.Module {
  readonly #block: nn.ModuleList<Block>;
  readonly #norm: Norm;
  readonly #config: T5Config;
  /**
   * Bias (1, H, T, T) by length, device and state of its table, of a frozen encoder: fused optimizers change a table
   * unseen.
   */
  readonly #biases = new Map<string, Tensor>();

  constructor(config: T5Config) {
    super();
    this.#config = config;
    this.#block = this.register(
      "block",
      new nn.ModuleList(Array.from({ length: config.numLayers }, (_, i) => new Block(config, i === 0))),
    );
    this.#norm = this.register("final_layer_norm", new Norm(config));
  }

  forward(x: Tensor, mask: Tensor): Tensor {
    const dropout = this.training ? this.#config.dropoutRate : 0;
    const bias = this.#bias(x.size(1)).maskedFill(mask.logicalNot().unsqueeze(1).unsqueeze(1), MASKED);
    let states = F.dropout(x, dropout);
    for (const block of this.#block) states = scope(() => block.forward(states, bias));
    return F.dropout(this.#norm.forward(states), dropout);
  }

  #bias(length: number): Tensor {
    const table = this.#block.items[0]!.attention.relativeBias!.weight;
    const compute = () => {
      const { relativeAttentionNumBuckets: buckets, relativeAttentionMaxDistance: furthest } = this.#config;
      const indices = tensor(relativeBuckets(length, buckets, furthest), {
        shape: [length, length],
        device: table.device,
      });
      return F.embedding(indices, table).float().permute(2, 0, 1).unsqueeze(0).contiguous();
    };
    if (table.requiresGrad || isGradEnabled()) return compute();
    const key = `${length} ${table.device} ${table.dtype} ${aten._version(table)}`;
    let bias = this.#biases.get(key);
    if (!bias) {
      if (this.#biases.size >= CACHED_LENGTHS) this.forgetBias();
      bias = scope(compute).keep();
      this.#biases.set(key, bias);
    }
    return bias;
  }

  /** To be called when the table may have become another one. */
  forgetBias(): void {
    for (const bias of this.#biases.values()) bias.dispose();
    this.#biases.clear();
  }
}

/** One layer: attention and feed-forward. */
class Block extends nn.Module {
  readonly attention: Attention;
  readonly #layers: [AttentionLayer, FeedForwardLayer];

  constructor(config: T5Config, withBias: boolean) {
    super();
    this.#layers = [new AttentionLayer(config, withBias), new FeedForwardLayer(config)];
    this.register("layer", new nn.ModuleList<nn.Module>(this.#layers));
    this.attention = this.#layers[0].attention;
  }

  forward(x: Tensor, bias: Tensor): Tensor {
    return this.#layers[1].forward(this.#layers[0].forward(x, bias));
  }
}

class AttentionLayer extends nn.Module {
  readonly attention: Attention;
  readonly #norm: Norm;
  readonly #dropout: number;

  constructor(config: T5Config, withBias: boolean) {
    super();
    this.attention = this.register("SelfAttention", new Attention(config, withBias));
    this.#norm = this.register("layer_norm", new Norm(config));
    this.#dropout = config.dropoutRate;
  }

  forward(x: Tensor, bias: Tensor): Tensor {
    return x.add(F.dropout(this.attention.forward(this.#norm.forward(x), bias), this.#dropout, this.training));
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

class Attention extends nn.Module {
  readonly #q: nn.Linear;
  readonly #k: nn.Linear;
  readonly #v: nn.Linear;
  readonly #o: nn.Linear;
  /** (buckets, H), in the first layer only. */
  readonly relativeBias: nn.Embedding | null;
  readonly #heads: number;
  readonly #dropout: number;

  constructor(
    { dModel, dKv, numHeads, relativeAttentionNumBuckets, dropoutRate, initializerFactor: f }: T5Config,
    withBias: boolean,
  ) {
    super();
    const inner = numHeads * dKv;
    this.#heads = numHeads;
    this.#dropout = dropoutRate;
    this.#q = this.register("q", linear(dModel, inner, f * (dModel * dKv) ** -0.5));
    this.#k = this.register("k", linear(dModel, inner, f * dModel ** -0.5));
    this.#v = this.register("v", linear(dModel, inner, f * dModel ** -0.5));
    this.#o = this.register("o", linear(inner, dModel, f * inner ** -0.5));
    this.relativeBias = withBias
      ? this.register("relative_attention_bias", new nn.Embedding(relativeAttentionNumBuckets, numHeads))
      : null;
    if (this.relativeBias) nn.init.normal_(this.relativeBias.weight, 0, f * dModel ** -0.5);
  }

  /** (B, T, d), (B or 1, H, T, T) → (B, T, d) */
  forward(x: Tensor, bias: Tensor): Tensor {
    const [B, T] = x.shape as [number, number];
    const h = x.to({ dtype: this.#q.weight.dtype });
    const [q, k, v] = [this.#q, this.#k, this.#v].map((projection) =>
      projection.forward(h).float().view(B, T, this.#heads, -1).transpose(1, 2),
    ) as [Tensor, Tensor, Tensor]; // (B, H, T, k)
    const dropout = this.training ? this.#dropout : 0;
    const attended = F.scaledDotProductAttention(q, k, v, { mask: bias, scale: 1, dropout });
    return this.#o.forward(attended.transpose(1, 2).reshape(B, T, -1).to({ dtype: this.#o.weight.dtype }));
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

function linear(inputs: number, outputs: number, std: number): nn.Linear {
  const layer = nn.init.skipped(() => new nn.Linear(inputs, outputs, { bias: false }));
  nn.init.normal_(layer.weight, 0, std);
  return layer;
}

/**
 * Buckets of the relative positions key − query, as T5 has them: for each direction half of them; of those the first
 * half exact distances, the rest logarithmically wider ones up to `furthest`.
 *
 * @returns (length · length), row by query; in float32 steps, as the reference rounds
 */
export function relativeBuckets(length: number, buckets: number, furthest: number): BigInt64Array {
  const half = buckets / 2;
  const exact = Math.floor(half / 2);
  const span = Math.fround(Math.log(furthest / exact));
  const bucketOf = (distance: number) => {
    if (distance < exact) return distance;
    const position = Math.fround(Math.fround(Math.log(Math.fround(distance / exact))) / span);
    return Math.min(half - 1, exact + Math.trunc(Math.fround(position * (half - exact))));
  };
  const byDistance = Array.from({ length }, (_, distance) => bucketOf(distance));
  const result = new BigInt64Array(length * length);
  for (let query = 0; query < length; query++)
    for (let key = 0; key < length; key++)
      result[query * length + key] = BigInt(byDistance[Math.abs(key - query)]! + (key > query ? half : 0));
  return result;
}
