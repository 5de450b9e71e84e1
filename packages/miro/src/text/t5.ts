/**
 * The encoder of T5 1.1 / FLAN-T5 (Raffel et al. 2020, "Exploring the Limits of Transfer Learning"; Shazeer 2020, "GLU Variants
 * Improve Transformer"), with the state-dict names of transformers' `T5EncoderModel`.
 *
 * x ← x + o · softmax(q kᵀ + relative bias + mask) v,  x ← x + wo · (gelu(wi_0 h) ⊙ (wi_1 h)),  each of h = RMSNorm(x)
 *
 * There are no biases and no 1/√d on the scores. Shapes: B texts, T tokens, d width of the states, H heads, k width of a head.
 * States, norms, softmax and attention are float32 whatever the dtype of the weights; in bfloat16 only the products with
 * weights are.
 */
import { existsSync, readdirSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { aten, F, isGradEnabled, nn, scope, type Tensor, tensor } from "@miro-t2i/torch";
import {
  loadModule,
  SafetensorsFile,
  type StoredTensor,
  writeFileAtomically,
  writeSafetensors,
} from "@miro-t2i/torch/io";
import { InvalidInputError, invalid, MiroError } from "../errors.js";
import { readJson } from "../files/json-file.js";
import {
  checkT5Config,
  countT5Parameters,
  type T5Config,
  type T5ConfigInput,
  t5ConfigFromJson,
  t5ConfigText,
} from "./t5-config.js";

/** Bias of a padded key: the lowest float32, as the reference has it, so that a text without tokens gives no NaN. */
const MASKED = -3.4028234663852886e38;
/** Lengths of which the relative bias is kept. */
const CACHED_LENGTHS = 8;

export interface T5LoadOptions {
  /** Dtype of the weights (default float32). float16 is not offered: T5's feed-forward layers overflow in it. */
  dtype?: "float32" | "bfloat16";
  /** Default "cpu". */
  device?: string;
}

export class T5Encoder extends nn.Module {
  readonly config: T5Config;
  readonly #shared: nn.Embedding;
  readonly #encoder: Stack;

  /**
   * An encoder with random weights, drawn as transformers does (embedding N(0, 1), projections N(0, 1/inputs), queries also
   * divided by √k because the scores are not).
   */
  constructor(config: T5ConfigInput) {
    super();
    this.config = checkT5Config(config);
    const { vocabSize, dModel, initializerFactor } = this.config;
    this.#shared = this.register("shared", new nn.Embedding(vocabSize, dModel));
    if (initializerFactor !== 1) nn.init.normal_(this.#shared.weight, 0, initializerFactor);
    this.#encoder = this.register("encoder", new Stack(this.config));
  }

  /** Reads the parsed content of a `config.json`; see {@link t5ConfigFromJson}. */
  static configFromJson(json: unknown, source?: string): T5Config {
    return t5ConfigFromJson(json, source);
  }

  /**
   * Loads a folder in Hugging Face layout: `config.json` and `model.safetensors`, or shards with
   * `model.safetensors.index.json`. A decoder and output head are never read. In evaluation mode; the weights record gradients
   * until `requiresGrad_(false)`.
   *
   * @throws InvalidInputError (files, config), MiroError or TorchError (weights) that names the file and what is wrong
   */
  static async fromPretrained(
    folder: string,
    { dtype = "float32", device = "cpu" }: T5LoadOptions = {},
  ): Promise<T5Encoder> {
    if (dtype !== "float32" && dtype !== "bfloat16")
      throw invalid("dtype", '"float32" or "bfloat16" for a T5 encoder', dtype);
    const file = join(folder, "config.json");
    const config = t5ConfigFromJson(readJson(file), file);
    const files: SafetensorsFile[] = [];
    try {
      const stored = new Map<string, StoredTensor>();
      let held = 0;
      for (const [path, wanted] of findWeights(folder)) {
        const shard = SafetensorsFile.open(path);
        files.push(shard);
        for (const name of wanted ?? shard.keys()) {
          const key = encoderKey(name);
          if (key === null || stored.has(key)) continue;
          stored.set(key, { file: shard, key: name });
          held += shard.info(name).shape.reduce((product, size) => product * size, 1);
        }
      }
      const described = countT5Parameters(config);
      if (described > 2 * held)
        throw new InvalidInputError(`${file}: describes ${described} weights, ${folder} holds ${held} of an encoder`);
      const model = scope(() => nn.init.skipped(() => new T5Encoder(config)));
      try {
        loadModule(model, stored, { dtype, device });
      } catch (error) {
        model.dispose();
        throw naming(folder, error);
      }
      return model.eval();
    } finally {
      for (const shard of files) shard.close();
    }
  }

  /**
   * Writes `config.json` and `model.safetensors`, which {@link fromPretrained} and transformers read.
   *
   * @param dtype of the written weights (default: as they are)
   */
  async save(folder: string, { dtype }: { dtype?: "float32" | "bfloat16" | "float16" } = {}): Promise<void> {
    await mkdir(folder, { recursive: true });
    scope(() => {
      const tensors = new Map<string, Tensor>();
      for (const [key, weight] of this.stateDict())
        tensors.set(key, weight.detach().to({ dtype: dtype ?? weight.dtype, device: "cpu" }));
      writeSafetensors(join(folder, "model.safetensors"), tensors, { format: "pt" });
    });
    writeFileAtomically(join(folder, "config.json"), (write) => write(Buffer.from(t5ConfigText(this.config))));
  }

  /**
   * Encodes tokens. Padded positions yield states too, which mean nothing; they do not influence the others.
   *
   * @param ids (B, T) int64, padded anywhere
   * @param mask (B, T) bool, true on tokens
   * @returns (B, T, d) float32; the caller owns it
   */
  forward(ids: Tensor, mask: Tensor): Tensor {
    if (ids.ndim !== 2) throw invalid("ids", "shape (texts, tokens)", `shape (${ids.shape})`);
    if (String(mask.shape) !== String(ids.shape) || mask.dtype !== "bool")
      throw invalid("mask", `bool of shape (${ids.shape})`, `${mask.dtype} of shape (${mask.shape})`);
    return scope(() => this.#encoder.forward(this.#shared.forward(ids).float(), mask));
  }

  override loadStateDict(...args: Parameters<nn.Module["loadStateDict"]>): nn.LoadStateDictResult {
    this.#encoder.forgetBias();
    return super.loadStateDict(...args);
  }

  override to(target: Parameters<nn.Module["to"]>[0]): this {
    this.#encoder.forgetBias();
    return super.to(target);
  }

  override dispose(): void {
    this.#encoder.forgetBias();
    super.dispose();
  }
}

/** All layers. */
class Stack extends nn.Module {
  readonly #block: nn.ModuleList<Block>;
  readonly #norm: Norm;
  readonly #config: T5Config;
  /** Bias (1, H, T, T) by length, device and state of its table, of a frozen encoder: fused optimisers change a table unseen. */
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
 * Buckets of the relative positions key − query, as T5 has them: for each direction half of them; of those the first half
 * exact distances, the rest logarithmically wider ones up to `furthest`.
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

/** What a stored tensor is called here: null if it does not belong to the encoder. Anything unknown is left to the strict loader. */
function encoderKey(name: string): string | null {
  if (name === "encoder.embed_tokens.weight") return "shared.weight";
  return name.startsWith("decoder.") || name === "lm_head.weight" ? null : name;
}

/** What is the matter with a folder that has no safetensors. */
function noWeights(files: readonly string[]): string {
  const pickled = files.filter((name) => /^pytorch_model.*\.bin(\.index\.json)?$/.test(name));
  if (pickled.length === 0) return "neither model.safetensors nor model.safetensors.index.json is there";
  return `holds its weights as ${pickled[0]} only, which can run code when it is read; convert them to model.safetensors, or take a revision that has it`;
}

/** An error about a folder's weights that says which folder. */
function naming(folder: string, error: unknown): unknown {
  if (!(error instanceof Error) || error.message.includes(folder)) return error;
  return new MiroError(`${folder}: ${error.message}`, { cause: error });
}

/** The weights' files, each with the tensors to take from it (null: all). */
function findWeights(folder: string): Map<string, string[] | null> {
  const single = join(folder, "model.safetensors");
  if (existsSync(single)) return new Map([[single, null]]);
  const index = join(folder, "model.safetensors.index.json");
  if (!existsSync(index)) throw new InvalidInputError(`${folder}: ${noWeights(readdirSync(folder))}`);
  const json = readJson(index);
  const map = (json as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map))
    throw invalid(`${index}: weight_map`, "an object from tensor names to file names", map);
  const shards = new Map<string, string[]>();
  for (const [name, file] of Object.entries(map)) {
    if (typeof file !== "string" || !/^[\w.-]+\.safetensors$/.test(file))
      throw invalid(`${index}: weight_map[${JSON.stringify(name)}]`, "the name of a .safetensors file beside it", file);
    if (encoderKey(name) === null) continue;
    const path = join(folder, file);
    shards.set(path, [...(shards.get(path) ?? []), name]);
  }
  return shards;
}
