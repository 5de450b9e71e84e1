/**
 * The training of the diffusion network: what one step of the loop is.
 *
 * One step: a batch → loss (two passes, the first without gradient) → backward → clip by global norm → skip if anything
 * is not finite → optimizer → EMA. Everything random in step k is drawn from generators seeded by (seed, k), and the
 * batch is a function of (seed, k) too, so a run that is resumed at any step computes bit for bit what the undisturbed
 * run computes.
 *
 * Several processes each compute their rows of the batch and average the gradients; from there on all of them do the
 * same. What they decide by (the loss, a wish to stop) is summed over them first.
 */
import { aten, noGrad, scope, type Tensor } from "@miro-t2i/torch";
import { clipGradNorm_, type GradScaler, type OptimizerState } from "@miro-t2i/torch/optim";
import { MiroError } from "../../errors.js";
import type { Rin } from "../../networks/rin.js";
import { partsOf, type Rows, rowsOf } from "../batches/batch-slices.js";
import type { BatchSource } from "../batches/batches.js";
import type { LogRecord, Progress } from "../logging/logging.js";
import {
  groupGradientNorms,
  learningRates,
  Meter,
  memoryFigures,
  type StepReport,
  type StepTerms,
} from "../logging/meter.js";
import { findNonFinite, nonFiniteGradients } from "../logging/non-finite.js";
import { DataParallelGroup } from "../process-group/process-group.js";
import type { Recipe } from "../recipes/recipe.js";
import type { NamedTensors, TrainingCheckpoint } from "../state/checkpoint.js";
import type { Ema } from "./ema.js";
import { accumulateGradients, combineTerms, lossOf, type Model } from "./gradients.js";
import { runLoop, type Work } from "./loop.js";
import type { WarmupCosine } from "./lr-schedule.js";
import type { Replicas } from "./thread-replicas.js";

/** What the loop needs of an optimizer. */
export interface TrainingOptimizer {
  paramGroups: { params: Tensor[]; lr: number }[];
  step(): void;
  zeroGrad(): void;
  stateDict(): OptimizerState;
  loadStateDict(state: OptimizerState): void;
}

export interface TrainerParts extends Model {
  /** The average that draws samples and is released. */
  ema: Ema<Rin>;
  /** The EMA weights by their published names, `ema` among them; by default it alone. */
  emas?: ReadonlyMap<string, Ema<Rin>>;
  /** With `16-mixed`. */
  scaler?: GradScaler | null;
  optimizer: TrainingOptimizer;
  schedule: WarmupCosine;
  source: BatchSource;
  /** Threads that compute some rows of each batch; absent: this thread computes all. */
  replicas?: Replicas | null;
  /** The processes that share each batch; by default this one alone. The source gives this process's rows only. */
  group?: DataParallelGroup;
}

/** A recipe's sections under their own names, and what is not in a recipe. */
export type TrainerOptions = Pick<Recipe, "seed"> &
  Pick<
    Recipe["trainer"],
    | "maxSteps"
    | "batchSize"
    | "precision"
    | "zeroNonFiniteGradients"
    | "gradientClipVal"
    | "maxSkippedInARow"
    | "logEveryNSteps"
    | "checkpointEveryNSteps"
  > & {
    /** Accumulation steps in which each replica computes its rows; the gradient is that of the whole batch. */
    accumulateGradBatches: number;
    ema: Pick<Recipe["ema"], "updateOnSkippedSteps">;
    samples: Pick<Recipe["samples"], "everyNSteps" | "offset">;
    validation: Pick<Recipe["validation"], "everyNSteps">;
    /** What the log's use of the machine is reckoned from. */
    work?: {
      /** Floating-point operations of one sample with so many text tokens. */
      flopsPerImage: (textTokens: number) => number;
      /** Operations a second that the machine can do. */
      peakFlops: number | null;
    };
  };

/** What happens around the steps; all optional. */
export interface TrainerHooks {
  onLog?(record: LogRecord): void;
  onProgress?(progress: Progress): void;
  /** Asked to store `trainer.checkpoint()`; the tensors may change as soon as it has resolved. */
  onCheckpoint?(): void | Promise<void>;
  onSamples?(step: number): Promise<void>;
  onValidate?(step: number): Promise<void>;
  /** Something went wrong that the run survives. */
  onWarning?(step: number, message: string): void;
}

