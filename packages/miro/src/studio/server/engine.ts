/**
 * The models of the studio, each in a thread of its own. One is loaded at its first use, the only one at the start;
 * when another one does not fit in the memory of its device, the least recently used is freed.
 *
 * Operators of a small model are too short to be shared by the cores of a CPU, pictures are not: such a model has a
 * thread for each core, and they share the pictures of a call.
 */
import { cuda } from "@miro-t2i/torch";
import { availableMemory, processors } from "@miro-t2i/torch/limits";
import { isOutOfMemory, MiroError } from "../../errors.js";
import type { SweepLayout } from "../../evaluation/sweep/run.js";
import { isFolder } from "../../files/make-folder.js";
import { BUNDLED_MODEL, modelOrBundled } from "../../pipeline/loading/bundled.js";
import { checkDevice, cudaIndex } from "../../pipeline/loading/device.js";
import type { FromPretrainedOptions } from "../../pipeline/loading/load-options.js";
import type { PlannedPicture } from "../../pipeline/requests/plan-pictures.js";
import type { ImageSettings } from "../../pipeline/settings.js";
import { Thread } from "../../threads/thread.js";
import { describeModel, type ModelCard, shortNames } from "./model-card.js";

/** What a studio says of the loading of all its models. */
type SharedOptions = Pick<FromPretrainedOptions, "device" | "dtype" | "lowMemory" | "quantization" | "cacheDir">;

/** How a thread loads its model. */
export interface LoadCall {
  model: string;
  options: SharedOptions & Pick<FromPretrainedOptions, "variant">;
  threads: number | undefined;
}

/** One picture that a thread is to draw. */
export interface PictureCall extends PlannedPicture {
  /** Its file. */
  path: string;
  /** Place of what it is drawn over among the call's edits. */
  edit?: number;
}

/** A table of pictures that a thread is to draw. */
export interface SweepCall extends SweepLayout {
  /** Scorers of every picture. */
  by: string[];
  distance: boolean;
  title?: string | undefined;
  cellSize?: number | undefined;
  /** The models by name, `NAME@VARIANT` for variants. */
  loads: Record<string, LoadCall>;
}

/** What a thread is to draw. */
export interface DrawCall {
  /** Its pictures are those of a table. */
  sweep?: SweepCall | undefined;
  pictures: PictureCall[];
  /** Files of pictures that are drawn over, and of masks. */
  edits: { image: Uint8Array; mask?: Uint8Array | undefined }[];
  bestOf?: { count: number; by: string } | undefined;
  previewEvery?: number | undefined;
  batchSize?: number | undefined;
  /** Threads of operators, where cores are shared with other parts of a call. */
  threads?: number | undefined;
}

/** A step of pictures that are drawn together. */
export interface StepEvent {
  images: readonly number[];
  step: number;
  steps: number;
  previews: { index: number; webp: Uint8Array }[];
}

/** A picture that was written. */
export interface DrawnEvent {
  index: number;
  path: string;
  settings: ImageSettings;
  /** Tokens of its prompt. */
  promptTokens: number;
  /** What who asked for it should know. */
  warnings: string[];
}

/** What hears of a call. */
export interface DrawListeners {
  step?: ((event: StepEvent) => void) | undefined;
  picture(event: DrawnEvent): void | Promise<void>;
}

interface Model {
  card: ModelCard;
  load: LoadCall;
  /** Bytes of its weights. */
  bytes: number;
  /** Threads that it may have: as many as cores, where it is small with all its parts. */
  cores: number;
  thread: Thread | null;
  /** Where it is computed, once it is loaded. */
  device: string | null;
  /** Further threads that share the pictures of a call, once they were needed. */
  helpers: Promise<Thread[]> | null;
  /** Its loading, once it has begun. */
  loading: Promise<void> | null;
  /** Whether its loading has ended. */
  loaded: boolean;
  /** Ends what is done before its first picture is asked for. */
  warming: AbortController | null;
  lastUsed: number;
  busy: number;
}

