/**
 * The training of the diffusion network: what one step of the loop is.
 *
 * One step: a batch → loss (two passes, the first without gradient) → backward → clip by global norm → skip if anything
 * is not finite → optimizer → EMA. Everything random in step k is drawn from generators seeded by (seed, k), and the
 * batch is a function of (seed, k) too, so a run that is resumed at any step computes bit for bit what the undisturbed
 * run computes.
 *
 * The host only queues what a device is to compute. Whether a step counts is decided there: an optimizer changes
 * nothing where its loss or its gradients are not finite. The host reads the figures of a step, and logs them, when it
 * has queued the gradients of the next one, so that the device never waits for it; on a CPU, where nothing is queued,
 * at once.
 *
 * Several processes each compute their rows of the batch and average the gradients; from there on all of them do the
 * same. What they decide by (the loss, a request to stop) is summed over them first.
 */
import { cat, full, noGrad, scope, type Tensor, tensor, zerosLike } from "@miro-t2i/torch";
import { clipGradNorm_, TensorList } from "@miro-t2i/torch/optim";
import { type BatchSpan, samplesBefore } from "../../data/shards/order.js";
import type { LossBatch } from "../../flow/loss.js";
import { toDevice } from "../../flow/to-device.js";
import type { Rin } from "../../networks/rin.js";
import { partsOf, type Rows, rowsOf } from "../batches/batch-slices.js";
import { withPaddedTexts } from "../batches/padded-texts.js";
import { groupGradientNorms, learningRates, Meter, memoryFigures } from "../logging/meter.js";
import { DataParallelGroup } from "../process-group/process-group.js";
import type { TrainingCheckpoint } from "../state/checkpoint.js";
import { CapturedGradients } from "./captured-gradients.js";
import { checkpointForms, checkpointOf, emasOf, restoreParts } from "./checkpointing.js";
import type { Ema } from "./ema.js";
import { accumulateGradients, type Draws, drawRows, meanOf, termsIn } from "./gradients.js";
import { runLoop, type Work } from "./loop.js";
import { NonFiniteSteps } from "./non-finite-steps.js";
import { QueuedFigures } from "./queued-figures.js";
import type { TrainerHooks, TrainerOptions, TrainerParts } from "./trainer-parts.js";

/** A step that is queued: its figures on the device. */
interface QueuedStep {
  /** From 1. */
  k: number;
  /** The loss's terms, then {@link Figures}; float64. */
  figures: QueuedFigures;
  /** How many terms. */
  terms: number;
  /** Gradients that are not finite were replaced, and it was said. */
  repaired: boolean;
}

/**
 * Of a queued step, after the terms: how many processes were asked to stop, or have no time left, what the device has
 * decided, and, of steps that are logged, the norms of the groups.
 */
type Figures = [
  stops: number,
  overdue: number,
  gradNorm: number,
  skipped: number,
  overflow: number,
  scale: number,
  ...norms: number[],
];

export class Trainer {
  /** Optimizer steps done, skipped ones included. */
  step = 0;
  skippedSteps = 0;
  /** Seconds of training, resumed runs included. */
  seconds = 0;
  /** Of the last batch, with the padding that makes its texts equally long. */
  #textTokens = 0;
  /** Any of several processes has been asked to stop. */
  #stopAgreed = false;
  /** The time of any of them is over. */
  #timeAgreed = false;
  /** When this process's time is over, by performance.now(). */
  #deadline = Number.POSITIVE_INFINITY;
  /** The step whose figures have not been read. */
  #queued: QueuedStep | null = null;
  /** The log is to be told as soon as the figures of the last step are read. */
  #isLogDue = false;
  #meter = new Meter();

  readonly #group: DataParallelGroup;
  readonly #hooks: TrainerHooks;
  readonly #device: string;
  readonly #trainable: TensorList;
  readonly #readsLater: boolean;
  readonly #padsTexts: boolean;
  readonly #captured: CapturedGradients | null;
  readonly #nonFinite: NonFiniteSteps;
  /** The rows of each batch that this process computes. */
  readonly #rows: Rows;

