/**
 * A pipeline in a thread of its own, so that the event loop of the caller stays free while pictures are drawn.
 * Everything but tensors passes: options, progress, previews, pictures, errors, cancelling.
 */
import { InvalidInputError, invalid } from "../errors.js";
import { about, message } from "../message.js";
import { parseOptions } from "../options.js";
import { encodeImage } from "../pictures/image-files.js";
import { type Rest, Thread } from "../threads/thread.js";
import { type GenerateOptions, type GenerateProgress, generateSchema } from "./generate-options.js";
import { GeneratedImage } from "./generated-image.js";
import { orAborted } from "./interruption.js";
import { modelOrBundled } from "./loading/bundled.js";
import type { Checkpoint } from "./loading/checkpoint.js";
import type { ComputeDType } from "./loading/device.js";
import type { LoadOptions } from "./loading/load-options.js";
import { texts } from "./plan.js";
import { disposedOf } from "./residency.js";
import type { ImageSettings } from "./settings.js";

/** What a thread tells of its pipeline once it is loaded. */
export interface PipelineFacts {
  name: string;
  variant: string | undefined;
  device: string;
  dtype: Exclude<ComputeDType, "auto">;
  config: Checkpoint["config"];
  coherenceKeys: readonly string[];
  defaultSteps: number;
  defaultGuidanceScale: number;
  latentShape: [number, number, number];
}

/** A picture on its way between threads. */
export interface SentImage {
  width: number;
  height: number;
  data: Uint8Array;
  settings: ImageSettings;
}

/** Progress as `generate` reports it, without the tensors. */
export type WorkerProgress = Omit<GenerateProgress, "x" | "denoised">;

/** Options of `generate` that hold tensors, which stay in their thread. */
const TENSORS = ["noise", "promptEmbeddings", "keepLatents"] as const;

/** Options of {@link WorkerPipeline.generate}: those of `MiroPipeline.generate` that are no tensors. */
export type WorkerGenerateOptions = Omit<GenerateOptions, (typeof TENSORS)[number] | "onStep"> & {
  /** Called after each step of each batch, and waited for. */
  onStep?: ((progress: WorkerProgress) => void | Promise<void>) | undefined;
};

/** What {@link WorkerPipeline.generate} returns. */
export interface WorkerResult {
  /** Prompt 0's pictures, prompt 1's, … */
  images: GeneratedImage[];
  /** What the caller should know, such as prompts that were cut. */
  warnings: string[];
}

/**
 * A pipeline in a worker thread. Calls that run at the same time take turns picture by picture.
 *
 * @example
 * ```ts
 * import { MiroPipeline } from "miro-t2i";
 *
 * await using pipe = await MiroPipeline.fromPretrained("miro-emoji", { worker: true });
 * const ticks = setInterval(() => console.log("the event loop is free"), 100);
 * const { images } = await pipe.generate("a red apple", { steps: 8 });
 * clearInterval(ticks);
 * await images[0].save("apple.png");
 * ```
 */
export class WorkerPipeline {
  readonly #thread: Thread;
  readonly #facts: PipelineFacts;

  private constructor(thread: Thread, facts: PipelineFacts) {
    this.#thread = thread;
    this.#facts = facts;
  }

  /**
   * Starts a thread and loads a pipeline in it.
   * @internal
   */
  static async load(model: string | undefined, options: LoadOptions): Promise<WorkerPipeline> {
    const { onDownload, onMessage, signal, worker: _, ...plain } = options;
    const thread = new Thread("pipeline/pipeline-thread.js");
    try {
      const argument = { model: modelOrBundled(model), options: plain };
      const on = { onDownload, onMessage };
      const facts = thread.call<PipelineFacts>("load", argument, { on, signal });
      encoders ??= prepareEncoders();
      const pipe = new WorkerPipeline(thread, await facts);
      await encoders;
      return pipe;
    } catch (error) {
      await thread.end(error as Error);
      throw error;
    }
  }

  /** Name of the model, as pictures store it. */
  get name(): string {
    return this.#facts.name;
  }

  /** The variant of the checkpoint that was chosen. */
  get variant(): string | undefined {
    return this.#facts.variant;
  }

  /** `cpu`, `cuda:0`, … */
  get device(): string {
    return this.#facts.device;
  }

  /** Type in which the network computes. */
  get dtype(): PipelineFacts["dtype"] {
    return this.#facts.dtype;
  }

  /** What the checkpoint's `config.json` says. */
  get config(): PipelineFacts["config"] {
    return this.#facts.config;
  }

  /** The rewards that this checkpoint was trained on: the names that targets may use. */
  get coherenceKeys(): readonly string[] {
    return this.#facts.coherenceKeys;
  }

  /** Steps used when a call gives none. */
  get defaultSteps(): number {
    return this.#facts.defaultSteps;
  }