export class Trainer {
  /** Optimizer steps done, skipped ones included. */
  step = 0;
  skippedSteps = 0;
  /** Seconds of training, resumed runs included. */
  seconds = 0;
  #badInARow = 0;
  /** Of the last batch, padding included. */
  #textTokens = 0;
  /** Any of several processes has been asked to stop. */
  #stopAgreed = false;
  /** The time of any of them is over. */
  #timeAgreed = false;
  /** When this process's time is over, by performance.now(). */
  #deadline = Number.POSITIVE_INFINITY;

  readonly #group: DataParallelGroup;
  readonly #hooks: TrainerHooks;

  constructor(
    readonly parts: TrainerParts,
    readonly options: TrainerOptions,
    hooks: TrainerHooks = {},
  ) {
    this.#hooks = hooks;
    this.#group = parts.group ?? DataParallelGroup.alone();
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
    const { maxSteps, batchSize, logEveryNSteps, checkpointEveryNSteps, samples, validation, work } = options;
    const meter = new Meter(work?.peakFlops ?? null);
    let stored = this.step;
    // What several processes do together, none of them may leave.
    const alone = group.isAlone ? signal : undefined;
    if (this.step < maxSteps) await this.#settleReduction();
    const trainer = this;
    const steps: Work = {
      get step() {
        return trainer.step;
      },
      ready: (signal) => parts.source.ready(this.step, signal),
      advance: async (waitingSince) => {
        const startedAt = performance.now();
        const report = await this.#update(signal);
        const now = performance.now();
        this.seconds += (now - waitingSince) / 1000;
        meter.add(report, {
          waitMs: startedAt - waitingSince,
          totalMs: now - waitingSince,
          images: batchSize,
          flops: work && batchSize * work.flopsPerImage(this.#textTokens),
        });
      },
      pace: () => ({ loss: meter.smoothLoss, stepsPerSecond: meter.stepsPerSecond }),
      record: () => ({
        step: this.step,
        images: this.step * batchSize,
        ...meter.flush(),
        ...learningRates(parts.optimizer),
        "train/skipped_steps": this.skippedSteps,
        ...memoryFigures(parts.network.latents.device),
        ...group.communicationFigures(),
        seconds: round(this.seconds),
      }),
    };
    const checkpoint = async () => {
      await hooks.onCheckpoint?.();
      stored = this.step;
    };
    const finished = await runLoop(steps, {
      maxSteps,
      batchSize,
      logEveryNSteps,
      signal: alone,
      stop: () => this.#stopAgreed || this.#timeAgreed || alone?.aborted === true,
      onLog: (record) => hooks.onLog?.(record),
      onProgress: (progress) => {
        const secondsLeft = Math.min(progress.secondsLeft, (deadline - performance.now()) / 1000);
        hooks.onProgress?.({ ...progress, secondsLeft });
      },
      recurring: [
        { everyNSteps: checkpointEveryNSteps, run: checkpoint },
        { ...validation, run: async (step) => hooks.onValidate?.(step) },
        { ...samples, run: () => this.#drawSamples(signal) },
      ],
    });
    if (stored !== this.step) await checkpoint();
    return finished;
  }

  /** A sheet that cannot be drawn is no reason to lose a run. */
  async #drawSamples(signal?: AbortSignal): Promise<void> {
    try {
      await this.#hooks.onSamples?.(this.step);
    } catch (error) {
      if (!signal?.aborted)
        this.#hooks.onWarning?.(this.step, `step ${this.step}: no samples: ${(error as Error).message}`);
    }
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
    await source.ready(this.step); // sources can go back to a batch that has been taken
    scope(() => {
      const own = this.#rows();
      const rows = partsOf(own, accumulateGradBatches)[0]!;
      const part = { start: 0, count: rows.count, batchSize: own.count };
      const batch = rowsOf(source.batch(this.step), part);
      accumulateGradients(this.parts, batch, {
        seed,
        k: this.step + 1,
        rows,
        precision,
        accumulateGradBatches: 1,
        reducer,
      });
      optimizer.zeroGrad();
    });
  }

  /** The rows of each batch that this process computes. */
  #rows(): Rows {
    return this.#group.rowsOf(this.options.batchSize);
  }