  constructor(
    readonly parts: TrainerParts,
    readonly options: TrainerOptions,
    hooks: TrainerHooks = {},
  ) {
    this.#hooks = hooks;
    this.#group = parts.group ?? DataParallelGroup.alone();
    this.#rows = this.#group.rowsOf(options.batchSize);
    this.#device = parts.network.latents.device;
    this.#trainable = new TensorList(parts.optimizer.paramGroups.flatMap(({ params }) => params));
    this.#readsLater = options.readsLater ?? this.#device !== "cpu";
    this.#padsTexts = options.padsTexts ?? (this.#device !== "cpu" || parts.capture != null);
    this.#captured = parts.capture
      ? new CapturedGradients(parts, this.#trainable, parts.capture, (failure) => this.#warnOfCapture(failure))
      : null;
    const steps = {
      rows: this.#rows,
      inputs: (k: number) => this.#batch(k, this.#rows),
      hasGradients: (k: number) => !this.#readsLater || this.step < k,
    };
    const onWarning = (k: number, what: string) => hooks.onWarning?.(k, what);
    this.#nonFinite = new NonFiniteSteps(parts, options, this.#trainable, steps, onWarning);
  }

  /** Whether {@link run} ended because its time was over, before the last step. */
  get isOutOfTime(): boolean {
    return this.#timeAgreed && !this.#stopAgreed && this.step < this.options.maxSteps;
  }

  /**
   * Trains until `maxSteps`, or until the signal is aborted or the time is over, then stores a checkpoint. Of several
   * processes, all stop after the same step.
   * @param deadline when the time is over, by performance.now(); one step is made in any case
   * @returns whether all steps were done
   */
  async run(signal?: AbortSignal, deadline = Number.POSITIVE_INFINITY): Promise<boolean> {
    this.#deadline = deadline;
    const { options, parts } = this;
    const hooks = this.#hooks;
    const group = this.#group;
    const { maxSteps, batchSize, logEveryNSteps, checkpointEveryNSteps } = options;
    const { samples, validation, resumes = false, work } = options;
    const meter = new Meter(work?.peakFlops ?? null, this.#meter.unlogged);
    this.#meter = meter;
    let stored = this.step;
    // What several processes do together, none of them may leave.
    const alone = group.isAlone ? signal : undefined;
    if (this.step < maxSteps) await this.#settleReduction();
    const trainer = this;
    const firstStep = this.step + 1;
    const steps: Work = {
      get step() {
        return trainer.step;
      },
      ready: (signal) => {
        group.note(`waiting for the data of step ${this.step + 1}`);
        return parts.source.ready(this.step, signal);
      },
      advance: async (waitingSince) => {
        const startedAt = performance.now();
        await this.#update(signal);
        // The progress needs the figures of some step.
        if (this.step === firstStep || this.step === maxSteps) await this.#read();
        const now = performance.now();
        this.seconds += (now - waitingSince) / 1000;
        meter.time({
          waitMs: startedAt - waitingSince,
          totalMs: now - waitingSince,
          images: batchSize,
          flops: work && batchSize * work.flopsPerImage(this.#textTokens),
        });
      },
      pace: () => ({ loss: meter.smoothLoss, stepsPerSecond: meter.stepsPerSecond }),
      log: () => {
        this.#isLogDue = true;
        if (this.#queued === null) this.#log();
      },
    };
    /** Weights and EMA weights are those of the last step only once its figures were read. */
    const onceRead =
      (run: (step: number) => void | Promise<void>) =>
      async (step = this.step) => {
        await this.#read();
        await run(step);
      };
    const checkpoint = onceRead(async () => {
      await hooks.onCheckpoint?.();
      stored = this.step;
    });
    let finished: boolean;
    try {
      finished = await runLoop(steps, {
        maxSteps,
        batchSize,
        logEveryNSteps,
        signal: alone,
        stop: () => this.#stopAgreed || this.#timeAgreed || alone?.aborted === true,
        onProgress: (progress) => {
          const secondsLeft = Math.min(progress.secondsLeft, (deadline - performance.now()) / 1000);
          hooks.onProgress?.({ ...progress, secondsLeft });
        },
        recurring: [
          { everyNSteps: checkpointEveryNSteps, run: checkpoint },
          { ...validation, atStart: resumes, run: onceRead((step) => this.#validate(step)) },
          { ...samples, atStart: resumes, run: onceRead(() => this.#drawSamples(signal)) },
        ],
      });
    } finally {
      this.#captured?.dispose();
    }
    if (stored !== this.step) await checkpoint();
    return finished;
  }

  /** What a request to stop has left undone is made up for by a run that goes on from this very step. */
  async #validate(step: number): Promise<void> {
    if ((await this.#hooks.onValidate?.(step)) === false) this.#stopAgreed = true;
  }

  /** A sheet that cannot be drawn is no reason to lose a run. */
  async #drawSamples(signal?: AbortSignal): Promise<void> {
    if (this.#stopAgreed) return;
    try {
      await this.#hooks.onSamples?.(this.step);
    } catch (error) {
      if (!signal?.aborted)
        this.#hooks.onWarning?.(this.step, `step ${this.step}: no samples: ${(error as Error).message}`);
    }
    if (this.#group.isAlone) return;
    const [stops] = await this.#group.sum([Number(signal?.aborted === true)]);
    if (stops! > 0) this.#stopAgreed = true;
  }

  /**
   * Has the reducer put its buckets in the order in which gradients come, which it learns from one backward pass: sums
   * of three or more processes depend on the buckets, and a resumed run must begin with those that the undisturbed run
   * has by then.
   */
  async #settleReduction(): Promise<void> {
    const { source, optimizer } = this.parts;
    const { reducer } = this.#group;
    if (reducer === undefined) return;
    const { seed, precision, accumulateGradBatches } = this.options;
    this.#group.note("waiting for the first data");
    await source.ready(this.step); // sources can go back to a batch that has been taken
    await this.#group.together("the first gradients", () =>
      scope(() => {
        const own = this.#rows;
        const rows = partsOf(own, accumulateGradBatches)[0]!;
        const part = { start: 0, count: rows.count, batchSize: own.count };
        const options = { seed, k: this.step + 1, rows, precision, accumulateGradBatches: 1, reducer };
        const { batch } = this.#there({ batch: source.batch(this.step) });
        accumulateGradients(this.parts, rowsOf(batch, part), options);
        optimizer.zeroGrad();
      }),
    );
  }

  get #spans(): readonly BatchSpan[] {
    const { batchSize, spans = [{ from: 0, batchSize }] } = this.options;
    return spans;
  }

  /** Queues one optimizer step. */
  async #update(signal?: AbortSignal): Promise<void> {
    const { optimizer, schedule, scaler } = this.parts;
    const { logEveryNSteps, gradientClipVal, zeroNonFiniteGradients } = this.options;
    const k = this.step + 1;
    const terms = await this.#group.together(`the gradients of step ${k}`, () => this.#gradients(k));
    try {
      await this.#agree(terms, signal?.aborted === true);
      await this.#hooks.beforeChange?.();
      await this.#read();
      const overflow = scope(() => scaler?.unscale_(this.#trainable).clone().keep());
      const repaired = zeroNonFiniteGradients && (await this.#nonFinite.repair(k, terms, overflow));
      scope(() =>
        noGrad(() => {
          const norms = k % logEveryNSteps === 0 ? groupGradientNorms(optimizer.paramGroups) : null;
          const norm = clipGradNorm_(this.#trainable, gradientClipVal || Number.POSITIVE_INFINITY);
          // All gradients and the loss are looked at through these two numbers.
          const finite = terms.select(0, 0).isfinite().logicalAnd(norm.isfinite());
          const bad = zeroNonFiniteGradients ? zerosLike(finite) : finite.logicalNot();
          const skip = (overflow === undefined ? bad : bad.logicalOr(overflow.ne(0).view([]))).float();
          schedule.apply(k);
          optimizer.step(skip);
          const scale = scaler?.scaleOn(this.#device).clone();
          scaler?.update();
          const zero = skip.mul(0);
          const figures = [terms, norm, skip, overflow ?? zero, scale ?? zero, ...(norms === null ? [] : [norms])];
          const all = cat(figures.map((some) => some.double().reshape(-1))).keep();
          this.#queued = { k, figures: new QueuedFigures(all), terms: terms.numel - 2, repaired };
        }),
      );
      overflow?.dispose();
    } finally {
      terms.dispose();
    }
    this.step = k;
    // Gradients that are not finite are looked at before they go.
    if (!this.#readsLater) await this.#read();
    if (this.#captured !== null) return; // its gradients stay where they are
    optimizer.zeroGrad();
  }

  /** Leaves the gradients of the batch's mean loss in the parameters. @returns the terms, kept, on the device */
  async #gradients(k: number): Promise<Tensor> {
    const { replicas, scaler } = this.parts;
    const { seed, precision, accumulateGradBatches } = this.options;
    const rows = replicas?.ownRows ?? this.#rows;
    const { reducer } = this.#group;
    const means = scope(() => {
      const { batch, draws, textTokens } = this.#batch(k, rows);
      this.#textTokens = textTokens;
      replicas?.start(k, batch, scaler?.scale);
      const own = replicas ? rowsOf(batch, rows) : batch;
      const lossScale = scaler?.scaleOn(this.#device);
      const options = { seed, k, rows, precision, accumulateGradBatches, lossScale, draws };
      const terms =
        this.#captured?.accumulate(own, options) ?? accumulateGradients(this.parts, own, { ...options, reducer });
      return terms.keep();
    });
    const others = (await replicas?.collect()) ?? [];
    const parts = [{ terms: means, rows }, ...others.map(({ terms, rows }) => ({ terms: tensor(terms, F64), rows }))];
    try {
      await this.#captured?.sumOver(this.#group);
      return scope(() => meanOf(parts).keep());
    } finally {
      for (const { terms } of parts) terms.dispose();
    }
  }

  /** Says that gradients were to be recorded and could not be. */
  #warnOfCapture({ message }: Error): void {
    const what = `trainer.cuda_graphs: recording a step failed (${message})`;
    this.#hooks.onWarning?.(this.step + 1, `${what}; the run goes on without, which costs speed`);
  }

  /** Batch k and what the loss draws for these of its rows, on the device; and how long its texts are unpadded. */
  #batch(k: number, rows: Rows): { batch: LossBatch; draws: Draws; textTokens: number } {
    const { source, replicas } = this.parts;
    const batch = source.batch(k - 1);
    const own = replicas ? rowsOf(batch, rows) : batch;
    const draws = drawRows(this.parts, own, { seed: this.options.seed, k, rows });
    return { ...this.#there({ batch, draws }), textTokens: batch.textEmbeddings.size(1) };
  }

  /** A batch, and what belongs to it, on the device in one copy, with its texts as long as they are computed with. */
  #there<T extends { batch: LossBatch }>(given: T): T {
    const there = toDevice(given, this.#device);
    return this.#padsTexts ? { ...there, batch: withPaddedTexts(there.batch, this.parts.network.config) } : there;
  }

  /**
   * Makes the terms those of the whole batch, from this process's share of them, and appends how many processes have
   * been asked to stop, and how many have no time left. In place.
   */
  async #agree(terms: Tensor, stop: boolean): Promise<void> {
    const overdue = performance.now() >= this.#deadline;
    if (this.#group.isAlone) this.#timeAgreed = overdue;
    scope(() => {
      // Made on the device: a copy there would wait for all that it has been given.
      const asked = [stop, overdue].map((flag) => full([1], Number(flag), { ...F64, device: this.#device }));
      terms.assign(cat([terms, ...asked]));
    });
    await this.#group.sumInPlace(terms);
  }

  /** Reads the figures of the queued step, if there is one: says what is wrong with it, and moves the EMA weights. */
  async #read(): Promise<void> {
    const queued = this.#queued;
    if (queued === null) return;
    this.#queued = null;
    const { k, terms: count, repaired } = queued;
    const values = await this.#group.awaitQueued(`the sums of step ${k}`, () => queued.figures.take());
    this.#group.check();
    const terms = termsIn(values.slice(0, count));
    const [stops, overdue, gradNorm, skipped, overflow, lossScale, ...groupNorms] = values.slice(count) as Figures;
    if (!this.#group.isAlone) {
      this.#stopAgreed = stops > 0;
      this.#timeAgreed = overdue > 0;
    }
    if (skipped === 1) {
      this.skippedSteps++;
      this.parts.optimizer.skipped();
    }
    const finite = overflow === 0 && Number.isFinite(terms.loss) && Number.isFinite(gradNorm);
    if (finite && !repaired) this.#nonFinite.none();
    else if (!repaired)
      await this.#nonFinite.report(k, {
        loss: terms.loss,
        gradNorm,
        lossScale,
        overflow: overflow !== 0,
        made: skipped === 0,
      });
    if (skipped === 0 || this.options.ema.updateOnSkippedSteps)
      for (const average of this.emas().values()) average.update();
    this.#meter.report({ ...terms, gradNorm, ...(groupNorms.length > 0 && { groupNorms }) });
    if (this.#isLogDue) this.#log();
  }

  /** Tells the log the figures of the steps since the last time. Of a step after them, at most gradients were made. */
  #log(): void {
    this.#isLogDue = false;
    this.#hooks.onLog?.({
      step: this.step,
      images: samplesBefore(this.step, this.#spans),
      ...this.#meter.flush(),
      ...learningRates(this.parts.optimizer),
      "train/skipped_steps": this.skippedSteps,
      ...memoryFigures(this.#device),
      ...this.#group.communicationFigures(),
      seconds: round(this.seconds),
    });
  }

  /** The EMA weights by their published names. */
  emas(): ReadonlyMap<string, Ema<Rin>> {
    return emasOf(this.parts);
  }

  /** Everything that decides the rest of the run; the tensors are the live ones, not copies. */
  checkpoint(recipe: unknown): TrainingCheckpoint {
    const { step, skippedSteps, seconds } = this;
    const unlogged = [...this.#meter.unlogged];
    return checkpointOf(this.parts, { step, skippedSteps, seconds, batches: this.#spans, unlogged, recipe });
  }

  /** Tensors of the shapes that a checkpoint has once the optimizer has moments, which it gets in its first step. */
  checkpointForms(): Tensor[] {
    return checkpointForms(this.parts, this.#trainable.tensors);
  }

  /** Continues from a checkpoint; copies its tensors. */
  restore(checkpoint: TrainingCheckpoint): void {
    restoreParts(this.parts, checkpoint);
    const { step, skippedSteps, seconds, unlogged } = checkpoint.state;
    this.#meter = new Meter(null, unlogged);
    this.step = step;
    this.skippedSteps = skippedSteps;
    this.seconds = seconds;
  }
}

const F64 = { dtype: "float64" } as const;

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
