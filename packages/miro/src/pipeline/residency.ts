/**
 * What of a pipeline is in memory when. Usually what was loaded stays. With `lowMemory` the text encoder, the network
 * and the decoder take turns: each is read when it is used and leaves memory when its turn is over, and calls run one
 * after another, because a second one would bring a second part in.
 */
import { memory, scope, type Tensor } from "@miro-t2i/torch";
import type { Autoencoder } from "../autoencoder/index.js";
import { MiroError } from "../errors.js";
import { release } from "../flow/release.js";
import type { Rin } from "../networks/rin.js";
import { Part, type PipelineParts, type TextEncoder } from "./loading/parts.js";
import { Turns } from "./turns.js";

/** Parts that take turns. */
export type PartName = "textEncoder" | "network" | "autoencoder";

/**
 * What a pipeline answers after it was disposed of. No InvalidInputError, which servers answer with status 400: who
 * asked while they ended did nothing wrong.
 */
export function disposedOf(): MiroError {
  return new MiroError("pipeline: it was disposed of; load another one with MiroPipeline.fromPretrained");
}

/** The parts of one pipeline, and their turns. */
export class Residency {
  readonly #parts: PipelineParts;
  readonly #beforeFreeingNetwork: () => void;
  #textEncoder: Promise<TextEncoder> | null = null;
  /** What `#textEncoder` became, until it is freed. */
  #loadedTextEncoder: TextEncoder | null = null;
  /** Stops the loading of what nobody will use. */
  #loading = new AbortController();
  /** Of work that has the memory to itself. */
  readonly #turns = new Turns();
  #disposed = false;

  /** @param beforeFreeingNetwork frees what reads the network's own memory */
  constructor(parts: PipelineParts, beforeFreeingNetwork: () => void) {
    this.#parts = parts;
    this.#beforeFreeingNetwork = beforeFreeingNetwork;
  }

  /** @throws MiroError after {@link dispose} */
  checkUsable(): void {
    if (this.#disposed) throw disposedOf();
  }

  get network(): Rin {
    this.checkUsable();
    const { network } = this.#parts;
    return network instanceof Part ? network.module : network;
  }

  get autoencoder(): Autoencoder {
    this.checkUsable();
    const { autoencoder } = this.#parts;
    return autoencoder instanceof Part ? autoencoder.module : autoencoder;
  }

  /**
   * The text encoder for work that has no turn. One that the end of another's turn stops on its way is read again.
   * @throws MiroError after {@link dispose}
   */
  async textEncoder(): Promise<TextEncoder> {
    for (;;) {
      const { signal } = this.#loading;
      try {
        return await this.presentTextEncoder();
      } catch (error) {
        if (this.#disposed || !signal.aborted) throw error;
      }
    }
  }

  #readTextEncoder(): Promise<TextEncoder> {
    this.checkUsable();
    this.#textEncoder ??= this.#parts.loadTextEncoder(this.#loading.signal).then(
      (loaded) => {
        this.#loadedTextEncoder = loaded;
        return loaded;
      },
      (error) => {
        this.#textEncoder = null; // the next call may try again
        throw error;
      },
    );
    return this.#textEncoder;
  }

  /** The text encoder for use before the next `await`: one that has not been freed since it was loaded. */
  async presentTextEncoder(): Promise<TextEncoder> {
    let loaded = await this.#readTextEncoder();
    while (loaded !== this.#loadedTextEncoder) loaded = await this.#readTextEncoder();
    return loaded;
  }

  /** Has the network or the autoencoder in memory. @throws the signal's reason when it is aborted */
  async bring(name: "network" | "autoencoder", signal: AbortSignal | undefined): Promise<void> {
    this.checkUsable();
    const part: Part<Rin> | Part<Autoencoder> | Rin | Autoencoder = this.#parts[name];
    if (!(part instanceof Part)) return;
    await part.load(signal);
    if (this.#disposed) part.free();
    this.checkUsable();
  }

  async freeTextEncoder(): Promise<void> {
    await this.#textEncoder?.catch(() => null);
    this.#loadedTextEncoder?.encoder.dispose();
    this.#loadedTextEncoder = null;
    this.#textEncoder = null;
    memory.emptyCache();
  }

  /**
   * Runs work when it may have the memory: at once, or with `lowMemory` after the work before it.
   * @throws the signal's reason when it is aborted while the work waits
   */
  async *inTurn<T>(
    work: AsyncGenerator<T, void, void>,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<T, void, void> {
    if (!this.#parts.lowMemory) {
      yield* work;
      return;
    }
    const end = await this.#turns.begin(signal);
    try {
      yield* work;
    } finally {
      end();
    }
  }

  /** Ends the turns of parts: with `lowMemory` they leave memory. */
  async over(...names: PartName[]): Promise<void> {
    if (!this.#parts.lowMemory) return;
    for (const name of names) {
      if (name === "textEncoder") await this.#giveUpTextEncoder();
      else this.#free(name);
    }
  }

  /** Frees the text encoder; where it is on its way, it comes no more. */
  async #giveUpTextEncoder(): Promise<void> {
    this.#loading.abort(disposedOf());
    await this.freeTextEncoder();
    this.#loading = new AbortController();
  }

  /**
   * Batches on their way from the network to the decoder: each as it comes, or with `lowMemory` all of them after the
   * last one, when the network has left memory; until then they wait on the CPU. Who takes a batch frees its latents.
   */
  async *toDecoder<B extends { latents: Tensor }>(
    batches: AsyncGenerator<B, void, void>,
  ): AsyncGenerator<B, void, void> {
    if (!this.#parts.lowMemory) {
      yield* batches;
      return;
    }
    const waiting: B[] = [];
    try {
      for await (const batch of batches) {
        waiting.push({ ...batch, latents: scope(() => batch.latents.to({ device: "cpu" }).clone()) });
        batch.latents.dispose();
      }
      await this.over("network");
      while (waiting.length > 0) yield waiting.shift()!;
    } finally {
      release(waiting);
    }
  }

  /** Frees all weights; nothing can be used afterwards. A second call does nothing. */
  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.#giveUpTextEncoder();
    const { preconditioning, preprocessing, postprocessing, uncondEmbedding } = this.#parts;
    preconditioning.dispose();
    for (const name of ["network", "autoencoder"] as const) this.#free(name);
    release([preprocessing, postprocessing, uncondEmbedding]);
    this.#parts.closeFiles?.();
  }

  #free(name: "network" | "autoencoder"): void {
    if (name === "network") this.#beforeFreeingNetwork();
    const part = this.#parts[name];
    if (part instanceof Part) part.free();
    else part.dispose();
  }
}
