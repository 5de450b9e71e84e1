/** Training batches from cached latents and the frozen text encoder. */
import { Generator, noGrad, randperm, scope, tensor } from "@miro-t2i/torch";
import { normalize } from "../../autoencoder/normalization.js";
import { samplesBefore } from "../../data/shards/order.js";
import type { LossBatch } from "../../flow/loss.js";
import { toDevice } from "../../flow/to-device.js";
import { longestText } from "../../networks/conditioning.js";
import { streamSeed } from "../../random/streams.js";
import { T5Encoder } from "../../text/t5.js";
import { Tokenizer } from "../../text/tokenizer.js";
import type { BatchSource, DataConstants, FrozenModels } from "../../training/batches/batches.js";
import { encodedEmptyPrompt } from "../../training/batches/empty-prompt.js";
import { normalizationOf } from "../../training/batches/latent-statistics.js";
import type { SourceContext } from "../../training/batches/sources.js";
import type { EmojiData } from "./emoji-data.js";
import { LatentCache } from "./latent-cache.js";

export interface EmojiBatchesOptions
  extends Pick<
    SourceContext,
    "seed" | "batchSize" | "spans" | "rows" | "device" | "sigmaData" | "signal" | "onProgress"
  > {
  data: EmojiData;
  /** Make the scenes that are missing (default); otherwise another process does, and they are waited for. */
  makesScenes?: boolean;
}

/**
 * Sample i of the stream (those of all steps before, then the rows) is scene i in the first pass over the data, so that
 * training can begin while later scenes are still being made; every later pass has an order of its own, drawn from
 * (seed, pass).
 */
export class EmojiBatches implements BatchSource {
  #order: { pass: number; indices: BigInt64Array } | null = null;
  readonly #options: EmojiBatchesOptions;
  readonly #cache: LatentCache;

  private constructor(
    options: EmojiBatchesOptions,
    cache: LatentCache,
    readonly frozen: FrozenModels,
  ) {
    this.#options = options;
    this.#cache = cache;
  }

  static async open(options: EmojiBatchesOptions): Promise<EmojiBatches> {
    const { data, device, sigmaData, makesScenes = true, signal, onProgress } = options;
    const tokenizer = await Tokenizer.fromFile(data.textEncoder);
    const encoder = await T5Encoder.fromPretrained(data.textEncoder, { device, dtype: "float32", signal });
    encoder.requiresGrad_(false).eval();
    const cache = await LatentCache.open(data, {
      makes: makesScenes,
      signal,
      onProgress: (done, all) => onProgress?.("drawing the first scenes", done, all, "scenes"),
    });
    const { scale, bias } = scope(() => {
      const first = cache.latents.narrow(0, 0, Math.min(data.shardSize, data.samples));
      const { scale, bias } = normalizationOf(first, sigmaData);
      return { scale: scale.keep(), bias: bias.keep() };
    });
    const uncondEmbedding = encodedEmptyPrompt({ tokenizer, encoder }, data.maxTextLen, device);
    const normalization = { scale, bias };
    return new EmojiBatches(options, cache, { tokenizer, encoder, normalization, uncondEmbedding });
  }

  get constants(): DataConstants {
    return this.frozen;
  }

  async ready(step: number, signal?: AbortSignal): Promise<void> {
    await this.#cache.until(this.#samplesBefore(step + 1), signal);
  }

  batch(step: number): LossBatch {
    const { batchSize: B, rows: own = { start: 0, count: B }, device } = this.#options;
    const first = this.#samplesBefore(step) + own.start;
    const rows = tensor(
      BigInt64Array.from({ length: own.count }, (_, row) => this.#scene(first + row)),
      { dtype: "int64" },
    );
    const x0 = normalize(this.#cache.latents.indexSelect(0, rows).float(), this.frozen.normalization);
    const padded = this.#cache.ids.indexSelect(0, rows);
    const { ids } = toDevice({ ids: padded.narrow(1, 0, longestText(padded.ne(0))).long() }, device);
    const textMask = ids.ne(0);
    return {
      x0,
      textEmbeddings: noGrad(() => this.frozen.encoder.forward(ids, textMask)),
      textMask,
      rewards: Object.fromEntries(
        Object.entries(this.#cache.rewards).map(([key, values]) => [key, values.indexSelect(0, rows)]),
      ),
    };
  }

  async close(): Promise<void> {
    await this.#cache.close();
    const { encoder, normalization, uncondEmbedding } = this.frozen;
    encoder.dispose();
    for (const tensor of [normalization.scale, normalization.bias, uncondEmbedding]) tensor.dispose();
  }

  #samplesBefore(step: number): number {
    const { batchSize, spans = [{ from: 0, batchSize }] } = this.#options;
    return samplesBefore(step, spans);
  }

  /** The scene at a position of the stream. */
  #scene(position: number): bigint {
    const { samples } = this.#options.data;
    const pass = Math.floor(position / samples);
    const index = position % samples;
    if (pass === 0) return BigInt(index);
    if (this.#order?.pass !== pass) {
      const generator = new Generator().manualSeed(streamSeed(this.#options.seed, "latentOrder", pass));
      this.#order = { pass, indices: randperm(samples, { generator }).data() as BigInt64Array };
    }
    return this.#order.indices[index]!;
  }
}
