/** Where training batches come from. */
import { Generator, ones, rand, randn, type Tensor } from "@miro-t2i/torch";
import type { LatentNormalization } from "../../autoencoder/normalization.js";
import type { LossBatch } from "../../flow/loss.js";
import { streamSeed } from "../../random/streams.js";
import type { T5Encoder } from "../../text/t5.js";
import type { Tokenizer } from "../../text/tokenizer.js";
import { type Rows, rowsOf } from "./batch-slices.js";

/** What a release says of the data besides the network. */
export interface DataConstants {
  normalization: LatentNormalization;
  /** Text states of the empty prompt, (U, labelDim). */
  uncondEmbedding: Tensor;
}

/** The frozen models that the data were prepared with; sample sheets need them. */
export interface FrozenModels extends DataConstants {
  tokenizer: Tokenizer;
  encoder: T5Encoder;
}

/**
 * A stream of batches that is a pure function of (seed, step), so that a run can start at any step and see what an
 * undisturbed run would have seen.
 */
export interface BatchSource {
  /** Resolves as soon as `batch(step)` can be made without waiting. */
  ready(step: number, signal?: AbortSignal): Promise<void>;
  /**
   * The batch of a step, counted from 0, or the rows of it that the source was opened for. New tensors, owned by the
   * caller's scope.
   */
  batch(step: number): LossBatch;
  /** A digest of the data: while it stays the same, so does every batch. Absent where the recipe alone decides. */
  readonly identity?: string;
  /** Samples of each file that the batches come from, by a name that says which is missing. */
  readonly shards?: Readonly<Record<string, number>>;
  /** How latents become x, where validation is to do the same. */
  readonly normalization?: LatentNormalization;
  /** Absent where the data are made up, or nothing is known of the empty prompt. */
  readonly constants?: DataConstants;
  /** Absent where the models are not at hand. */
  readonly frozen?: FrozenModels;
  /** Ends worker threads and frees what the source holds. */
  close(): Promise<void>;
}

/** Options of {@link RandomBatches}. */
export interface RandomBatchesOptions {
  /** Decides all values. */
  seed: number;
  /** Rows of a batch. */
  batchSize: number;
  /** Rows of each batch that are given; by default all. */
  rows?: Rows | undefined;
  /** Channels of the latents. */
  channels: number;
  /** Side of the latents. */
  size: number;
  /** Tokens of each text. */
  textLength: number;
  /** Width of the text states. */
  textWidth: number;
  /** Names of the rewards. */
  rewardKeys: readonly string[];
  /** Where the batches lie; drawn on the CPU for every device. */
  device?: string | undefined;
}

/** Random latents, texts and rewards: for benchmarks and tests. */
export class RandomBatches implements BatchSource {
  readonly #options: RandomBatchesOptions;

  constructor(options: RandomBatchesOptions) {
    this.#options = options;
  }

  async ready(): Promise<void> {}

  batch(step: number): LossBatch {
    const {
      seed,
      batchSize: B,
      rows,
      channels,
      size,
      textLength,
      textWidth,
      rewardKeys,
      device = "cpu",
    } = this.#options;
    const generator = new Generator().manualSeed(streamSeed(seed, "randomBatch", step));
    const batch = {
      x0: randn([B, channels, size, size], { generator }).mul(0.5).to({ device }),
      textEmbeddings: randn([B, textLength, textWidth], { generator }).to({ device }),
      textMask: ones([B, textLength], { dtype: "bool", device }),
      rewards: Object.fromEntries(rewardKeys.map((key) => [key, rand([B], { generator }).to({ device })])),
    };
    return rows === undefined ? batch : rowsOf(batch, rows);
  }

  async close(): Promise<void> {}
}
