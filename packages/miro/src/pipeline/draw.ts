/**
 * Draws the pictures of a plan: texts are encoded, batches of pictures go through the network, the decoder finishes
 * them. A batch that does not fit in memory is halved, and what fits is remembered.
 */
import { cat, hasCudaGraphs, memory, scope, type Tensor, TorchError } from "@miro-t2i/torch";
import type { Autoencoder } from "../autoencoder/index.js";
import { isOutOfMemory } from "../errors.js";
import type { Predict } from "../flow/guidance.js";
import { graphsOn, RECORDED_TOKENS } from "../flow/recording.js";
import { release } from "../flow/release.js";
import { ReplayedPredict } from "../flow/replay.js";
import type { Conditioning } from "../networks/conditioning.js";
import { forwardFlops } from "../networks/flops.js";
import type { Rin } from "../networks/rin.js";
import { withBusyThreads } from "./busy-threads.js";
import { type Branches, condition } from "./conditioning.js";
import { Decoder } from "./decoder.js";
import { drawLatents, predictBy } from "./draw-latents.js";
import { blend, type EncodedEdit, encodeEdit, gridFrom, startOver } from "./edit.js";
import type { GenerateProgress } from "./generate-options.js";
import { GeneratedImage } from "./generated-image.js";
import { breathe, orAborted } from "./interruption.js";
import { cudaIndex } from "./loading/device.js";
import type { PipelineParts, TextEncoder } from "./loading/parts.js";
import { between, noiseAfter, noiseOf } from "./noise.js";
import type { Plan } from "./plan.js";
import { originOf, settingsOf } from "./recorded-settings.js";
import { Residency } from "./residency.js";
import { type EncodedPrompt, type EncodedTexts, encodeTexts, promptsTogether } from "./texts.js";
import { Together } from "./together.js";

/** A finished picture on its way to the caller. */
export interface Drawn {
  /** Its place in the plan. */
  row: number;
  image: GeneratedImage;
  /** (1, C, r, r) float32 on the CPU where the plan keeps latents, else null. The caller frees them. */
  latents: Tensor | null;
}

/** Hears what the caller should know, and about which pictures of the plan. */
export type Warn = (warning: string, rows: readonly number[]) => void;

/** Pictures between network and decoder; latents (b, C, r, r). */
interface Batch {
  rows: readonly number[];
  latents: Tensor;
}

/** What is drawn over, by the place of its prompt. */
type EncodedEdits = Map<number, EncodedEdit>;

/** Tokens of a text, as far as they matter for the arithmetic of an evaluation: hardly. */
const COUNTED_TOKENS = 16;

/** Draws with the parts of one pipeline, which it owns. */
export class Drawer {
  readonly decoder: Decoder;
  readonly #parts: PipelineParts;
  readonly #device: string;
  readonly #residency: Residency;
  readonly #predict: Predict<Conditioning>;
  /** On CUDA the network's evaluations are recorded and replayed. */
  readonly #replayed: ReplayedPredict<Conditioning> | null;
  /** Which pictures are the same together as alone; null where they are not compared. */
  readonly #together: Together | null;
  #warnedOfGraphs = false;
  /** Pictures that fit in memory together, as far as that has been found out. */
  #fits = Number.POSITIVE_INFINITY;

