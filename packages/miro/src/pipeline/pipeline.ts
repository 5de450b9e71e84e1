/**
 * From text to pictures: text encoder, network, sampler and decoder behind one call.
 *
 * Pictures are computed in batches of `batchSize` (1 on a CPU), each with its own generator. With the default on a CPU, and with
 * `deterministic` everywhere, a picture is therefore bit for bit the same whatever else the call draws; larger batches change the
 * order in which kernels add numbers up (four at a time change 5 of 196,608 values by one level: see pipeline.test.ts).
 */
import {
  buildInfo,
  captureGraph,
  cat,
  hasCudaGraphs,
  memory,
  noGrad,
  scope,
  type Tensor,
  TorchError,
} from "@miro-t2i/torch";
import type { Autoencoder } from "../autoencoder/index.js";
import { denormalize } from "../autoencoder/normalization.js";
import { MiroError } from "../errors.js";
import type { Predict } from "../flow/guidance.js";
import { release } from "../flow/release.js";
import { ReplayedPredict } from "../flow/replay.js";
import { LinearSchedule } from "../flow/schedule.js";
import type { Conditioning } from "../networks/conditioning.js";
import { REWARD_KEYS } from "../networks/config.js";
import { parseOptions } from "../options.js";
import { type RgbImage, toRgb } from "../pictures/rgb.js";
import { version } from "../version.js";
import { type Branches, condition, copyStates, type TextStates } from "./conditioning.js";
import { drawLatents, predictBy } from "./draw-latents.js";
import type { GenerateOptions, GenerateProgress } from "./generate-options.js";
import type { Checkpoint } from "./loading/checkpoint.js";
import { type ComputeDType, cudaIndex } from "./loading/device.js";
import { type FromPretrainedOptions, loadSchema } from "./loading/load-options.js";
import { checkChannels, loadParts, Part, type PipelineParts, type TextEncoder } from "./loading/parts.js";
import { noiseOf, seedsOf } from "./noise.js";
import { makePlan, type Plan } from "./plan.js";
import { fitLatentToRgb, type LatentToRgb, latentsToRgb } from "./preview.js";
import type { GeneratedImage, ImageSettings } from "./settings.js";

export { DEFAULT_TEXT_ENCODER, DEFAULT_VAE, type PipelineParts, type TextEncoder } from "./loading/parts.js";

/** What {@link MiroPipeline.generate} returns. */
export interface GenerateResult {
  /** Prompt 0's pictures, prompt 1's, … */
  images: GeneratedImage[];
  /** (B, C, r, r) float32 on the CPU, before decoding. The caller owns it. */
  latents: Tensor;
  /** What the caller should know, such as prompts that were cut. */
  warnings: string[];
}

type Origin = Pick<ImageSettings, "weights" | "textEncoderDtype">;
type Size = Pick<RgbImage, "width" | "height">;

/** A finished picture on its way to the caller, with its latents (1, C, r, r) float32 on the CPU. */
interface Drawn {
  image: GeneratedImage;
  latents: Tensor;
}

/** Text-to-image with reward targets. */
export class MiroPipeline {
  /** The rewards of the published main model. */
  static readonly COHERENCE_KEYS: readonly string[] = REWARD_KEYS;

  readonly preconditioning: Checkpoint["preconditioning"];
  readonly config: Checkpoint["config"];
  readonly schedule: LinearSchedule;
  readonly device: string;
  readonly dtype: Exclude<ComputeDType, "auto">;
  readonly name: string;
  readonly variant: string | undefined;
  readonly #parts: PipelineParts;
  readonly #predict: Predict<Conditioning>;
  /** On CUDA the network's evaluations are recorded and replayed. */
  readonly #replayed: ReplayedPredict<Conditioning> | null;
  #warnedOfGraphs = false;
  #textEncoder: Promise<TextEncoder> | null = null;
  /** What `#textEncoder` became, until it is freed. */
  #loadedTextEncoder: TextEncoder | null = null;
  /** Pixels for one latent along a side, once it was asked for. */
  #downsampling: number | null = null;
  /** Ends with the last call of `generate` that has the memory to itself. */
  #turn: Promise<unknown> = Promise.resolve();
  #preview: LatentToRgb | null = null;
  /** Pictures that fit in memory together, as far as that has been found out. */
  #fits = Number.POSITIVE_INFINITY;

