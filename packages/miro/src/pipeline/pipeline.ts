/**
 * From text to pictures: text encoder, network, sampler and decoder behind one call.
 *
 * Pictures are computed in batches of `batchSize` (1 on a CPU), each with its own generator. With the default on a CPU,
 * and with `deterministic` everywhere, a picture is therefore bit for bit the same whatever else the call draws; larger
 * batches, of pictures and on a GPU of texts, may change the order in which kernels add numbers up (see together.ts).
 *
 * What happens: plan.ts checks and decides, draw.ts computes, residency.ts says which part is in memory.
 */
import { cat, scope, setNumThreads, Tensor } from "@miro-t2i/torch";
import { z } from "zod";
import type { Autoencoder } from "../autoencoder/index.js";
import { invalid } from "../errors.js";
import { release } from "../flow/release.js";
import { LinearSchedule } from "../flow/schedule.js";
import { REWARD_KEYS } from "../networks/config.js";
import { abortSignal, parseOptions } from "../options.js";
import type { RgbImage } from "../pictures/rgb.js";
import { checkFinite } from "./conditioning.js";
import { Drawer, type Drawn, type Warn } from "./draw.js";
import { type GenerateOptions, generateSchema, type ResolvedGenerateOptions } from "./generate-options.js";
import type { GeneratedImage } from "./generated-image.js";
import { orAborted } from "./interruption.js";
import { modelOrBundled } from "./loading/bundled.js";
import type { Checkpoint } from "./loading/checkpoint.js";
import type { ComputeDType } from "./loading/device.js";
import { type FromPretrainedOptions, loadSchema, type WorkerChoice } from "./loading/load-options.js";
import { checkChannels, loadParts, Part, type PipelineParts, type TextEncoder } from "./loading/parts.js";
import { samplerDefaults } from "./loading/release-config.js";
import { makePlan, type Plan } from "./plan.js";
import { originOf, settingsOf } from "./recorded-settings.js";
import type { ImageSettings } from "./settings.js";
import { type EncodedPrompt, encodePrompts } from "./texts.js";
import { WorkerPipeline } from "./worker-pipeline.js";

export type { PipelineParts, TextEncoder } from "./loading/parts.js";

/** What {@link MiroPipeline.generate} returns. */
export interface GenerateResult {
  /** Prompt 0's pictures, prompt 1's, … */
  images: GeneratedImage[];
  /**
   * With `keepLatents`: (B, C, r, r) float32 on the CPU, before decoding, in the order of `images`. The caller owns
   * them. Else null.
   */
  latents: Tensor | null;
  /** What the caller should know, such as prompts that were cut. */
  warnings: string[];
}

/** What {@link MiroPipeline.generate} returns with `keepLatents: true`. */
export interface GenerateResultWithLatents extends GenerateResult {
  /** (B, C, r, r) float32 on the CPU, before decoding. The caller owns them. */
  latents: Tensor;
}

/** Of calls that do no more than wait for what is loaded. */
const waitSchema = z.strictObject({ signal: abortSignal("stops waiting") });

/**
 * Text-to-image with reward targets.
 *
 * @example
 * ```ts
 * import { MiroPipeline } from "miro-t2i";
 *
 * await using pipe = await MiroPipeline.fromPretrained(); // the bundled model
 * const { images } = await pipe.generate("a red apple on a light blue background", { steps: 8, seed: 3 });
 * await images[0].save("apple.png");
 * ```
 */
export class MiroPipeline {
  /** The rewards of the published main model. */
  static readonly COHERENCE_KEYS: readonly string[] = REWARD_KEYS;

  /** Wraps the network's input and output (EDM preconditioning). */
  readonly preconditioning: Checkpoint["preconditioning"];
  /** What the checkpoint's `config.json` says. */
  readonly config: Checkpoint["config"];
  /** Signal levels of the steps, where a call gives no `shift`. */
  readonly schedule: LinearSchedule;
  /** `cpu`, `cuda:0`, … */
  readonly device: string;
  /** Type in which the network computes. */
  readonly dtype: Exclude<ComputeDType, "auto">;
  /** Name of the model, as pictures store it: the last part of its folder, or `owner/name`. */
  readonly name: string;
  /** The variant of the checkpoint that was chosen. */
  readonly variant: string | undefined;
  readonly #parts: PipelineParts;
  readonly #drawer: Drawer;
  /** Plans of which it was told what is odd about them. */
  readonly #told = new WeakSet<Plan>();
  /** Pixels for one latent along a side, once it was asked for. */
  #downsampling: number | null = null;