  /** One optimizer step. */
  async #update(signal?: AbortSignal): Promise<StepReport> {
    const { optimizer, schedule, scaler } = this.parts;
    const { logEveryNSteps, gradientClipVal, zeroNonFiniteGradients, ema } = this.options;
    const k = this.step + 1;
    const terms = await this.#agreed(await this.#gradients(k), signal?.aborted === true);
    const overflow = scope(() => scaler?.unscale(this.#trainable()) === false);
    const groupNorms =
      k % logEveryNSteps === 0 || zeroNonFiniteGradients ? groupGradientNorms(optimizer.paramGroups) : undefined;
    const clip = () => scope(() => clipGradNorm_(this.#trainable(), gradientClipVal).item());
    let gradNorm = zeroNonFiniteGradients ? Math.hypot(...groupNorms!) : clip();
    // All gradients and the loss are looked at through these two numbers.
    const finite = !overflow && Number.isFinite(terms.loss) && Number.isFinite(gradNorm);
    const made = finite || (zeroNonFiniteGradients && !overflow);
    if (finite) this.#badInARow = 0;
    else await this.#report(k, { loss: terms.loss, gradNorm, overflow, made });
    if (zeroNonFiniteGradients) {
      if (!finite) this.#zeroBadGradients();
      gradNorm = clip();
    }
    scope(() => {
      if (made) {
        schedule.apply(k);
        optimizer.step();
      }
      scaler?.update();
      if (made || ema.updateOnSkippedSteps) for (const average of this.emas().values()) average.update();
      optimizer.zeroGrad();
    });
    this.step = k;
    return { ...terms, gradNorm, ...(groupNorms && { groupNorms }) };
  }

  /** Leaves the gradients of the batch's mean loss in the parameters. */
  async #gradients(k: number): Promise<StepTerms> {
    const { source, replicas } = this.parts;
    const { seed, precision, accumulateGradBatches } = this.options;
    const lossScale = this.parts.scaler?.scale;
    const rows = replicas?.ownRows ?? this.#rows();
    const { reducer } = this.#group;
    const terms = scope(() => {
      const batch = source.batch(this.step);
      this.#textTokens = batch.textEmbeddings.size(1);
      replicas?.start(k, batch, lossScale);
      const own = replicas ? rowsOf(batch, rows) : batch;
      return accumulateGradients(this.parts, own, {
        seed,
        k,
        rows,
        precision,
        lossScale,
        accumulateGradBatches,
        reducer,
      });
    });
    return combineTerms([{ terms, rows }, ...((await replicas?.collect()) ?? [])]);
  }

  /**
   * The terms of the whole batch, from this process's share of them; and whether any process has been asked to stop, or
   * has no time left.
   */
  async #agreed(terms: StepTerms, stop: boolean): Promise<StepTerms> {
    const [loss, rawLoss, logvar, stops, overdue] = await this.#group.sum([
      terms.loss,
      terms.rawLoss,
      terms.logvar ?? 0,
      Number(stop),
      Number(performance.now() >= this.#deadline),
    ]);
    this.#stopAgreed = stops! > 0;
    this.#timeAgreed = overdue! > 0;
    return { loss: loss!, rawLoss: rawLoss!, ...(terms.logvar !== undefined && { logvar: logvar! }) };
  }

