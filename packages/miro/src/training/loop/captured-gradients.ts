/**
 * The gradients of a step as captured work: launching the kernels of both passes and of the backward pass one by one
 * takes longer than running them where a batch is small, so they are recorded once (as a CUDA graph) and replayed on
 * new values in the same tensors.
 *
 * Batch, draws and loss scale are copied into tensors that stay. Gradients stay where they are, too: they are set to
 * zero, not dropped, and every accumulation step adds to them. There is a recording for each shape of the inputs. Texts
 * are padded to multiples of {@link TEXT_TOKENS}, so that a few recordings serve all batches; what is padded is read by
 * no-one. Where recording fails, gradients are computed operator by operator from then on.
 */
import { aten, noGrad, type Replayable, type Tensor } from "@miro-t2i/torch";
import type { TensorList } from "@miro-t2i/torch/optim";
import type { LossBatch } from "../../flow/loss.js";
import { type Capture, copyInto, formOf, staying } from "../../flow/recording.js";
import { release } from "../../flow/release.js";
import { partsOf, type Rows, rowsOf } from "../batches/batch-slices.js";
import {
  accumulateGradients,
  addGradients,
  cut,
  type Draws,
  type GradientOptions,
  type Model,
  meanOf,
  seedNetwork,
} from "./gradients.js";

/** Texts have a multiple of so many tokens. */
const TEXT_TOKENS = 16;

/** What changes from step to step. */
interface Inputs {
  batch: LossBatch;
  draws: Draws;
  lossScale: number | Tensor;
}

/** Tensors that stay, and the work on them. */
interface Recording {
  inputs: Inputs;
  run: Replayable<{ terms: Tensor }>;
}

type Options = Omit<GradientOptions, "reducer" | "draws"> & { draws: Draws; accumulateGradBatches: number };

/** Gradients of one process alone, recorded by the shapes of its batches. */
export class CapturedGradients {
  readonly #model: Model;
  readonly #trainable: TensorList;
  readonly #capture: Capture;
  readonly #recordings = new Map<string, Recording>();
  /** Why nothing is recorded any more, until it is taken. */
  #failure: Error | null = null;
  #works = true;

  constructor(model: Model, trainable: TensorList, capture: Capture) {
    this.#model = model;
    this.#trainable = trainable;
    this.#capture = capture;
  }

  /** Whether gradients are replayed: then they lie in tensors that must stay. */
  get works(): boolean {
    return this.#works;
  }

  /** Why recording has failed, the first time that it is asked for; null before and afterwards. */
  takeFailure(): Error | null {
    const failure = this.#failure;
    this.#failure = null;
    return failure;
  }

  /** As `accumulateGradients`, but what was in the gradients before is gone. */
  accumulate(batch: LossBatch, options: Options): Tensor {
    if (!this.#works) return accumulateGradients(this.#model, batch, options);
    const parts = partsOf(options.rows, options.accumulateGradBatches);
    const padded = padTexts(batch);
    let prepared: { recording: Recording; inputs: Inputs; some: Rows; own: Rows }[];
    try {
      prepared = parts.map((some) => {
        const own = { start: some.start - options.rows.start, count: some.count, batchSize: options.rows.count };
        const { draws, lossScale = 1 } = options;
        const inputs = { batch: rowsOf(padded, own), draws: cut(draws, own), lossScale };
        return { recording: this.#recordingOf(inputs, { ...options, rows: some }), inputs, some, own };
      });
    } catch (error) {
      this.#failure = error as Error;
      this.#works = false;
      this.dispose();
      this.#trainable.clearGradients();
      return accumulateGradients(this.#model, batch, options);
    }
    noGrad(() => aten._foreach_zero_(this.#trainable.gradients().filter((gradient) => gradient !== null)));
    return meanOf(
      prepared.map(({ recording, inputs, some, own }) => {
        copyInto(recording.inputs, inputs);
        seedNetwork({ ...options, rows: some });
        recording.run.replay();
        return { terms: recording.run.outputs.terms.clone(), rows: own };
      }),
    );
  }

  #recordingOf(given: Inputs, { rows, precision }: Options): Recording {
    const form = formOf(given);
    let recording = this.#recordings.get(form);
    if (recording === undefined) {
      const inputs = staying(given);
      try {
        const { batch, draws, lossScale } = inputs;
        const run = this.#capture(() => ({
          terms: addGradients(this.#model, batch, { rows, precision, draws, lossScale }),
        }));
        recording = { inputs, run };
      } catch (error) {
        release(inputs);
        throw error;
      }
      this.#recordings.set(form, recording);
    }
    return recording;
  }

  /** Frees everything recorded; the gradients are the parameters'. */
  dispose(): void {
    for (const { inputs, run } of this.#recordings.values()) {
      run.dispose();
      release(inputs);
    }
    this.#recordings.clear();
  }
}

/** The batch with its texts padded to a multiple of {@link TEXT_TOKENS}. */
function padTexts(batch: LossBatch): LossBatch {
  const missing = -batch.textEmbeddings.size(1) & (TEXT_TOKENS - 1);
  if (missing === 0) return batch;
  return {
    ...batch,
    textEmbeddings: aten.constant_pad_nd(batch.textEmbeddings, [0, 0, 0, missing]),
    textMask: aten.constant_pad_nd(batch.textMask, [0, missing]),
  };
}
