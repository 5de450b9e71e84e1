/**
 * Threads that read and decode pictures while the main thread computes. Jobs are handed out in order, results come back
 * in the order of the jobs ({@link DecodePool.inOrder}), and no more pictures are under way than a budget of bytes
 * allows.
 */
import type { Worker } from "node:worker_threads";
import { startThread } from "../../compiled-module.js";
import { MiroError } from "../../errors.js";
import type { Piece, SkipReason } from "./sources/raw-sample.js";

/** One picture to decode. */
export interface DecodeJob {
  image: Piece;
  /** Sides of the squares to make of it (centre crop, bilinear). */
  sides: readonly number[];
  /** Whether the file's bytes are wanted. */
  keepBytes: boolean;
  /** Whether the pixels are wanted, at full size. */
  keepPixels: boolean;
  maxPixels: number;
  orient: boolean;
}

/** A decoded picture. */
export interface DecodedImage {
  width: number;
  height: number;
  /** The file as it is. */
  bytes: Uint8Array | null;
  /** 8-bit RGB at full size. */
  pixels: Uint8Array | null;
  /** 8-bit RGB of each asked side. */
  squares: Uint8Array[];
  /** Whether its EXIF orientation says to turn it, and it was not. */
  unturned: boolean;
  /** Milliseconds spent on reading, and on decoding and resizing. */
  readMs: number;
  decodeMs: number;
}

/** A picture, or why there is none. */
export type DecodeResult = DecodedImage | { reason: SkipReason; message: string };

/** What a worker answers. */
export type DecodeReply = { id: number; result: DecodeResult } | { id: number; error: string };

/** Jobs that a worker needs so as never to be idle: one that it decodes, one that it reads, one that waits. */
const JOBS_PER_WORKER = 3;
/** Bytes of decoded pictures that may wait to be used, beside those under way. */
const MAX_WAITING_BYTES = 256 * 2 ** 20;

interface Pending {
  resolve(result: DecodeResult): void;
  reject(error: Error): void;
  worker: number;
}

export class DecodePool {
  readonly #workers: Worker[];
  readonly #load: number[];
  readonly #pending = new Map<number, Pending>();
  #next = 0;
  #failure: Error | null = null;
  #closed = false;

  /** @param workers number of threads, at least 1 */
  constructor(workers: number) {
    const script = "data/preprocess/decode-worker.js";
    this.#load = Array.from({ length: workers }, () => 0);
    this.#workers = this.#load.map(() => {
      const worker = startThread(script);
      worker.on("message", (reply: DecodeReply) => this.#settle(reply));
      worker.on("error", (error) => this.#fail(new MiroError(`a decoding thread failed: ${(error as Error).message}`)));
      worker.on("exit", () => this.#fail(new MiroError("a decoding thread ended")));
      worker.unref();
      return worker;
    });
  }

  /** Jobs that the pool works on at a time. */
  get capacity(): number {
    return this.#workers.length * JOBS_PER_WORKER;
  }

  /**
   * Decodes the pictures of items and gives them back in the items' order. Decoding goes on while the caller works, as
   * far ahead as `ahead` pictures and a fixed budget of bytes allow.
   */
  async *inOrder<T>(
    items: Iterable<T>,
    job: (item: T) => DecodeJob,
    { ahead, signal }: { ahead: number; signal?: AbortSignal | undefined },
  ): AsyncGenerator<{ item: T; result: DecodeResult; waitedMs: number }> {
    const queue: { item: T; done: Promise<DecodeResult> }[] = [];
    const source = items[Symbol.iterator]();
    let waitingBytes = 0;
    let exhausted = false;
    const fill = (): void => {
      while (!exhausted && queue.length < ahead && (queue.length < this.capacity || waitingBytes < MAX_WAITING_BYTES)) {
        const next = source.next();
        if (next.done) {
          exhausted = true;
          break;
        }
        const done = this.decode(job(next.value)).then((result) => {
          waitingBytes += bytesOf(result);
          return result;
        });
        done.catch(() => undefined); // the consumer hears of it when its turn comes
        queue.push({ item: next.value, done });
      }
    };
    for (fill(); queue.length > 0; fill()) {
      signal?.throwIfAborted();
      const { item, done } = queue.shift()!;
      const started = performance.now();
      const result = await done;
      const waitedMs = performance.now() - started;
      waitingBytes -= bytesOf(result);
      fill();
      yield { item, result, waitedMs };
    }
  }

  /** Decodes one picture. @throws MiroError when a thread is lost */
  decode(job: DecodeJob): Promise<DecodeResult> {
    if (this.#failure) return Promise.reject(this.#failure);
    const worker = this.#load.indexOf(Math.min(...this.#load));
    const id = this.#next++;
    this.#load[worker]!++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, worker });
      this.#workers[worker]!.ref();
      this.#workers[worker]!.postMessage({ id, job });
    });
  }

  /** Ends the threads. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #settle(reply: DecodeReply): void {
    const pending = this.#pending.get(reply.id);
    if (pending === undefined) return;
    this.#pending.delete(reply.id);
    // A thread that is being ended keeps the process until it has ended, whatever it still answers.
    if (--this.#load[pending.worker]! === 0 && !this.#closed) this.#workers[pending.worker]!.unref();
    if ("error" in reply) pending.reject(new MiroError(`decoding failed: ${reply.error}`));
    else pending.resolve(reply.result);
  }

  #fail(error: Error): void {
    if (this.#closed) return;
    this.#failure ??= error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}

function bytesOf(result: DecodeResult): number {
  if ("reason" in result) return 0;
  return [result.bytes, result.pixels, ...result.squares].reduce((sum, part) => sum + (part?.length ?? 0), 0);
}
