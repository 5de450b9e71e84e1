/** What a {@link Trainer} is made of, what it goes by, and what it tells. */
import type { Tensor } from "@miro-t2i/torch";
import type { GradScaler, OptimizerState } from "@miro-t2i/torch/optim";
import type { BatchSpan } from "../../data/shards/order.js";
import type { Capture } from "../../flow/recording.js";
import type { Rin } from "../../networks/rin.js";
import type { BatchSource } from "../batches/batches.js";
import type { LogRecord, Progress } from "../logging/logging.js";
import type { DataParallelGroup } from "../process-group/process-group.js";
import type { Recipe } from "../recipes/recipe.js";
import type { Ema } from "./ema.js";
import type { Model } from "./gradients.js";
import type { WarmupCosine } from "./lr-schedule.js";
import type { Replicas } from "./thread-replicas.js";

/** What the loop needs of an optimizer. */
export interface TrainingOptimizer {
  paramGroups: { params: Tensor[]; lr: number }[];
  /** @param skip float32: where it is 1, nothing changes */
  step(skip: Tensor): void;
  /** The last step was skipped. */
  skipped(): void;
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
  /** How gradients are recorded, to be replayed by one launch; absent: they are computed operator by operator. */
  capture?: Capture | null;
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
    /** The sizes that the batches of the run have had, `batchSize` last; by default it alone. */
    spans?: readonly BatchSpan[];
    /** Accumulation steps in which each replica computes its rows; the gradient is that of the whole batch. */
    accumulateGradBatches: number;
    ema: Pick<Recipe["ema"], "updateOnSkippedSteps">;
    samples: Pick<Recipe["samples"], "everyNSteps" | "offset">;
    validation: Pick<Recipe["validation"], "everyNSteps">;
    /**
     * Whether samples and validation are due at the beginning, too, after the step that the run goes on from: it may
     * have been stopped before they were done.
     */
    resumes?: boolean;
    /** Whether the figures of a step are read when those of the next one are queued; by default on a GPU. */
    readsLater?: boolean;
    /** Whether texts are padded to a few lengths; by default on a GPU, and where gradients are recorded. */
    padsTexts?: boolean;
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
  /** Asked to store `trainer.checkpoint()`; the tensors may change as soon as `beforeChange` has resolved. */
  onCheckpoint?(): void | Promise<void>;
  /** Awaited before weights change. */
  beforeChange?(): Promise<void>;
  /** Of several processes, all are asked to. */
  onSamples?(step: number): Promise<void>;
  /** @returns false where any process has been asked to stop meanwhile: then all of them stop at this step */
  onValidate?(step: number): Promise<boolean>;
  /** Something went wrong that the run survives. */
  onWarning?(step: number, message: string): void;
}