  constructor(parts: PipelineParts) {
    this.#parts = parts;
    this.preconditioning = parts.preconditioning;
    this.config = parts.config;
    this.device = parts.device ?? "cpu";
    this.dtype = parts.dtype ?? "float32";
    this.#predict = predictBy(this.preconditioning, () => this.network);
    const gpu = cudaIndex(this.device);
    this.#replayed =
      gpu !== null && hasCudaGraphs(gpu)
        ? new ReplayedPredict(this.#predict, (body) => captureGraph(body, { device: gpu }))
        : null;
    this.name = parts.name ?? "unnamed";
    this.variant = parts.variant;
    const { start, end, shift, clip_min: clipMin } = parts.config.settings.scheduler ?? {};
    this.schedule = new LinearSchedule({
      ...(start !== undefined && { start }),
      ...(end !== undefined && { end }),
      ...(clipMin !== undefined && { clipMin }),
      shift: parts.config.settings.sampler_defaults?.shift ?? shift ?? 1,
    });
    if (!(parts.autoencoder instanceof Part)) checkChannels(parts.autoencoder, parts.config.network.numInputChannels);
  }

  /** The network. With `lowMemory` it is read when it is not in memory, and the next call of {@link generate} frees it. */
  get network(): Checkpoint["network"] {
    const { network } = this.#parts;
    return network instanceof Part ? network.module : network;
  }

  /** The autoencoder; in memory as the network is. */
  get autoencoder(): Autoencoder {
    const { autoencoder } = this.#parts;
    return autoencoder instanceof Part ? autoencoder.module : autoencoder;
  }

  /**
   * Loads a pipeline from a folder or a repository of the Hugging Face Hub. The text encoder is loaded at the first call
   * of {@link generate}.
   *
   * @param model a folder in the release layout, or `owner/name`
   * @throws InvalidInputError for what the caller chose wrongly (model, variant, device, …); MiroError for files that
   *   are missing or broken and for a Hub that cannot be reached
   */
  static async fromPretrained(model: string, options: FromPretrainedOptions = {}): Promise<MiroPipeline> {
    return new MiroPipeline(await loadParts(model, parseOptions(loadSchema, options)));
  }

  /** The rewards that this checkpoint was trained on: the names that targets may use. */
  get coherenceKeys(): readonly string[] {
    return this.config.coherenceKeys;
  }

  /** Steps used when a call gives none. */
  get defaultSteps(): number {
    return this.config.settings.sampler_defaults?.num_steps ?? 50;
  }

  /** Guidance scale used when a call gives none. */
  get defaultGuidanceScale(): number {
    return this.config.settings.sampler_defaults?.guidance_scale ?? 7;
  }

  /** Shape of one picture's latents: channels, height, width. */
  get latentShape(): [number, number, number] {
    const { numInputChannels, dataSize } = this.config.network;
    return [numInputChannels, dataSize, dataSize];
  }

  /** The tokenizer and the text encoder, loaded at the first call and again after {@link freeTextEncoder}. */
  textEncoder(): Promise<TextEncoder> {
    this.#textEncoder ??= this.#parts.loadTextEncoder().then(
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

  /** Frees the text encoder, the largest part of the published models; a later call that has text to encode reads it again. */
  async freeTextEncoder(): Promise<void> {
    await this.#textEncoder?.catch(() => null);
    this.#loadedTextEncoder?.encoder.dispose();
    this.#loadedTextEncoder = null;
    this.#textEncoder = null;
    memory.emptyCache();
  }

  /**
   * Text encoder states of one prompt; the caller frees them. Without padding, except for networks that attend padded
   * text (`concatCondTokenToLatents`). `cut` is what exceeded the checkpoint's limit, "" if nothing did.
   */
  async encodePrompt(prompt: string): Promise<{ embeddings: Tensor; length: number; cut: string }> {
    let loaded = await this.textEncoder();
    while (loaded !== this.#loadedTextEncoder) loaded = await this.textEncoder(); // freed meanwhile
    const { tokenizer, encoder } = loaded;
    const padTo = this.config.network.concatCondTokenToLatents ? "maxLength" : "longest";
    return scope(() =>
      noGrad(() => {
        const batch = tokenizer.encodeBatch([prompt], { maxLength: this.config.settings.max_text_len, padTo });
        const states = encoder.forward(batch.ids.to({ device: this.device }), batch.mask.to({ device: this.device }));
        return {
          embeddings: states.select(0, 0).float(),
          length: batch.mask.sum().item() as number,
          cut: batch.overflow[0] ?? "",
        };
      }),
    );
  }

  /**
   * Draws pictures.
   *
   * @param prompt one text, or several
   * @returns `imagesPerPrompt` pictures for each prompt, in order, with their latents
   * @throws InvalidInputError for wrong options, before anything is computed; the signal's reason when it is aborted
   */
  async generate(prompt: string | readonly string[], options: GenerateOptions = {}): Promise<GenerateResult> {
    const plan = this.#plan(prompt, options);
    const images: GeneratedImage[] = [];
    const latents: Tensor[] = [];
    const warnings: string[] = [];
    try {
      for await (const drawn of this.#run(plan, warnings)) {
        images.push(drawn.image);
        latents.push(drawn.latents);
      }
      return { images, latents: scope(() => cat(latents, 0)), warnings };
    } finally {
      release(latents);
    }
  }

  /**
   * Draws pictures as they are asked for: each comes as soon as it is finished, and nothing is computed while the caller works
   * on one. Leaving the loop (`break`, an error) ends the work. Takes the options of {@link generate}; `onWarning` tells
   * what its `warnings` hold.
   *
   * @throws InvalidInputError for wrong options, with the first picture that is asked for
   */
  async *stream(
    prompt: string | readonly string[],
    options: GenerateOptions = {},
  ): AsyncGenerator<GeneratedImage, void, void> {
    for await (const { image, latents } of this.#run(this.#plan(prompt, options), [])) {
      latents.dispose();
      yield image;
    }
  }

  /**
   * The settings that the pictures of a call will hold, without drawing them: what {@link generate} would do, defaults
   * filled in.
   *
   * @throws InvalidInputError as {@link generate}; MiroError when the text encoder's files cannot be had
   */
  async describe(prompt: string | readonly string[], options: GenerateOptions = {}): Promise<ImageSettings[]> {
    const plan = this.#plan(prompt, options);
    const origin = await this.#originOf(plan);
    this.#downsampling ??= this.autoencoder.downsampling;
    const [, height, width] = this.latentShape.map((side) => side * this.#downsampling!) as [number, number, number];
    return Array.from({ length: plan.count }, (_, row) => this.#settings(plan, row, { width, height }, origin));
  }

  #plan(prompt: string | readonly string[], options: GenerateOptions): Plan {
    const { labelDim, concatCondTokenToLatents } = this.config.network;
    return makePlan(prompt, options, {
      coherenceKeys: this.coherenceKeys,
      latentShape: this.latentShape,
      defaultSteps: this.defaultSteps,
      defaultGuidanceScale: this.defaultGuidanceScale,
      schedule: this.schedule,
      batchSize: this.device === "cpu" ? 1 : 32,
      labelDim,
      paddedTokens: concatCondTokenToLatents ? this.config.settings.max_text_len : null,
    });
  }

  /** Draws the pictures of a plan in order. Where memory is low, one call after another: a second one would bring a second part in. */
  async *#run(plan: Plan, warnings: string[]): AsyncGenerator<Drawn, void, void> {
    if (!this.#parts.lowMemory) {
      yield* this.#draw(plan, warnings);
      return;
    }
    const before = this.#turn;
    let done: () => void = () => {};
    this.#turn = new Promise<void>((resolve) => {
      done = resolve;
    });
    try {
      await before;
      yield* this.#draw(plan, warnings);
    } finally {
      done();
    }
  }

  async *#draw(plan: Plan, warnings: string[]): AsyncGenerator<Drawn, void, void> {
    const { count, batchSize, signal } = plan;
    const { lowMemory } = this.#parts;
    signal?.throwIfAborted();
    let left = Array.from({ length: count }, (_, i) => i);
    let size = Math.min(batchSize, this.#fits);
    /** What tells the texts of a picture from those of others. */
    const textsOf = (row: number) => {
      const prompt = plan.promptOf(row);
      return [plan.promptEmbeddings ? prompt : plan.prompts[prompt], plan.negativePrompts?.[prompt]];
    };
    /** Batches that wait for the decoder, where it has its turn after the network. */
    const waiting: { rows: number[]; latents: Tensor }[] = [];
    let texts: EncodedTexts | null = null;
    let conditioning: Branches | null = null;
    let conditioned = "";
    try {
      if (plan.previewEvery !== undefined && plan.preview === "linear") {
        this.#preview ??= this.#fitPreview();
        if (lowMemory) freePart(this.#parts.autoencoder);
      }
      texts = await this.#encode(plan, warnings);
      if (lowMemory) await this.freeTextEncoder();
      while (left.length > 0) {
        await served(signal);
        const rows = left.slice(0, size);
        // Pictures that differ in their seeds only share one conditioning.
        const key = JSON.stringify(rows.map((row) => [textsOf(row), plan.wanted[row], plan.unwanted[row]]));
        if (conditioning === null || key !== conditioned) {
          release(conditioning);
          conditioning = null;
          conditioning = this.#condition(plan, rows, texts);
          conditioned = key;
        }
        let latents: Tensor;
        try {
          latents = await this.#sample(plan, rows, conditioning);
        } catch (error) {
          if (!isOutOfMemory(error) || rows.length === 1) throw error;
          // Half as many, now and in later calls.
          size = this.#fits = Math.ceil(rows.length / 2);
          release(conditioning);
          conditioning = null;
          this.#replayed?.dispose(); // recordings of other sizes hold memory of their own
          memory.emptyCache();
          const warning = `${rows.length} pictures at a time do not fit in memory; drawing ${size} at a time`;
          warnings.push(warning);
          plan.onWarning?.(warning);
          continue;
        }
        this.#warnOfGraphs(plan, warnings);
        left = left.slice(rows.length);
        if (lowMemory) {
          waiting.push({ rows, latents: scope(() => latents.to({ device: "cpu" }).clone()) });
          latents.dispose();
          continue;
        }
        try {
          yield* this.#finish(plan, rows, latents);
        } finally {
          latents.dispose();
        }
      }
      if (lowMemory) {
        release(conditioning);
        conditioning = null;
        this.#freeNetwork();
        for (const { rows, latents } of waiting) yield* this.#finish(plan, rows, latents);
      }
    } finally {
      release([texts, waiting.map(({ latents }) => latents), conditioning]);
      if (lowMemory) {
        await this.freeTextEncoder();
        this.#freeNetwork();
        freePart(this.#parts.autoencoder);
      }
    }
  }

  /** Says once that CUDA graphs were to be used and could not be recorded. */
  #warnOfGraphs(plan: Plan, warnings: string[]): void {
    const failure = this.#replayed?.failure;
    if (!failure || this.#warnedOfGraphs) return;
    this.#warnedOfGraphs = true;
    const warning = `CUDA graphs are not used, which costs speed: recording one failed (${failure.message})`;
    warnings.push(warning);
    plan.onWarning?.(warning);
  }

  /** Decodes the pictures `rows` and delivers each as it is finished. */
  async *#finish(plan: Plan, rows: readonly number[], latents: Tensor): AsyncGenerator<Drawn, void, void> {
    const chunk = plan.deterministic ? 1 : this.#decodedTogether;
    const origin = await this.#originOf(plan);
    for (let first = 0; first < rows.length; first += chunk) {
      await served(plan.signal);
      const own = rows.slice(first, first + chunk);
      const decoded = this.#decodeChunk(latents, first, own.length);
      for (const [i, row] of own.entries()) {
        const settings = this.#settings(plan, row, decoded[i]!, origin);
        const image = { ...decoded[i]!, prompt: settings.prompt, seed: settings.seed, settings };
        await plan.onImage?.(image, row);
        yield {
          image,
          latents: scope(() =>
            latents
              .narrow(0, first + i, 1)
              .to({ device: "cpu" })
              .clone(),
          ),
        };
      }
    }
  }

  /**
   * Latents of the network's space (B, C, r, r) to pictures, in chunks. The decoder runs in float32 or bfloat16, never in
   * float16, in which the published autoencoder overflows.
   * @throws MiroError when the latents hold values that are not finite
   */
  decode(latents: Tensor): RgbImage[] {
    const images: RgbImage[] = [];
    const B = latents.shape[0]!;
    for (let first = 0; first < B; first += this.#decodedTogether) {
      images.push(...this.#decodeChunk(latents, first, Math.min(this.#decodedTogether, B - first)));
    }
    return images;
  }

  get #decodedTogether(): number {
    return this.device === "cpu" ? 1 : 16;
  }

  #decodeChunk(latents: Tensor, first: number, length: number): RgbImage[] {
    return scope(() =>
      noGrad(() => {
        const x = latents.narrow(0, first, length).to({ device: this.device });
        if (!x.isfinite().all().item()) {
          const hint = this.dtype === "float32" ? "the checkpoint may be damaged" : "try dtype float32";
          throw new MiroError(`the network returned values that are not finite; ${hint}`);
        }
        return toRgb(this.autoencoder.decode(denormalize(x.float(), this.#parts.postprocessing)));
      }),
    );
  }

  /**
   * Latents of the network's space (B, C, r, r) to small pictures, one pixel for each latent, by a linear map that is fitted to the
   * autoencoder at the first call (see preview.ts): for showing what becomes of a picture while it is drawn.
   */
  preview(latents: Tensor): RgbImage[] {
    this.#preview ??= this.#fitPreview();
    return latentsToRgb(latents, this.#preview, this.#parts.postprocessing);
  }

  #fitPreview(): LatentToRgb {
    return fitLatentToRgb({
      autoencoder: this.autoencoder,
      normalization: this.#parts.postprocessing,
      device: this.device,
    });
  }

  /** Frees all weights; the pipeline must not be used afterwards. */
  async dispose(): Promise<void> {
    await this.freeTextEncoder();
    this.#replayed?.dispose();
    this.preconditioning.dispose();
    for (const part of [this.#parts.network, this.#parts.autoencoder]) {
      if (part instanceof Part) part.free();
      else part.dispose();
    }
    release([this.#parts.preprocessing, this.#parts.postprocessing, this.#parts.uncondEmbedding]);
  }

  /** Recordings read the network's own memory. */
  #freeNetwork(): void {
    this.#replayed?.dispose();
    freePart(this.#parts.network);
  }

  /** Latents of the pictures `rows`, on the pipeline's device; the caller owns them. */
  async #sample(plan: Plan, rows: readonly number[], conditioning: Branches): Promise<Tensor> {
    const { steps, guidance, sampler, samplerOptions, schedule, signal, onStep, count } = plan;
    const first = rows[0]!;
    const { start, noise } = this.#noise(plan, rows);
    try {
      return await drawLatents(start, {
        predict: this.#replayed?.predict ?? this.#predict,
        ...{ branches: conditioning, guidance, sampler, gammas: schedule.grid(steps), options: samplerOptions },
        ...{ noise, signal },
        ...(onStep && {
          onStep: ({ step, gamma, x, denoised }) => {
            const progress: GenerateProgress = {
              ...{ step, steps, gamma, x, denoised },
              ...{ image: first, images: rows, imageCount: count },
            };
            if (plan.previewEvery !== undefined && (step + 1) % plan.previewEvery === 0) {
              progress.previews = plan.preview === "linear" ? this.preview(denoised) : this.decode(denoised);
            }
            return onStep(progress);
          },
        }),
      });
    } finally {
      start.dispose();
    }
  }

  /** Initial noise of the pictures `rows`, which the caller owns, and the source of what a sampler adds to it. */
  #noise({ noise, seeds }: Plan, rows: readonly number[]): { start: Tensor; noise: () => Tensor } {
    const [first, count] = [rows[0]!, rows.length];
    const copied = (own: Tensor) => own.to({ device: this.device, dtype: "float32" }).clone();
    if (seeds) {
      const draw = noiseOf(seeds.slice(first, first + count), this.latentShape);
      return { start: scope(() => copied(draw())), noise: draw };
    }
    const given = noise!.narrow(0, first, count);
    let draw: (() => Tensor) | null = null;
    return {
      start: scope(() => copied(given)),
      noise: () => {
        draw ??= noiseOf(seedsOf(given), this.latentShape);
        return draw();
      },
    };
  }

  /** What a picture of `plan` stores about the weights. */
  async #originOf(plan: Plan): Promise<Origin> {
    const { origin } = this.#parts;
    if (!origin) return {};
    const text = plan.promptEmbeddings && !plan.negativePrompts ? null : await origin.textEncoder();
    return {
      weights: {
        checkpoint: await origin.checkpoint.get(),
        ...(text && { textEncoder: await text.weights.get() }),
        autoencoder: await origin.autoencoder.get(),
      },
      ...(text && { textEncoderDtype: text.dtype }),
    };
  }

  #settings(plan: Plan, row: number, { width, height }: Size, origin: Origin): ImageSettings {
    const negativePrompt = plan.negativePrompts?.[plan.promptOf(row)];
    return {
      prompt: plan.prompts[plan.promptOf(row)]!,
      ...(negativePrompt !== undefined && { negativePrompt }),
      seed: plan.seeds?.[row] ?? null,
      steps: plan.steps,
      guidanceScale: plan.guidance.scale,
      guidanceType: plan.guidance.type,
      ...(plan.guidanceWindow && { guidanceWindow: plan.guidanceWindow }),
      sampler: plan.sampler,
      ...(Object.keys(plan.samplerOptions).length > 0 && { samplerOptions: plan.samplerOptions }),
      shift: plan.schedule.shift,
      ...(plan.deterministic && { deterministic: true as const }),
      rewardTargets: plan.wanted[row]!,
      negativeRewardTargets: plan.unwanted[row]!,
      model: this.name,
      ...(this.variant && { variant: this.variant }),
      ...origin,
      width,
      height,
      device: this.device,
      dtype: this.dtype,
      ...(this.#parts.quantization === "int8" && { quantization: "int8" as const }),
      versions: { miro: version(), torch: buildInfo().torchVersion },
    };
  }

  /** States of the plan's texts; equal ones are encoded once. The caller frees them. */
  async #encode(plan: Plan, warnings: string[]): Promise<EncodedTexts> {
    const distinct = new Map<string, TextStates>();
    const encode = async (text: string, what: string): Promise<TextStates> => {
      const known = distinct.get(text);
      if (known) return known;
      await served(plan.signal);
      const { cut, ...states } = await this.encodePrompt(text);
      distinct.set(text, states);
      if (cut) {
        const limit = this.config.settings.max_text_len;
        const warning = `the ${what} ${JSON.stringify(shortened(text))} is longer than ${limit} tokens; these words were cut: ${JSON.stringify(cut)}`;
        warnings.push(warning);
        plan.onWarning?.(warning);
      }
      return states;
    };
    const { prompts, negativePrompts, promptEmbeddings } = plan;
    const copies: TextStates[] = [];
    try {
      for (const given of promptEmbeddings ?? []) copies.push(copyStates(given, this.device));
      const wanted = [...copies];
      if (!promptEmbeddings) {
        for (const text of prompts) wanted.push(await encode(text, "prompt"));
      }
      const unwanted: TextStates[] = [];
      for (const text of negativePrompts ?? []) unwanted.push(await encode(text, "negative prompt"));
      return { wanted, unwanted: negativePrompts && unwanted };
    } catch (error) {
      release([copies, distinct]);
      throw error;
    }
  }

  #condition(plan: Plan, rows: readonly number[], { wanted, unwanted }: EncodedTexts): Branches {
    const empty = { embeddings: this.#parts.uncondEmbedding };
    return condition({
      network: this.network,
      texts: rows.map((row) => wanted[plan.promptOf(row)]!),
      wanted: rows.map((row) => plan.wanted[row]!),
      unwantedTexts: rows.map((row) => unwanted?.[plan.promptOf(row)] ?? empty),
      unwanted: rows.map((row) => plan.unwanted[row]!),
      guided: plan.guided,
      device: this.device,
    });
  }
}

/** Text states by prompt, of both branches; null where the checkpoint's empty text is the unconditional one. */
interface EncodedTexts {
  wanted: TextStates[];
  unwanted: TextStates[] | null;
}

/** Hands the event loop a turn, so that an abort can arrive. @throws the signal's reason when it has */
async function served(signal: AbortSignal | undefined): Promise<void> {
  await new Promise<void>((resolve) => setImmediate(resolve));
  signal?.throwIfAborted();
}

/** The beginning of a text, for messages. */
function shortened(text: string): string {
  return text.length <= 60 ? text : `${[...text].slice(0, 57).join("")}…`;
}

function freePart(part: unknown): void {
  if (part instanceof Part) part.free();
}

/** Whether an operator failed for lack of memory on its device. */
function isOutOfMemory(error: unknown): boolean {
  return error instanceof TorchError && /out of memory/i.test(error.message);
}