  /** Guidance scale used when a call gives none. */
  get defaultGuidanceScale(): number {
    return this.#facts.defaultGuidanceScale;
  }

  /** Shape of one picture's latents: channels, height, width. */
  get latentShape(): [number, number, number] {
    return this.#facts.latentShape;
  }

  /**
   * Draws pictures, as `MiroPipeline.generate` does.
   *
   * @throws InvalidInputError for wrong options, before anything is computed; the signal's reason when it is aborted;
   *   MiroError when the pipeline is disposed of meanwhile
   */
  async generate(prompt: string | readonly string[], options: WorkerGenerateOptions = {}): Promise<WorkerResult> {
    const images: GeneratedImage[] = [];
    const warnings = await this.#draw(toSend(prompt, options), options, (image) => void images.push(image));
    return { images, warnings };
  }

  /**
   * Draws pictures as they are asked for, as `MiroPipeline.stream` does; leaving the loop ends the work.
   */
  async *stream(
    prompt: string | readonly string[],
    options: WorkerGenerateOptions = {},
  ): AsyncGenerator<GeneratedImage, void, void> {
    const call = toSend(prompt, options);
    const leave = new AbortController();
    const { signal } = options;
    const either = signal ? AbortSignal.any([signal, leave.signal]) : leave.signal;
    let give: (next: GeneratedImage | null) => void = () => {};
    let taken: () => void = () => {};
    let next = new Promise<GeneratedImage | null>((resolve) => (give = resolve));
    const work = this.#draw(call, { ...options, signal: either }, async (image, rest) => {
      const wanted = new Promise<void>((resolve) => (taken = resolve));
      give(image);
      await rest(wanted);
    });
    work.then(
      () => give(null),
      () => give(null),
    );
    try {
      for (let image = await next; image !== null; image = await next) {
        next = new Promise((resolve) => (give = resolve));
        yield image;
        taken();
      }
      await work;
    } finally {
      leave.abort();
      taken();
      await work.catch(() => {});
    }
  }

  /** The settings that the pictures of a call will hold, without drawing them. */
  async describe(prompt: string | readonly string[], options: WorkerGenerateOptions = {}): Promise<ImageSettings[]> {
    const call = toSend(prompt, options);
    const { signal } = options;
    const settings = this.#thread.call<ImageSettings[]>("describe", call, { signal });
    return orAborted(settings, signal);
  }

  async #draw(
    call: ReturnType<typeof toSend>,
    { onStep, onImage, onWarning, signal }: WorkerGenerateOptions,
    deliver: (image: GeneratedImage, rest: Rest) => void | Promise<void>,
  ): Promise<string[]> {
    const on = {
      onStep,
      onWarning,
      image: async ({ sent, row }: { sent: SentImage; row: number }, rest: Rest) => {
        const image = new GeneratedImage(sent, sent.settings);
        await onImage?.(image, row);
        await deliver(image, rest);
      },
    };
    return this.#thread.call<string[]>("generate", call, { on, signal });
  }

  /** Ends the thread and frees everything in it at once; calls that run are rejected. A second call does nothing. */
  async dispose(): Promise<void> {
    await this.#thread.end(disposedOf());
  }

  /** As {@link dispose}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/** Once for all pipelines. */
let encoders: Promise<void> | undefined;

/**
 * Encodes one pixel: the first WebP or JPEG of a process loads sharp, which keeps the event loop waiting for a tenth of
 * a second. Better while the model is loaded than between the requests of a server.
 */
async function prepareEncoders(): Promise<void> {
  const pixel = { width: 1, height: 1, data: new Uint8Array(3) };
  // Who saves as PNG alone needs no sharp; others hear of it with their picture.
  await encodeImage(pixel, [], { format: "webp" }).catch(() => {});
}

// What programs in JavaScript may ask for all the same: an error that says why it is not here.
for (const name of ["network", "autoencoder", "schedule", "preconditioning", "textEncoder", "freeTextEncoder"])
  refuse(name);
for (const name of ["encodePrompt", "decode", "preview", "plan", "draw", "settings"]) refuse(name);

function refuse(name: string): void {
  const get = () => {
    throw new InvalidInputError(
      message`${about(name)}: stays in the thread of the pipeline; load it without { worker: true } to work with tensors`,
    );
  };
  Object.defineProperty(WorkerPipeline.prototype, name, { get });
}

/** A call as it passes to the thread: checked, without callbacks. @throws InvalidInputError for what cannot pass */
function toSend(prompt: string | readonly string[], options: WorkerGenerateOptions) {
  parseOptions(generateSchema, options);
  const { onStep, onImage, onWarning, signal, ...plain } = options as GenerateOptions;
  for (const name of TENSORS)
    if (plain[name])
      throw invalid(name, "nothing with a pipeline in a thread, since tensors cannot leave theirs", message`a value`);
  return { prompt: texts("prompt", prompt), options: plain };
}
