/**
 * T5 1.1 / FLAN-T5 whole, to judge labels: encoder, decoder and an output head of its own (not the embedding's table,
 * so the decoder's states are not scaled). Shapes: B texts, N tokens of all texts, L labels, V tokens of the
 * vocabulary, d width of the states.
 */
import { cat, empty, F, nn, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { atOnce, type ByLayer, holding } from "../networks/by-layer.js";
import type { T5Config } from "./t5-config.js";
import { type T5Block, type T5Rows, T5Stack } from "./t5-stack.js";

/** Where the blocks of the stacks come from: they may be in memory, or be read one after another. */
export interface T5BlockSource {
  encoder: Iterable<T5Block>;
  decoder: Iterable<T5Block>;
}

/** Everything but the blocks. */
export class T5Seq2Seq extends nn.Module {
  readonly #shared: nn.Embedding;
  readonly #encoder: T5Stack;
  readonly #decoder: T5Stack;
  readonly #head: Head;

  /** @param tokens rows of the embedding and of the head */
  constructor(config: T5Config, tokens: number, blocks: T5BlockSource) {
    super();
    this.#shared = this.register("shared", new nn.Embedding(tokens, config.dModel));
    this.#encoder = this.register("encoder", new T5Stack(config, "encoder", blocks.encoder));
    this.#decoder = this.register("decoder", new T5Stack(config, "decoder", blocks.decoder));
    this.#head = this.register("lm_head", new Head(config.dModel, tokens));
  }

  /** Ids → (their number, d) float32 */
  embed(ids: readonly number[]): Tensor {
    return scope(() => this.#shared.forward(this.#indices(ids)).float());
  }

  /** Embedded texts → states (N, d) */
  encode(texts: T5Rows): T5Rows {
    return atOnce(this.encodeByLayer(texts));
  }

  /** As {@link encode}, with stops. */
  *encodeByLayer(texts: T5Rows): ByLayer<T5Rows> {
    return { ...texts, states: yield* this.#encoder.encodeByLayer(texts) };
  }

  /** Last states of the decoder (B, L, d), when it is given the start token and all labels but the last. */
  decode(encoded: T5Rows, labels: readonly number[], start: number): Tensor {
    return atOnce(this.decodeByLayer(encoded, labels, start));
  }

  /** As {@link decode}, with stops. */
  *decodeByLayer(encoded: T5Rows, labels: readonly number[], start: number): ByLayer<Tensor> {
    const inputs_1Ld = this.embed([start, ...labels.slice(0, -1)]).unsqueeze(0);
    const inputs_BLd = cat(
      encoded.lengths.map(() => inputs_1Ld),
      0,
    );
    return yield* holding([inputs_BLd], this.#decoder.decodeByLayer(inputs_BLd, encoded));
  }

  /** States (B, L, d) → logits (B, L, V) float32 */
  logits(states: Tensor): Tensor {
    return this.#head.forward(states);
  }

  #indices(ids: readonly number[]): Tensor {
    return tensor(BigInt64Array.from(ids, BigInt), { dtype: "int64", device: this.#shared.weight.device });
  }

  override dispose(): void {
    this.#encoder.forgetBias();
    this.#decoder.forgetBias();
    super.dispose();
  }
}

/** The output head, in float32 whatever the dtype of the rest. */
class Head extends nn.Module {
  readonly #weight: Tensor;

  constructor(width: number, tokens: number) {
    super();
    const weight = empty([tokens, width]);
    this.#weight = this.buffer("weight", nn.init.normal_(weight, 0, width ** -0.5), { keepDtype: true });
  }

  forward(x: Tensor): Tensor {
    return F.linear(x.float(), this.#weight);
  }
}