  constructor(parts: PipelineParts) {
    this.#parts = parts;
    this.#device = parts.device ?? "cpu";
    const predict = predictBy(parts.preconditioning, () => this.network);
    const flops = forwardFlops(parts.config.network, COUNTED_TOKENS, { conditioning: false });
    this.#predict = this.#device === "cpu" ? withBusyThreads(predict, flops) : predict;
    const gpu = cudaIndex(this.#device);
    if (gpu !== null && hasCudaGraphs(gpu)) {
      this.#replayed = new ReplayedPredict(this.#predict, graphsOn(gpu));
    } else this.#replayed = null;
    this.#together = this.#device === "cpu" ? new Together(this.#predict, this.latentShape) : null;
    this.#residency = new Residency(parts, () => this.#replayed?.dispose());
    this.decoder = new Decoder(parts, () => this.autoencoder);
  }

  get network(): Rin {
    return this.#residency.network;
  }

  get autoencoder(): Autoencoder {
    return this.#residency.autoencoder;
  }

  get latentShape(): [number, number, number] {
    const { numInputChannels, dataSize } = this.#parts.config.network;
    return [numInputChannels, dataSize, dataSize];
  }

  /** @throws MiroError after {@link dispose} */
  checkUsable(): void {
    this.#residency.checkUsable();
  }

  textEncoder(): Promise<TextEncoder> {
    return this.#residency.textEncoder();
  }

  freeTextEncoder(): Promise<void> {
    return this.#residency.freeTextEncoder();
  }

  dispose(): Promise<void> {
    return this.#residency.dispose();
  }

  /**
   * The pictures `rows` of a plan in order, each as soon as it is finished; nothing is computed while the caller works
   * on one. Where memory is low, one call after another.
   *
   * @param encode encodes prompts, in one batch; the states are freed here
   * @param warn called with what the caller should know
   */
  draw(
    plan: Plan,
    rows: readonly number[],
    encode: (prompts: readonly string[]) => Promise<EncodedPrompt[]>,
    warn: Warn,
  ): AsyncGenerator<Drawn, void, void> {
    return this.#residency.inTurn(this.#draw(plan, rows, encode, warn), plan.signal);
  }

  async *#draw(
    plan: Plan,
    rows: readonly number[],
    encode: (prompts: readonly string[]) => Promise<EncodedPrompt[]>,
    warn: Warn,
  ): AsyncGenerator<Drawn, void, void> {
    const residency = this.#residency;
    plan.signal?.throwIfAborted();
    let texts: EncodedTexts | null = null;
    let edits: EncodedEdits | null = null;
    try {
      if (plan.previewEvery !== undefined && plan.preview === "linear") {
        await residency.bring("autoencoder", plan.signal);
        this.decoder.fitPreview();
        await residency.over("autoencoder");
      }
      const limit = this.#parts.config.settings.max_text_len;
      const load = () => residency.presentTextEncoder();
      const together = promptsTogether(this.#device, plan.deterministic);
      texts = await encodeTexts(plan, rows, { load, encode, together, limit, device: this.#device, warn });
      await residency.over("textEncoder");
      edits = await this.#encodeEdits(plan, rows);
      for await (const batch of residency.toDecoder(this.#batches(plan, rows, { texts, edits }, warn))) {
        try {
          yield* this.#finish(plan, batch, edits);
        } finally {
          batch.latents.dispose();
        }
      }
    } finally {
      release([texts, edits]);
      await residency.over("textEncoder", "network", "autoencoder");
    }
  }

  /** Latents of the pictures, in batches; who takes a batch frees it. */
  async *#batches(
    plan: Plan,
    rows: readonly number[],
    { texts, edits }: { texts: EncodedTexts; edits: EncodedEdits | null },
    warn: Warn,
  ): AsyncGenerator<Batch, void, void> {
    let size = Math.min(plan.batchSize, this.#fits);
    let conditioning: Branches | null = null;
    let conditioned = "";
    await this.#residency.bring("network", plan.signal);
    try {
      for (let left = rows; left.length > 0; ) {
        await breathe(plan.signal);
        const own = left.slice(0, await this.#count(plan, left, texts, size));
        // Pictures that differ in their seeds only share one conditioning.
        const key = JSON.stringify(own.map((row) => [textsOf(plan, row), plan.wanted[row], plan.unwanted[row]]));
        let latents: Tensor;
        try {
          if (conditioning === null || key !== conditioned) {
            release(conditioning);
            conditioning = null;
            conditioning = this.#condition(plan, own, texts);
            conditioned = key;
          }
          latents = await this.#sample(plan, own, conditioning, edits);
        } catch (error) {
          if (!(error instanceof TorchError && isOutOfMemory(error)) || own.length === 1) throw error;
          // Half as many, now and in later calls.
          size = this.#fits = Math.ceil(own.length / 2);
          release(conditioning);
          conditioning = null;
          this.#replayed?.dispose(); // recordings of other sizes hold memory of their own
          memory.emptyCache();
          warn(`${own.length} pictures at a time do not fit in memory; drawing ${size} at a time`, own);
          continue;
        }
        this.#warnOfGraphs(own, warn);
        left = left.slice(own.length);
        yield { rows: own, latents };
      }
    } finally {
      release(conditioning);
    }
  }

  /** How many of the next pictures make a batch: with `deterministic` only what is the same together as alone. */
  async #count(plan: Plan, left: readonly number[], texts: EncodedTexts, size: number): Promise<number> {
    if (!plan.deterministic) return size;
    if (this.#together === null || size === 1) return 1;
    return this.#together.leading(left, {
      limit: size,
      textsOf: (row) => {
        const [wanted, unwanted] = [texts.wanted, texts.unwanted].map((one) => one?.get(plan.promptOf(row)));
        return [wanted!, ...(unwanted ? [unwanted] : [])];
      },
      condition: (rows) => this.#condition(plan, rows, texts),
      signal: plan.signal,
    });
  }

  #condition(plan: Plan, rows: readonly number[], { wanted, unwanted }: EncodedTexts): Branches {
    const empty = { embeddings: this.#parts.uncondEmbedding };
    return condition({
      network: this.network,
      texts: rows.map((row) => wanted.get(plan.promptOf(row))!),
      wanted: rows.map((row) => plan.wanted[row]!),
      unwantedTexts: rows.map((row) => unwanted?.get(plan.promptOf(row)) ?? empty),
      unwanted: rows.map((row) => plan.unwanted[row]!),
      guided: plan.guided,
      device: this.#device,
      ...(this.#replayed && { padTo: RECORDED_TOKENS }),
    });
  }

  /** Latents of the pictures `rows`, on the pipeline's device; the caller owns them. */
  async #sample(plan: Plan, rows: readonly number[], branches: Branches, edits: EncodedEdits | null): Promise<Tensor> {
    const { steps, guidance, sampler, samplerOptions, schedule, signal, onStep, count } = plan;
    const { start, noise } = this.#noise(plan, rows);
    const first = plan.edit ? Math.fround(1 - plan.edit.strength) : 0;
    const over =
      edits &&
      startOver(
        start,
        rows.map((row) => edits.get(plan.promptOf(row))!),
        first,
      );
    try {
      return await drawLatents(over?.start ?? start, {
        predict: this.#replayed?.predict ?? this.#predict,
        branches,
        guidance,
        sampler,
        options: samplerOptions,
        noise,
        signal,
        gammas: gridFrom(schedule.grid(steps), first),
        wholeSteps: steps,
        keep: over?.keep ?? null,
        ...(onStep && {
          onStep: ({ step, steps, gamma, x, denoised }) => {
            const progress: GenerateProgress = {
              step,
              steps,
              gamma,
              x,
              denoised,
              image: rows[0]!,
              images: rows,
              imageCount: count,
            };
            if (plan.previewEvery !== undefined && (step + 1) % plan.previewEvery === 0) {
              progress.previews =
                plan.preview === "linear" ? this.decoder.preview(denoised) : this.decoder.decode(denoised);
            }
            return onStep(progress);
          },
        }),
      });
    } finally {
      over?.dispose();
      start.dispose();
    }
  }

  /** What is drawn over, by prompt; null where nothing is. */
  async #encodeEdits({ edit, promptOf, signal }: Plan, rows: readonly number[]): Promise<EncodedEdits | null> {
    if (!edit) return null;
    const encoded: EncodedEdits = new Map();
    await this.#residency.bring("autoencoder", signal);
    const into = { autoencoder: this.autoencoder, normalization: this.#parts.preprocessing };
    try {
      for (const prompt of new Set(rows.map(promptOf))) {
        await breathe(signal);
        const [, side] = this.latentShape;
        encoded.set(prompt, await encodeEdit(edit.edits[prompt]!, { ...into, side, device: this.#device }));
      }
    } catch (error) {
      release(encoded);
      throw error;
    }
    await this.#residency.over("autoencoder");
    return encoded;
  }

  /** Initial noise of the pictures `rows`, which the caller owns, and the source of what a sampler adds to it. */
  #noise({ noise, seeds, variation }: Plan, rows: readonly number[]): { start: Tensor; noise: () => Tensor } {
    const of = (seeds: readonly number[]) =>
      noiseOf(
        rows.map((row) => seeds[row]!),
        this.latentShape,
      );
    const given = () =>
      cat(
        rows.map((row) => noise!.narrow(0, row, 1)),
        0,
      );
    const own = seeds ? of(seeds) : noiseAfter(given, this.latentShape);
    const draw = variation ? between(own, of(variation.seeds), variation.strength) : own;
    return { start: scope(() => draw().to({ device: this.#device, dtype: "float32" }).clone()), noise: draw };
  }

  /** Decodes a batch and delivers each picture as it is finished. */
  async *#finish(plan: Plan, { rows, latents }: Batch, edits: EncodedEdits | null): AsyncGenerator<Drawn, void, void> {
    const origin = await orAborted(originOf(plan, this.#parts), plan.signal);
    await this.#residency.bring("autoencoder", plan.signal);
    for (let first = 0; first < rows.length; ) {
      await breathe(plan.signal);
      const chunk = this.decoder.decodeSome(latents, first, plan.deterministic ? 1 : rows.length);
      for (const [i, decoded] of chunk.entries()) {
        const row = rows[first + i]!;
        const kept = edits?.get(plan.promptOf(row))?.kept;
        const pixels = kept ? blend(decoded, kept) : decoded;
        const image = new GeneratedImage(pixels, settingsOf(plan, row, pixels, origin, this.#parts));
        await plan.onImage?.(image, row);
        const copy = () =>
          latents
            .narrow(0, first + i, 1)
            .to({ device: "cpu" })
            .clone();
        yield { row, image, latents: plan.keepLatents ? scope(copy) : null };
      }
      first += chunk.length;
    }
  }

  /** Says once that CUDA graphs were to be used and could not be recorded. */
  #warnOfGraphs(rows: readonly number[], warn: Warn): void {
    const failure = this.#replayed?.failure;
    if (!failure || this.#warnedOfGraphs) return;
    this.#warnedOfGraphs = true;
    warn(`CUDA graphs are not used, which costs speed: recording one failed (${failure.message})`, rows);
  }
}

/** What tells the texts of a picture from those of others. */
function textsOf({ promptOf, prompts, promptEmbeddings, negativePrompts }: Plan, row: number): unknown[] {
  const prompt = promptOf(row);
  return [promptEmbeddings ? prompt : prompts[prompt], negativePrompts?.[prompt]];
}
