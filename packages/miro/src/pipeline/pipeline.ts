/**
 * From text to pictures: text encoder, network, sampler and decoder behind one call.
 *
 * Pictures are computed in batches of `batchSize` (1 on a CPU), each with its own generator. With the default on a CPU a
 * picture is therefore bit for bit the same whatever else the call draws; larger batches change the order in which
 * kernels add numbers up (four at a time change 5 of 196,608 values by one level: see pipeline.test.ts).
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
  tensor,
  zeros,
} from "@miro-t2i/torch";
import type { Autoencoder } from "../autoencoder/index.js";
import { InvalidInputError, invalid, MiroError } from "../errors.js";
import { type Guidance, guidedDenoise, guidedSteps, type Predict } from "../flow/guidance.js";
import { release } from "../flow/release.js";
import { ReplayedPredict } from "../flow/replay.js";
import { SAMPLERS } from "../flow/samplers.js";
import { LinearSchedule } from "../flow/schedule.js";
import { type Conditioning, narrowConditioning } from "../networks/conditioning.js";
import { REWARD_KEYS } from "../networks/config.js";
import type { RinBatch } from "../networks/rin.js";
import { parseOptions } from "../options.js";
import { version } from "../version.js";
import type { Checkpoint } from "./checkpoint.js";
import type { ComputeDType } from "./device.js";
import { type GenerateOptions, generateSchema, type ResolvedGenerateOptions } from "./generate-options.js";
import { type RgbImage, toRgb } from "./images.js";
import { type FromPretrainedOptions, loadSchema } from "./load-options.js";
import type { GeneratedImage, ImageSettings } from "./metadata.js";
import { initialNoise } from "./noise.js";
import { denormalize } from "./normalization.js";
import { checkChannels, loadParts, Part, type PipelineParts, type TextEncoder } from "./parts.js";

export { DEFAULT_TEXT_ENCODER, DEFAULT_VAE, type PipelineParts, type TextEncoder } from "./parts.js";

/** Text encoder states of one prompt. */
export interface TextStates {
  /** (T, width) float32. */
  embeddings: Tensor;
  /** Number of real tokens, `</s>` included; the states behind them are of padding. */
  length: number;
}

/** What {@link MiroPipeline.generate} returns. */
export interface GenerateResult {
  /** Prompt 0's pictures, prompt 1's, … */
  images: GeneratedImage[];
  /** (B, C, r, r) float32 on the CPU, before decoding. The caller owns it. */
  latents: Tensor;
  /** What the caller should know, such as prompts that were cut. */
  warnings: string[];
}

/** The conditioning of both branches (2B rows, conditional half first) and of the conditional one, where a run needs them. */
interface Branches {
  both: Conditioning | null;
  conditional: Conditioning | null;
}

type Origin = Pick<ImageSettings, "weights" | "textEncoderDtype">;
type Size = Pick<RgbImage, "width" | "height">;