/** Options of {@link Engine.open}. */
export interface EngineOptions extends SharedOptions {
  /** `REPO`, `DIR`, `REPO@VARIANT` or `DIR@VARIANT`; none: the bundled model. */
  models: readonly string[];
  threads?: number | undefined;
  signal?: AbortSignal | undefined;
}

/** A GPU has failed: whatever is asked of it fails too, until another process asks. */
export class DeviceFailed extends MiroError {}

/** Memory that a model needs besides its weights. */
const WORKING_BYTES = 512 * 2 ** 20;
/** Most threads of a small model. */
const MOST_THREADS = 4;

export class Engine {
  readonly #models = new Map<string, Model>();
  /** Resolves when nothing can be drawn any more in this process. */
  readonly failed: Promise<DeviceFailed>;
  #resolveFailed: (failure: DeviceFailed) => void = () => {};
  #failure: DeviceFailed | null = null;

  private constructor(models: readonly Model[]) {
    for (const model of models) this.#models.set(model.card.id, model);
    this.failed = new Promise((resolve) => {
      this.#resolveFailed = resolve;
    });
  }

  /**
   * Reads what the models say of themselves; of those on the Hub their `config.json` is fetched.
   * @throws InvalidInputError for a model that is none
   */
  static async open({ models, threads, signal, ...given }: EngineOptions): Promise<Engine> {
    const { device, dtype, lowMemory, quantization, cacheDir } = given;
    const hub = { cacheDir, signal };
    // The threads would find out one by one, after the page is served.
    if (device !== undefined && device !== "cpu") checkDevice(device);
    const opened: Model[] = [];
    const names = shortNames(models);
    for (const [i, id] of (models.length > 0 ? models : [undefined]).entries()) {
      const [named, variant] = split(id);
      const model = modelOrBundled(named);
      const { card, bytes, isSmall } = await describeModel(id ?? BUNDLED_MODEL, { model, variant }, hub);
      opened.push({
        card: { ...card, name: names[i] ?? BUNDLED_MODEL },
        load: { model, threads, options: { variant, device, dtype, lowMemory, quantization, cacheDir } },
        bytes,
        cores: isSmall ? Math.min(threads ?? processors(), MOST_THREADS) : 1,
        thread: null,
        device: null,
        helpers: null,
        loading: null,
        loaded: false,
        warming: null,
        lastUsed: 0,
        busy: 0,
      });
    }
    return new Engine(opened);
  }