  /** A pipeline of parts that are in memory already; {@link fromPretrained} reads them from files. */
  constructor(parts: PipelineParts) {
    if (typeof parts !== "object" || parts === null)
      throw invalid("parts", "the parts of a pipeline (MiroPipeline.fromPretrained loads those of a model)", parts);
    this.#parts = parts;
    this.preconditioning = parts.preconditioning;
    this.config = parts.config;
    this.device = parts.device ?? "cpu";
    this.dtype = parts.dtype ?? "float32";
    this.name = parts.name ?? "unnamed";
    this.variant = parts.variant;
    const { settings } = parts.config;
    const { start, end, clip_min: clipMin } = settings.scheduler ?? {};
    this.schedule = new LinearSchedule({ start, end, clipMin, shift: samplerDefaults(settings).shift });
    if (!(parts.autoencoder instanceof Part)) checkChannels(parts.autoencoder, parts.config.network.numInputChannels);
    this.#drawer = new Drawer(parts);
  }

  /**
   * Loads a pipeline. The text encoder is loaded at the first call of {@link generate}. With `worker: true` it lives in
   * a thread of its own, see {@link WorkerPipeline}.
   *
   * @param model a folder in the release layout, a run of `miro train` or one of its checkpoints, a repository
   *   `owner/name` of the Hugging Face Hub, or `miro-emoji`, the bundled model, which is also the default
   * @throws InvalidInputError for what the caller chose wrongly (model, variant, device, …); MiroError for files that
   *   are missing or broken and for a Hub that cannot be reached
   *
   * @example
   * ```ts
   * import { MiroPipeline } from "miro-t2i";
   *
   * await using pipe = await MiroPipeline.fromPretrained("miro-emoji", { device: "cpu", dtype: "float32" });
   * console.log(pipe.coherenceKeys);
   * ```
   */
  static fromPretrained(
    model: string | undefined,
    options: FromPretrainedOptions & WorkerChoice<true>,
  ): Promise<WorkerPipeline>;
  static fromPretrained(
    model?: string,
    options?: FromPretrainedOptions & Partial<WorkerChoice<false | undefined>>,
  ): Promise<MiroPipeline>;
  static fromPretrained(
    model: string | undefined,
    options: FromPretrainedOptions & Partial<WorkerChoice<boolean | undefined>>,
  ): Promise<MiroPipeline | WorkerPipeline>;
  static async fromPretrained(
    model?: string,
    options: FromPretrainedOptions = {},
  ): Promise<MiroPipeline | WorkerPipeline> {
    const checked = parseOptions(loadSchema, options);
    if (checked.worker) return WorkerPipeline.load(model, checked);
    if (checked.threads !== undefined) setNumThreads(checked.threads);
    return new MiroPipeline(await loadParts(modelOrBundled(model), checked));
  }

  /**
   * The network. With `lowMemory` it is read when it is not in memory, and the next call of {@link generate} frees it.
   */
  get network(): Checkpoint["network"] {
    return this.#drawer.network;
  }

  /** The autoencoder; in memory as the network is. */
  get autoencoder(): Autoencoder {
    return this.#drawer.autoencoder;
  }

  /** The rewards that this checkpoint was trained on: the names that targets may use. */
  get coherenceKeys(): readonly string[] {
    return this.config.coherenceKeys;
  }

  /** Steps used when a call gives none. */
  get defaultSteps(): number {
    return samplerDefaults(this.config.settings).steps;
  }

  /** Guidance scale used when a call gives none. */
  get defaultGuidanceScale(): number {
    return samplerDefaults(this.config.settings).guidanceScale;
  }

  /** Shape of one picture's latents: channels, height, width. */
  get latentShape(): [number, number, number] {
    return this.#drawer.latentShape;
  }