/** A call of `generate` with everything decided. */
interface Plan extends Omit<ResolvedGenerateOptions, "noise"> {
  prompts: string[];
  /** Number of pictures. */
  count: number;
  /** Index of a picture's prompt. */
  promptOf: (row: number) => number;
  /** Reward targets of each picture, for the two branches of guidance. */
  wanted: Record<string, number>[];
  unwanted: Record<string, number>[];
  /** Initial noise of all pictures, or else their seeds. */
  noise: Tensor | null;
  seeds: number[] | null;
  steps: number;
  guidance: Guidance;
  schedule: LinearSchedule;
  batchSize: number;
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
  /** On CUDA the network's evaluations are recorded and replayed. */
  readonly #replayed: ReplayedPredict<Conditioning> | null;
  #textEncoder: Promise<TextEncoder> | null = null;
  /** What `#textEncoder` became, until it is freed. */
  #loadedTextEncoder: TextEncoder | null = null;
  /** Pixels for one latent along a side, once it was asked for. */
  #downsampling: number | null = null;
  /** Ends with the last call of `generate` that has the memory to itself. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(parts: PipelineParts) {
    this.#parts = parts;
    this.preconditioning = parts.preconditioning;
    this.config = parts.config;
    this.device = parts.device ?? "cpu";
    this.dtype = parts.dtype ?? "float32";
    this.#replayed =
      this.device.startsWith("cuda") && hasCudaGraphs()
        ? new ReplayedPredict(this.#predict, (body) =>
            captureGraph(body, { device: Number(this.device.split(":")[1] ?? 0) }),
          )
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
  async encodePrompt(prompt: string): Promise<TextStates & { cut: string }> {
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
    if (!this.#parts.lowMemory) return this.#draw(plan);
    // One call after another: a second one would bring a second part into memory.
    const turn = this.#turn.then(() => this.#draw(plan));
    this.#turn = turn.catch(() => {});
    return turn;
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

  async #draw(plan: Plan): Promise<GenerateResult> {
    const { prompts, count, batchSize, signal, onImage } = plan;
    const { lowMemory } = this.#parts;
    signal?.throwIfAborted();
    const images: GeneratedImage[] = [];
    const latents: Tensor[] = [];
    const warnings: string[] = [];
    let texts: TextStates[] = [];
    let conditioning: Branches | null = null;
    let conditioned = "";
    const finish = async (rows: readonly number[], result: Tensor) => {
      const origin = await this.#originOf(plan);
      for (const [i, image] of this.decode(result).entries()) {
        const settings = this.#settings(plan, rows[i]!, image, origin);
        images.push({ ...image, prompt: settings.prompt, seed: settings.seed, settings });
      }
      if (onImage) for (const row of rows) await onImage(images[row]!, row);
    };
    const textOf = (row: number) => {
      const prompt = plan.promptOf(row);
      return plan.promptEmbeddings ? prompt : prompts[prompt];
    };
    const batches: number[][] = [];
    for (let first = 0; first < count; first += batchSize) {
      batches.push(Array.from({ length: Math.min(batchSize, count - first) }, (_, i) => first + i));
    }
    try {
      texts = await this.#encode(prompts, plan.promptEmbeddings, warnings);
      if (lowMemory) await this.freeTextEncoder();
      for (const rows of batches) {
        // Pictures that differ in their seeds only share one conditioning.
        const key = JSON.stringify(rows.map((row) => [textOf(row), plan.wanted[row], plan.unwanted[row]]));
        if (conditioning === null || key !== conditioned) {
          release(conditioning);
          conditioning = this.#condition(plan, rows, texts);
          conditioned = key;
        }
        const result = await this.#sample(plan, rows, conditioning);
        try {
          latents.push(scope(() => result.to({ device: "cpu" }).clone()));
          if (!lowMemory) await finish(rows, result);
        } finally {
          result.dispose();
        }
      }
      if (lowMemory) {
        release(conditioning);
        conditioning = null;
        this.#freeNetwork();
        for (const [i, rows] of batches.entries()) {
          signal?.throwIfAborted();
          await finish(rows, latents[i]!);
        }
      }
      return { images, latents: scope(() => cat(latents, 0)), warnings };
    } finally {
      release([texts, latents, conditioning]);
      if (lowMemory) {
        await this.freeTextEncoder();
        this.#freeNetwork();
        freePart(this.#parts.autoencoder);
      }
    }
  }

  /**
   * Latents of the network's space (B, C, r, r) to pictures, in chunks. The decoder runs in float32 or bfloat16, never in
   * float16, in which the published autoencoder overflows.
   * @throws MiroError when the latents hold values that are not finite
   */
  decode(latents: Tensor): RgbImage[] {
    const chunk = this.device === "cpu" ? 1 : 16;
    const images: RgbImage[] = [];
    for (let first = 0; first < latents.shape[0]!; first += chunk) {
      const part = scope(() =>
        noGrad(() => {
          const x = latents.narrow(0, first, Math.min(chunk, latents.shape[0]! - first)).to({ device: this.device });
          if (!x.isfinite().all().item()) {
            const hint = this.dtype === "float32" ? "the checkpoint may be damaged" : "try dtype float32";
            throw new MiroError(`the network returned values that are not finite; ${hint}`);
          }
          return toRgb(this.autoencoder.decode(denormalize(x.float(), this.#parts.postprocessing)));
        }),
      );
      images.push(...part);
    }
    return images;
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

  /** Checks the options and fills in what they leave open. */
  #plan(prompt: string | readonly string[], options: GenerateOptions): Plan {
    const given = parseOptions(generateSchema, options);
    const prompts = typeof prompt === "string" ? [prompt] : [...prompt];
    if (prompts.length === 0) invalid("prompt", "a text or a list of texts", prompts);
    for (const text of prompts) if (typeof text !== "string") invalid("prompt", "a text or a list of texts", text);
    const count = prompts.length * given.imagesPerPrompt;
    const noise = this.#checkNoise(given.noise, count);
    return {
      ...given,
      prompts,
      count,
      promptOf: (row: number) => Math.floor(row / given.imagesPerPrompt),
      wanted: this.#targets("rewardTargets", given.rewardTargets, 1, count),
      unwanted: this.#targets("negativeRewardTargets", given.negativeRewardTargets, 0, count),
      noise,
      seeds: noise ? null : seedsOf(given.seed, count),
      steps: given.steps ?? this.defaultSteps,
      guidance: {
        scale: given.guidanceScale ?? this.defaultGuidanceScale,
        type: given.guidanceType,
        start: given.guidanceWindow?.[0] ?? 0,
        end: given.guidanceWindow?.[1] ?? null,
      },
      schedule:
        given.shift === undefined ? this.schedule : new LinearSchedule({ ...this.schedule, shift: given.shift }),
      batchSize: given.batchSize ?? (this.device === "cpu" ? 1 : 8),
    };
  }

  /** Recordings read the network's own memory. */
  #freeNetwork(): void {
    this.#replayed?.dispose();
    freePart(this.#parts.network);
  }

  readonly #predict: Predict<Conditioning> = (y, gamma, conditioning, previousLatents) =>
    this.preconditioning.apply(this.network, { y, gamma, conditioning, previousLatents } as RinBatch);

  /** Latents of the pictures `rows`, on the pipeline's device; the caller owns them. */
  async #sample(plan: Plan, rows: readonly number[], conditioning: Branches): Promise<Tensor> {
    const { noise, seeds, steps, guidance, schedule, signal, onStep, count } = plan;
    const [first, last] = [rows[0]!, rows.at(-1)!];
    const start = scope(() => {
      const own = noise
        ? noise.narrow(0, first, rows.length)
        : initialNoise(seeds!.slice(first, last + 1), this.latentShape);
      return own.to({ device: this.device, dtype: "float32" }).clone();
    });
    const denoise = guidedDenoise<Conditioning>({
      predict: this.#replayed?.predict ?? this.#predict,
      guidance,
      ...conditioning,
    });
    try {
      return await SAMPLERS[plan.sampler](denoise, start, schedule.grid(steps), {
        ...(signal && { signal }),
        ...(onStep && {
          onStep: ({ step, gamma, x, denoised }) =>
            onStep({ step, steps, gamma, x, denoised, images: rows, imageCount: count }),
        }),
      });
    } finally {
      start.dispose();
    }
  }

  /** What a picture of `plan` stores about the weights. */
  async #originOf(plan: Plan): Promise<Origin> {
    const { origin } = this.#parts;
    if (!origin) return {};
    const text = plan.promptEmbeddings ? null : await origin.textEncoder();
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
    return {
      prompt: plan.prompts[plan.promptOf(row)]!,
      seed: plan.seeds?.[row] ?? null,
      steps: plan.steps,
      guidanceScale: plan.guidance.scale,
      guidanceType: plan.guidance.type,
      ...(plan.guidanceWindow && { guidanceWindow: plan.guidanceWindow }),
      sampler: plan.sampler,
      shift: plan.schedule.shift,
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

  /** One full map of targets for each picture; names are checked before anything is computed. */
  #targets(
    parameter: string,
    given: Record<string, number> | Record<string, number>[] | undefined,
    fallback: number,
    count: number,
  ): Record<string, number>[] {
    const keys = this.coherenceKeys;
    if (Array.isArray(given) && given.length !== count) {
      invalid(parameter, `one set for all pictures or one for each of ${count}`, `${given.length} sets`);
    }
    return Array.from({ length: count }, (_, i) => {
      const targets = (Array.isArray(given) ? given[i] : given) ?? {};
      const unknown = Object.keys(targets).filter((key) => !keys.includes(key));
      if (unknown.length > 0) {
        throw new InvalidInputError(
          `${parameter}: this checkpoint was not trained on ${unknown.join(", ")}; its rewards are ${keys.join(", ")}`,
        );
      }
      return Object.fromEntries(keys.map((key) => [key, targets[key] ?? fallback]));
    });
  }

  #checkNoise(noise: Tensor | undefined, count: number): Tensor | null {
    if (!noise) return null;
    const shape = [count, ...this.latentShape];
    if (noise.shape.length !== 4 || noise.shape.some((size, i) => size !== shape[i])) {
      invalid("noise", `shape (${shape.join(", ")})`, `(${noise.shape.join(", ")})`);
    }
    return noise;
  }

  /** States of each prompt; equal prompts are encoded once. The caller frees them. */
  async #encode(prompts: readonly string[], given: Tensor[] | undefined, warnings: string[]): Promise<TextStates[]> {
    const width = this.config.network.labelDim;
    if (given) {
      if (given.length !== prompts.length) {
        invalid("promptEmbeddings", `one tensor for each of ${prompts.length} prompts`, `${given.length} tensors`);
      }
      for (const states of given) {
        if (states.ndim !== 2 || states.size(1) !== width || states.size(0) === 0) {
          invalid("promptEmbeddings", `shape (tokens, ${width})`, `(${states.shape.join(", ")})`);
        }
      }
      return given.map((states) => ({
        embeddings: scope(() => states.detach().to({ device: this.device, dtype: "float32" }).clone()),
        length: states.size(0),
      }));
    }
    const distinct = new Map<string, TextStates>();
    for (const prompt of prompts) {
      if (distinct.has(prompt)) continue;
      const { cut, ...states } = await this.encodePrompt(prompt);
      distinct.set(prompt, states);
      if (cut) {
        warnings.push(
          `the prompt is longer than ${this.config.settings.max_text_len} tokens; this was cut: ${JSON.stringify(cut)}`,
        );
      }
    }
    return prompts.map((prompt) => distinct.get(prompt)!);
  }

