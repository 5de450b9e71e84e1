/**
 * Scenes as the network sees them, made once: latents of the frozen autoencoder, token ids of the captions, rewards.
 *
 * Encoding a picture costs as much as training on it, so it is done once and kept in shards on the disk (2 KB a sample
 * at 4 × 16 × 16). Worker threads make the missing shards in order while the training already runs on the first ones. A
 * shard is a safetensors file that appears under its name only when it is complete:
 *
 *   latents           (S, C, h, w) float16    the encoder's mean, not normalised
 *   ids               (S, T) int32            token ids, padded with 0
 *   reward.<key>      (S,) float32            NaN where unknown
 *
 * The folder's name holds a digest of everything that decides its content, so that changed options never use old
 * latents.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { Worker } from "node:worker_threads";
import { scope, type Tensor, zeros } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { startThread } from "../../compiled-module.js";
import { MiroError } from "../../errors.js";
import { makeFolder } from "../../files/make-folder.js";
import { readBytes, writeFileAtomic } from "../../files/whole-files.js";
import type { EmojiData } from "./emoji-data.js";

/** What a worker is started with. */
export interface ShardJob {
  data: EmojiData;
  folder: string;
  /** Shards to make, in this order. */
  shards: number[];
}

interface OpenOptions {
  makes?: boolean;
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number, all: number) => void) | undefined;
}

/** How far a worker is with a shard; the last message of one comes when its file is there. */
export interface ShardProgress {
  shard: number;
  /** Samples. */
  done: number;
  all: number;
}

export class LatentCache {
  /** (N, C, h, w) float16 on the host; rows of shards that are not there yet are zero. */
  latents!: Tensor;
  /** (N, T) int32. */
  ids!: Tensor;
  /** (N,) float32 each. */
  rewards: Record<string, Tensor> = {};
  /** Samples from the first on that are there. */
  available = 0;
  readonly #present: boolean[];
  readonly #workers: Worker[] = [];
  readonly #waiting: (() => void)[] = [];
  #failure: Error | null = null;
  /** Looks for shards that another process makes. */
  #watch: NodeJS.Timeout | null = null;
  readonly #data: EmojiData;

  private constructor(
    readonly folder: string,
    data: EmojiData,
  ) {
    this.#data = data;
    this.#present = Array.from({ length: this.shardCount }, () => false);
  }

  /**
   * Opens the cache of these options, loads what it holds and starts making the rest. Resolves when the first shard is
   * there.
   * @param makes false: another process makes what is missing, it is loaded as it comes
   * @param onProgress called with the samples of the first shard that are made, and their number
   */
  static async open(data: EmojiData, { makes = true, signal, onProgress }: OpenOptions = {}): Promise<LatentCache> {
    const identity = {
      scenes: data.scenes,
      shardSize: data.shardSize,
      maxTextLen: data.maxTextLen,
      encoder: encoderDigest(data.autoencoder),
      tokenizer: createHash("sha256")
        .update(readBytes(join(data.textEncoder, "tokenizer.json")))
        .digest("hex"),
    };
    const hash = createHash("sha256").update(JSON.stringify(identity)).digest("hex").slice(0, 12);
    const folder = join(data.cache, `emoji-${data.scenes.size}-${hash}`);
    makeFolder(folder);
    if (makes)
      writeFileAtomic(join(folder, "dataset.json"), `${JSON.stringify(identity, null, 2)}\n`, { overwrite: true });

    const cache = new LatentCache(folder, data);
    const missing = cache.#present.flatMap((_, shard) => (existsSync(shardPath(folder, shard)) ? [] : [shard]));
    for (let shard = 0; shard < cache.shardCount; shard++) if (!missing.includes(shard)) cache.#load(shard);
    if (missing.length > 0 && makes) cache.#startWorkers(missing, onProgress);
    else if (missing.length > 0) cache.#awaitShards(missing);
    try {
      await cache.until(Math.min(data.shardSize, data.samples), signal);
    } catch (error) {
      await cache.close();
      throw error;
    }
    return cache;
  }