  get cards(): ModelCard[] {
    return [...this.#models.values()].map(({ card }) => card);
  }

  /** The model that is meant; without a name the first one. Null where there is none of the name. */
  card(id: string | undefined): ModelCard | null {
    return (id === undefined ? this.cards[0]! : this.#models.get(id)?.card) ?? null;
  }

  /** Why nothing can be drawn any more in this process; null while everything is well. */
  get failure(): DeviceFailed | null {
    return this.#failure;
  }

  isLoaded(id: string): boolean {
    return this.#models.get(id)?.loaded ?? false;
  }

  /**
   * Loads a model before its first picture is asked for, so that this one is not waited for longer than others. Ends
   * early when one is asked for.
   * @throws what loading throws
   */
  async warm(id: string): Promise<void> {
    const model = this.#models.get(id)!;
    const ending = new AbortController();
    model.warming = ending;
    try {
      const { signal } = ending;
      const warm = (thread: Thread) => thread.call<void>("warm", null, { signal });
      await this.#use(model, warm);
      for (const helper of await this.#helpersOf(model)) await warm(helper);
    } catch (error) {
      if (!ending.signal.aborted) throw error;
    } finally {
      model.warming = null;
    }
  }

  /** Draws with a model. @throws what the pipeline throws, or the signal's reason */
  async draw(id: string, call: DrawCall, on: DrawListeners, signal: AbortSignal): Promise<void> {
    const model = this.#models.get(id)!;
    model.warming?.abort();
    let left = call.pictures;
    const listeners: DrawListeners = {
      ...on,
      picture: (event) => {
        left = left.filter(({ index }) => index !== event.index);
        return on.picture(event);
      },
    };
    await this.#use(model, (thread) =>
      this.#withRoom(async () => {
        const part = { ...call, pictures: left };
        const shares = call.bestOf || call.edits.length > 0 ? 1 : Math.min(model.cores, left.length);
        if (shares === 1) return thread.call<void>("draw", part, { on: { ...listeners }, signal });
        const threads = [thread, ...(await this.#helpersOf(model))].slice(0, shares);
        return drawParts(threads, model.cores, part, listeners, signal);
      }),
    );
  }

  /** Does something in the thread of a model, which stays loaded meanwhile. */
  async #use<T>(model: Model, work: (thread: Thread) => Promise<T>): Promise<T> {
    if (this.#failure) throw this.#failure;
    model.busy++;
    try {
      // Threads that have ended by themselves, as for want of memory, are replaced.
      const threads = [model.thread, ...((await model.helpers?.catch(() => [])) ?? [])];
      if (threads.some((thread) => thread?.hasEnded)) await this.#free(model);
      await this.#loaded(model);
      return await work(model.thread!);
    } catch (error) {
      throw await this.#reasonOf(error, model.thread, model);
    } finally {
      model.busy--;
      model.lastUsed = performance.now();
    }
  }

  /**
   * Why work in a thread failed. A kernel that reads beyond its memory, or whose assertion does not hold, leaves a GPU
   * of which every later call in the process fails: then that is the reason.
   */
  async #reasonOf(error: unknown, thread: Thread | null, { load }: Model): Promise<unknown> {
    const gpu = cudaIndex(load.options.device ?? "cpu");
    if (gpu === null || thread === null || this.#failure) return this.#failure ?? error;
    try {
      await thread.call<void>("synchronize", gpu);
      return error;
    } catch (reason) {
      // A thread that has ended says nothing of the GPU; the next one may find it well.
      if (thread.hasEnded || isOutOfMemory(reason as Error)) return error;
      const [what] = (reason as Error).message
        .replace(/^.*CUDA error: /s, "")
        .split(/\n|\.? Search for | CUDA kernel /);
      const text = `the GPU has failed (${what}) and computes nothing more in this process; start the studio again`;
      this.#failure = new DeviceFailed(text, { cause: reason });
      this.#resolveFailed(this.#failure);
      return this.#failure;
    }
  }

  /**
   * Does something that may run out of memory; then models that nobody uses are freed, one by one, and it is done
   * again.
   */
  async #withRoom<T>(work: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        const [oldest] = this.#idle;
        if (oldest === undefined || !isOutOfMemory(error as Error)) throw error;
        await this.#free(oldest);
      }
    }
  }

  /**
   * Draws a table with a model, and with others that its axes name.
   * @param folder of its pictures, its sheet and its JSON file
   * @returns warnings of the whole table
   */
  async sweep(
    id: string,
    call: DrawCall & { folder: string },
    on: DrawListeners,
    signal: AbortSignal,
  ): Promise<string[]> {
    const model = this.#models.get(id)!;
    model.warming?.abort();
    return this.#use(model, (thread) => thread.call<string[]>("sweep", call, { on: { ...on }, signal }));
  }

  /** How a model is loaded. */
  loadOf(id: string): LoadCall {
    return this.#models.get(id)!.load;
  }

  /** Ends all threads. */
  async close(): Promise<void> {
    for (const { warming } of this.#models.values()) warming?.abort();
    await Promise.all([...this.#models.values()].map((model) => this.#free(model)));
  }

  #loaded(model: Model): Promise<void> {
    model.lastUsed = performance.now();
    model.loading ??= this.#load(model).catch((error) => {
      model.loading = null;
      throw error;
    });
    return model.loading;
  }

  async #load(model: Model): Promise<void> {
    const { device = "cpu" } = model.load.options;
    const bytes = model.bytes + WORKING_BYTES;
    for (const oldest of this.#idle) {
      if (freeBytes(device) >= bytes) break;
      await this.#free(oldest);
    }
    // Other processes may hold memory of a GPU too, and more is needed than weights.
    await this.#withRoom(() => this.#start(model));
  }

  async #start(model: Model): Promise<void> {
    const thread = new Thread("studio/server/engine-thread.js");
    model.thread = thread;
    try {
      model.device = await thread.call<string>("load", model.load);
      model.loaded = true;
    } catch (error) {
      const reason = await this.#reasonOf(error, thread, model);
      model.thread = null;
      await thread.end(reason as Error);
      throw reason;
    }
  }

  /** The further threads of a loaded model; none of one that is not small. */
  #helpersOf(model: Model): Promise<Thread[]> {
    if (model.device !== "cpu") return Promise.resolve([]);
    model.helpers ??= loadHelpers(model.load, model.cores - 1).catch((error) => {
      model.helpers = null;
      throw error;
    });
    return model.helpers;
  }

  /** The models that nobody uses, the least recently used first. */
  get #idle(): Model[] {
    const idle = [...this.#models.values()].filter(({ thread, busy }) => thread !== null && busy === 0);
    return idle.sort((a, b) => a.lastUsed - b.lastUsed);
  }

  async #free(model: Model): Promise<void> {
    const { thread, helpers } = model;
    model.thread = null;
    model.device = null;
    model.helpers = null;
    model.loading = null;
    model.loaded = false;
    const reason = new MiroError("the model was freed");
    const others = (await helpers?.catch(() => [])) ?? [];
    await Promise.all([thread, ...others].map((one) => one?.end(reason)));
  }
}