  #trainable(): Tensor[] {
    return this.parts.optimizer.paramGroups.flatMap((group) => group.params);
  }

  emas(): ReadonlyMap<string, Ema<Rin>> {
    return this.parts.emas ?? new Map([[DEFAULT_EMA, this.parts.ema]]);
  }

  #zeroBadGradients(): void {
    noGrad(() => {
      for (const { grad } of this.#trainable()) if (grad !== null) aten.nan_to_num_(grad, 0, 0, 0);
    });
  }

  /** Says what is wrong with a step, and ends a run in which nothing has been right for a while. */
  async #report(
    k: number,
    { loss, gradNorm, overflow, made }: { loss: number; gradNorm: number; overflow: boolean; made: boolean },
  ): Promise<void> {
    if (!made) this.skippedSteps++;
    // While the search for a scale goes on, overflows are part of it.
    if (overflow && Number.isFinite(loss) && this.parts.scaler!.scale > 1) {
      this.#hooks.onWarning?.(
        k,
        `step ${k}: overflow at the loss scale ${this.parts.scaler!.scale}; the step was skipped`,
      );
      return;
    }
    this.#badInARow++;
    const what = `step ${k}: loss ${loss}, gradient norm ${gradNorm}; ${await this.#culprit(k)}; the step was ${made ? "made with zeros in place of such gradients" : "skipped"}`;
    if (this.#badInARow >= this.options.maxSkippedInARow)
      throw new MiroError(
        `${what}, ${this.#badInARow} in a row: lower optimizer.lr, or resume from an earlier checkpoint`,
      );
    this.#hooks.onWarning?.(k, what);
  }

  /** The first tensor of step k that is not finite, in words. The step's gradients must still be there. */
  async #culprit(k: number): Promise<string> {
    const { source, replicas } = this.parts;
    const { seed, precision, accumulateGradBatches } = this.options;
    await source.ready(this.step); // sources can go back to a batch that has been taken
    return scope(() => {
      const batch = source.batch(this.step);
      const own = this.#rows();
      const forward = () => {
        for (const rows of (replicas?.rows ?? [own]).flatMap((some) => partsOf(some, accumulateGradBatches))) {
          const part = { ...rows, start: rows.start - own.start };
          scope(() => void lossOf(this.parts, rowsOf(batch, part), { seed, k, rows, precision }));
        }
      };
      const [gradient, ...others] = nonFiniteGradients(this.parts, forward);
      const where = findNonFinite({ model: this.parts, batch, forward });
      const more = others.length > 0 ? ` and of ${others.length} others` : "";
      const gradients = gradient === undefined ? "" : `the gradient of ${gradient}${more} is not finite`;
      if (where !== null) return `first ${where}${gradients && `; ${gradients}`}`;
      return gradients || "no single tensor is the cause: the norm overflowed";
    });
  }

  /** Everything that decides the rest of the run; the tensors are the live ones, not copies. */
  checkpoint(recipe: unknown): TrainingCheckpoint {
    const { network, preconditioning, optimizer, scaler } = this.parts;
    const { step, tensors } = optimizer.stateDict();
    const averages = [...this.emas()].map(
      ([name, { module }]) => [name, Object.fromEntries(module.stateDict())] as const,
    );
    return {
      state: {
        format: 1,
        step: this.step,
        emaUpdates: [...this.emas().values()][0]!.updates,
        skippedSteps: this.skippedSteps,
        seconds: this.seconds,
        optimizerStep: step,
        ...(scaler ? { scaler: scaler.stateDict() } : {}),
        recipe,
      },
      network: Object.fromEntries([...network.stateDict("network"), ...preconditioning.stateDict("preconditioning")]),
      emas: Object.fromEntries(averages),
      optimizer: tensors,
    };
  }

  /** Continues from a checkpoint; copies its tensors. */
  restore(checkpoint: TrainingCheckpoint): void {
    const { network, preconditioning, optimizer, scaler } = this.parts;
    const { state } = checkpoint;
    noGrad(() => {
      network.loadStateDict(withoutPrefix("network.", checkpoint.network));
      preconditioning.loadStateDict(withoutPrefix("preconditioning.", checkpoint.network));
      for (const [name, ema] of this.emas()) {
        const average = checkpoint.emas[name];
        if (average === undefined)
          throw new MiroError(
            `the checkpoint has no average ${name}, only ${Object.keys(checkpoint.emas).join(", ")}; ema.decay is not that of the run`,
          );
        ema.module.loadStateDict(average);
        ema.updates = state.emaUpdates;
      }
      // Learning rates and the like are the recipe's: a changed recipe counts.
      optimizer.loadStateDict({
        step: state.optimizerStep,
        tensors: checkpoint.optimizer,
        groups: optimizer.stateDict().groups,
      });
    });
    if (state.scaler) scaler?.loadStateDict(state.scaler);
    this.step = state.step;
    this.skippedSteps = state.skippedSteps;
    this.seconds = state.seconds;
  }
}

/** Name of the first average. */
const DEFAULT_EMA = "ema_network";

function withoutPrefix(prefix: string, tensors: NamedTensors): NamedTensors {
  const own = Object.entries(tensors).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(own.map(([name, tensor]) => [name.slice(prefix.length), tensor]));
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