  get shardCount(): number {
    return Math.ceil(this.#data.samples / this.#data.shardSize);
  }

  /** Resolves when the first `count` samples are there. */
  async until(count: number, signal?: AbortSignal): Promise<void> {
    while (this.available < Math.min(count, this.#data.samples)) {
      if (this.#failure) throw this.#failure;
      signal?.throwIfAborted();
      const wake = () => this.#wake();
      signal?.addEventListener("abort", wake, { once: true });
      await new Promise<void>((resolve) => void this.#waiting.push(resolve));
      signal?.removeEventListener("abort", wake);
    }
  }

  async close(): Promise<void> {
    if (this.#watch !== null) clearInterval(this.#watch);
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
    for (const tensor of [this.latents, this.ids, ...Object.values(this.rewards)]) tensor?.dispose();
  }

  #startWorkers(missing: number[], onProgress?: OpenOptions["onProgress"]): void {
    const count = Math.min(this.#data.workers, missing.length);
    const script = "emoji/training/latent-worker.js";
    for (let w = 0; w < count; w++) {
      const job: ShardJob = {
        data: this.#data,
        folder: this.folder,
        shards: missing.filter((_, i) => i % count === w),
      };
      const worker = startThread(script, job);
      worker.on("message", ({ shard, done, all }: ShardProgress) => {
        if (shard === 0) onProgress?.(done, all);
        if (done === all) this.#load(shard);
      });
      worker.on("error", (error) => this.#fail(error));
      worker.on("exit", () => this.#wake());
      this.#workers.push(worker);
    }
  }

  /** Loads shards that appear, in their order. */
  #awaitShards(missing: number[]): void {
    this.#watch = setInterval(() => {
      while (missing.length > 0 && existsSync(shardPath(this.folder, missing[0]!))) this.#load(missing.shift()!);
      if (missing.length === 0) clearInterval(this.#watch!);
    }, 250);
  }

  #load(shard: number): void {
    try {
      scope(() => this.#copy(shard));
    } catch (error) {
      this.#fail(error as Error);
      return;
    }
    this.#present[shard] = true;
    const complete = this.#present.indexOf(false);
    this.available = Math.min(this.#data.samples, (complete < 0 ? this.shardCount : complete) * this.#data.shardSize);
    this.#wake();
  }

  /** Copies a shard's rows to their place; the first shard decides the shapes. */
  #copy(shard: number): void {
    const { samples, shardSize } = this.#data;
    const start = shard * shardSize;
    const rows = Math.min(shardSize, samples - start);
    const into = (whole: Tensor | undefined, part: Tensor): Tensor => {
      const all = whole ?? zeros([samples, ...part.shape.slice(1)], { dtype: part.dtype }).keep();
      all.narrow(0, start, rows).copy_(part.narrow(0, 0, rows));
      return all;
    };
    for (const [name, tensor] of readSafetensors(shardPath(this.folder, shard))) {
      if (name === "latents") this.latents = into(this.latents, tensor);
      else if (name === "ids") this.ids = into(this.ids, tensor);
      else {
        const key = name.slice("reward.".length);
        this.rewards[key] = into(this.rewards[key], tensor);
      }
    }
  }

  #fail(error: Error): void {
    this.#failure = new MiroError(`${this.folder}: making latents failed: ${error.message}`);
    this.#wake();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

export function shardPath(folder: string, shard: number): string {
  return join(folder, `shard-${String(shard).padStart(5, "0")}.safetensors`);
}

/** SHA-256 of the autoencoder's weights without its decoder, which may be trained further on the same latents. */
function encoderDigest(folder: string): string {
  const file = existsSync(folder) ? readdirSync(folder).find((name) => name.endsWith(".safetensors")) : undefined;
  if (file === undefined)
    throw new MiroError(`${folder}: no autoencoder there; train it first (recipes/emoji-autoencoder.yaml)`);
  return scope(() => {
    const hash = createHash("sha256");
    for (const [name, tensor] of [...readSafetensors(join(folder, file))].sort(([a], [b]) => (a < b ? -1 : 1))) {
      if (name.startsWith("decoder.") || name.startsWith("post_quant_conv.")) continue;
      const data = tensor.data();
      hash
        .update(`${name} ${tensor.dtype} ${tensor.shape}\n`)
        .update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    }
    return hash.digest("hex");
  });
}