  /**
   * The tokenizer and the text encoder, loaded at the first call and again after {@link freeTextEncoder}.
   * @param options with a signal that stops waiting
   */
  async textEncoder(options: { signal?: AbortSignal | undefined } = {}): Promise<TextEncoder> {
    const { signal } = parseOptions(waitSchema, options);
    signal?.throwIfAborted();
    return orAborted(this.#drawer.textEncoder(), signal);
  }

  /**
   * Frees the text encoder, the largest part of the published models; a later call that has text to encode reads it
   * again.
   */
  freeTextEncoder(): Promise<void> {
    return this.#drawer.freeTextEncoder();
  }

  /**
   * Text encoder states of one prompt, in which the characters of the model's vocabulary mean their names; the caller
   * frees them. Without padding, except for networks that attend padded text (`concatCondTokenToLatents`). `cut` is
   * what exceeded the checkpoint's limit, "" if nothing did.
   * @param options with a signal that stops waiting for the text encoder
   */
  async encodePrompt(prompt: string, options: { signal?: AbortSignal | undefined } = {}): Promise<EncodedPrompt> {
    if (typeof prompt !== "string") throw invalid("prompt", "a text", prompt);
    await this.textEncoder(options);
    const [encoded] = await this.#encodePrompts([prompt]);
    return encoded!;
  }

  /** As {@link encodePrompt}, in one batch. */
  async #encodePrompts(prompts: readonly string[]): Promise<EncodedPrompt[]> {
    const encoder = await this.#drawer.textEncoder();
    const named = prompts.map((prompt) => this.#parts.vocabulary?.named(prompt) ?? prompt);
    return encodePrompts(encoder, named, this.#parts);
  }

  /**
   * Draws pictures.
   *
   * @param prompt one text, or several
   * @returns `imagesPerPrompt` pictures for each prompt, in order; with `keepLatents` their latents too
   * @throws InvalidInputError for wrong options, before anything is computed; the signal's reason when it is aborted
   *
   * @example
   * ```ts
   * import { MiroPipeline } from "miro-t2i";
   *
   * await using pipe = await MiroPipeline.fromPretrained();
   * const { images, warnings } = await pipe.generate(["a fox", "a rocket"], {
   *   imagesPerPrompt: 2, // seeds 7, 8 for the fox, 9, 10 for the rocket
   *   seed: 7,
   *   steps: 8,
   *   rewardTargets: { sharpness: 0.9 },
   *   guidanceScale: 3,
   * });
   * for (const image of images) await image.save(`${image.prompt}-${image.seed}.png`);
   * console.log(warnings);
   * ```
   */
  generate(
    prompt: string | readonly string[],
    options: GenerateOptions & { keepLatents: true },
  ): Promise<GenerateResultWithLatents>;
  generate(prompt: string | readonly string[], options?: GenerateOptions): Promise<GenerateResult>;
  async generate(prompt: string | readonly string[], options: GenerateOptions = {}): Promise<GenerateResult> {
    const plan = await this.plan(prompt, parseOptions(generateSchema, options));
    const images: GeneratedImage[] = [];
    const latents: Tensor[] = [];
    const warnings: string[] = [];
    try {
      for await (const drawn of this.draw(plan, { onWarning: (warning) => void warnings.push(warning) })) {
        images.push(drawn.image);
        if (drawn.latents) latents.push(drawn.latents);
      }
      return { images, latents: plan.keepLatents ? scope(() => cat(latents, 0)) : null, warnings };
    } finally {
      release(latents);
    }
  }

  /**
   * Draws pictures as they are asked for: each comes as soon as it is finished, and nothing is computed while the
   * caller works on one. Leaving the loop (`break`, an error) ends the work. Takes the options of {@link generate};
   * `onWarning` tells what its `warnings` hold.
   *
   * @throws InvalidInputError for wrong options, with the first picture that is asked for
   *
   * @example
   * ```ts
   * import { MiroPipeline } from "miro-t2i";
   *
   * await using pipe = await MiroPipeline.fromPretrained();
   * for await (const image of pipe.stream("a bell", { imagesPerPrompt: 2, steps: 4 })) console.log(image.seed);
   * ```
   */
  async *stream(
    prompt: string | readonly string[],
    options: GenerateOptions = {},
  ): AsyncGenerator<GeneratedImage, void, void> {
    const plan = await this.plan(prompt, { ...parseOptions(generateSchema, options), keepLatents: false });
    for await (const { image } of this.draw(plan)) yield image;
  }

  /**
   * The settings that the pictures of a call will hold, without drawing them: what {@link generate} would do, defaults
   * filled in.
   *
   * @throws InvalidInputError as {@link generate}; MiroError when the text encoder's files cannot be had; the signal's
   *   reason when it is aborted
   *
   * @example
   * ```ts
   * import { MiroPipeline } from "miro-t2i";
   *
   * await using pipe = await MiroPipeline.fromPretrained();
   * const [settings] = await pipe.describe("a fox", { seed: 7 });
   * console.log(settings.steps, settings.guidanceScale, settings.rewardTargets);
   * ```
   */
  async describe(prompt: string | readonly string[], options: GenerateOptions = {}): Promise<ImageSettings[]> {
    const checked = parseOptions(generateSchema, options);
    checked.signal?.throwIfAborted();
    const settings = this.plan(prompt, checked).then((plan) => this.settings(plan));
    return orAborted(settings, checked.signal);
  }

  /**
   * What a call will do; its options have been checked by themselves and are checked against the checkpoint here.
   * @internal
   */
  async plan(prompt: string | readonly string[], options: ResolvedGenerateOptions): Promise<Plan> {
    this.#drawer.checkUsable();
    const { labelDim, concatCondTokenToLatents } = this.config.network;
    const plan = await makePlan(prompt, options, {
      coherenceKeys: this.coherenceKeys,
      latentShape: this.latentShape,
      defaultSteps: this.defaultSteps,
      defaultGuidanceScale: this.defaultGuidanceScale,
      schedule: this.schedule,
      batchSize: this.device === "cpu" ? 1 : 32,
      labelDim,
      paddedTokens: concatCondTokenToLatents ? this.config.settings.max_text_len : null,
    });
    const kinds = [plan.promptEmbeddings ? null : plan.prompts, plan.negativePrompts];
    // Looking for the nearest names takes its time.
    const known = new Map<string, string | null>();
    const unknown = (rows: readonly number[]): string[] => {
      const texts = new Set(kinds.flatMap((kind) => (kind ? rows.map((row) => kind[plan.promptOf(row)]!) : [])));
      const key = JSON.stringify([...texts]);
      if (!known.has(key)) known.set(key, this.#parts.vocabulary?.warning([...texts], this.name) ?? null);
      return [known.get(key) ?? []].flat();
    };
    return { ...plan, oddities: (rows) => [...plan.oddities(rows), ...unknown(rows)] };
  }

  /**
   * Draws pictures of a plan, by default all of them. A warning comes with the pictures that it is about, but for
   * the plan's own oddities, which are told once of all its pictures.
   * @internal
   */
  draw(
    plan: Plan,
    { rows = allRows(plan), onWarning }: { rows?: readonly number[]; onWarning?: Warn } = {},
  ): AsyncGenerator<Drawn, void, void> {
    const warn: Warn = (warning, about) => {
      onWarning?.(warning, about);
      plan.onWarning?.(warning);
    };
    if (!this.#told.has(plan)) {
      this.#told.add(plan);
      for (const oddity of plan.oddities(allRows(plan))) warn(oddity, []);
    }
    return this.#drawer.draw(plan, rows, (texts) => this.#encodePrompts(texts), warn);
  }

  /**
   * The settings of the pictures of a plan.
   * @internal
   */
  async settings(plan: Plan): Promise<ImageSettings[]> {
    const origin = await originOf(plan, this.#parts);
    this.#downsampling ??= this.autoencoder.downsampling;
    const [, height, width] = this.latentShape.map((side) => side * this.#downsampling!) as [number, number, number];
    return allRows(plan).map((row) => settingsOf(plan, row, { width, height }, origin, this.#parts));
  }

  /**
   * Latents of the network's space (B, C, r, r) to pictures, in chunks. The decoder runs in float32 or bfloat16, never
   * in float16, in which the published autoencoder overflows.
   * @throws InvalidInputError for latents of another shape, and when they hold values that are not finite
   */
  decode(latents: Tensor): RgbImage[] {
    this.#checkLatents(latents);
    checkFinite("latents", latents);
    return this.#drawer.decoder.decode(latents);
  }

  /**
   * Latents of the network's space (B, C, r, r) to small pictures, one pixel for each latent, by a linear map that is
   * fitted to the autoencoder at the first call: for showing what becomes of a picture while it is drawn.
   */
  preview(latents: Tensor): RgbImage[] {
    this.#checkLatents(latents);
    return this.#drawer.decoder.preview(latents);
  }

  #checkLatents(latents: Tensor): void {
    this.#drawer.checkUsable();
    const shape = this.latentShape;
    if (latents instanceof Tensor && latents.ndim === 4 && shape.every((size, i) => latents.size(i + 1) === size))
      return;
    const received = latents instanceof Tensor ? `(${latents.shape.join(", ")})` : latents;
    throw invalid("latents", `a tensor (B, ${shape.join(", ")})`, received);
  }

  /** Frees all weights; later calls are refused. `await using pipe` calls it at the end of the block. */
  dispose(): Promise<void> {
    return this.#drawer.dispose();
  }

  /** As {@link dispose}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

function allRows({ count }: Plan): number[] {
  return Array.from({ length: count }, (_, row) => row);
}