/** Memory that a device has left; of a GPU what the tensors of this process leave of it. */
function freeBytes(device: string): number {
  const gpu = cudaIndex(device);
  if (gpu === null) return availableMemory();
  const all = cuda.devices()[gpu]?.memoryBytes ?? Number.POSITIVE_INFINITY;
  return all - cuda.memory(gpu).allocatedBytes;
}

/** Loads a model into further threads. */
async function loadHelpers(load: LoadCall, count: number): Promise<Thread[]> {
  const threads = Array.from({ length: count }, () => new Thread("studio/server/engine-thread.js"));
  try {
    await Promise.all(threads.map((thread) => thread.call<string>("load", load)));
    return threads;
  } catch (error) {
    await Promise.all(threads.map((thread) => thread.end(error as Error)));
    throw error;
  }
}

/**
 * Draws the pictures of a call in several threads of one model at once, each its share in their order.
 * @throws the first error of a thread, which ends the others
 */
async function drawParts(
  threads: readonly Thread[],
  cores: number,
  call: DrawCall,
  on: DrawListeners,
  signal: AbortSignal,
): Promise<void> {
  const share = Math.ceil(call.pictures.length / threads.length);
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  await Promise.allSettled(
    threads.map(async (thread, i) => {
      const own = call.pictures.slice(i * share, (i + 1) * share);
      if (own.length === 0) return;
      const part: DrawCall = {
        ...call,
        pictures: own,
        threads: Math.max(1, Math.floor(cores / threads.length)),
      };
      try {
        await thread.call<void>("draw", part, { on: { ...on }, signal: either });
      } catch (error) {
        failed.abort(error);
        throw error;
      }
    }),
  );
  either.throwIfAborted();
}

/** `NAME@VARIANT`; a folder whose name has an @ is meant as it is. */
function split(id: string | undefined): [string | undefined, string | undefined] {
  if (id === undefined || isFolder(id)) return [id, undefined];
  const at = id.lastIndexOf("@");
  return at < 1 ? [id, undefined] : [id.slice(0, at), id.slice(at + 1)];
}