  /**
   * Text and rewards of a batch, through everything that does not depend on the step: both branches as 2B rows, and the
   * conditional one alone, as far as the run needs them.
   */
  #condition(plan: Plan, rows: readonly number[], states: readonly TextStates[]): Branches {
    const guided = guidedSteps(plan.guidance, plan.steps);
    const texts = rows.map((row) => states[plan.promptOf(row)]!);
    const wanted = rows.map((row) => plan.wanted[row]!);
    const unwanted = rows.map((row) => plan.unwanted[row]!);
    return scope(() =>
      noGrad(() => {
        const empty = { embeddings: this.#parts.uncondEmbedding, length: this.#parts.uncondEmbedding.size(0) };
        const all = guided.any ? [...texts, ...texts.map(() => empty)] : texts;
        const targets = guided.any ? [...wanted, ...unwanted] : wanted;
        const length = Math.max(...all.map((text) => text.embeddings.size(0)));
        const textEmbeddings = zeros([all.length, length, this.config.network.labelDim], { device: this.device });
        const textMask = zeros([all.length, length], { dtype: "bool", device: this.device });
        for (const [row, text] of all.entries()) {
          textEmbeddings.select(0, row).narrow(0, 0, text.embeddings.size(0)).copy_(text.embeddings);
          textMask.select(0, row).narrow(0, 0, text.length).fill_(true);
        }
        const rewards = Object.fromEntries(
          this.coherenceKeys.map((key) => [
            key,
            tensor(
              targets.map((target) => target[key]!),
              { dtype: "float32", device: this.device },
            ),
          ]),
        );
        const conditioning = this.network.condition({ textEmbeddings, textMask, rewards });
        if (!guided.any) return { both: null, conditional: conditioning };
        return {
          both: conditioning,
          conditional: guided.all ? null : narrowConditioning(conditioning, 0, texts.length),
        };
      }),
    );
  }
}

/** The seed of each picture: consecutive from one, or as listed. */
function seedsOf(seed: number | number[], count: number): number[] {
  if (typeof seed === "number") return Array.from({ length: count }, (_, i) => seed + i);
  if (seed.length !== count)
    invalid("seed", `one number, or one for each of ${count} pictures`, `${seed.length} numbers`);
  return seed;
}

function freePart(part: unknown): void {
  if (part instanceof Part) part.free();
}
