/**
 * The gradients of a step as captured work: launching the kernels of both passes and of the backward pass one by one
 * takes longer than running them where a batch is small, so they are recorded once (as a CUDA graph) and replayed on
 * new values in the same tensors.
 *
 * Batch, draws and loss scale are copied into tensors that stay. Gradients stay where they are, too: they are set to
 * zero, not dropped, and every accumulation step adds to them. There is a recording for each shape of the inputs: texts
 * should come padded to a few lengths (padded-texts.ts), so that a few recordings serve all batches. Where recording
 * fails, gradients are computed operator by operator from then on.
 */
import { aten, noGrad, type Replayable, type Tensor } from "@miro-t2i/torch";
import type { TensorList } from "@miro-t2i/torch/optim";
import type { LossBatch } from "../../flow/loss.js";
import { type Capture, copyInto, formOf, staying } from "../../flow/recording.js";
import { release } from "../../flow/release.js";
import type { Rows } from "../batches/batch-slices.js";
import {
  accumulateGradients,
  addGradients,
  type Draws,
  type GradientOptions,
  type MicroBatch,
  type Model,
  meanOf,
  microBatches,
  seedNetwork,
} from "./gradients.js";

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
  readonly #onFailure: (failure: Error) => void;
  readonly #recordings = new Map<string, Recording>();
  #works = true;

  /** @param onFailure told why nothing is recorded any more, once */
  constructor(model: Model, trainable: TensorList, capture: Capture, onFailure: (failure: Error) => void) {
    this.#model = model;
    this.#trainable = trainable;
    this.#capture = capture;
    this.#onFailure = onFailure;
  }

  /** Whether gradients are replayed: then they lie in tensors that must stay. */
  get works(): boolean {
    return this.#works;
  }

  /** As `accumulateGradients`, but what was in the gradients before is gone. */
  accumulate(batch: LossBatch, options: Options): Tensor {
    if (!this.#works) return accumulateGradients(this.#model, batch, options);
    const { draws, lossScale = 1, rows, accumulateGradBatches } = options;
    const parts = microBatches(batch, draws, rows, accumulateGradBatches);
    let prepared: (MicroBatch & { recording: Recording })[];
    try {
      prepared = parts.map((part) => ({ ...part, recording: this.#recordingOf({ ...part, lossScale }, options) }));
    } catch (error) {
      this.#works = false;
      this.dispose();
      this.#trainable.clearGradients();
      this.#onFailure(error as Error);
      return accumulateGradients(this.#model, batch, options);
    }
    noGrad(() => aten._foreach_zero_(this.#trainable.gradients().filter((gradient) => gradient !== null)));
    return meanOf(
      prepared.map(({ recording, batch, draws, rows, own }) => {
        copyInto(recording.inputs, { batch, draws, lossScale });
        seedNetwork({ ...options, rows });
        recording.run.replay();
        return { terms: recording.run.outputs.terms.clone(), rows: own };
      }),
    );
  }

  #recordingOf({ batch, draws, lossScale, rows }: Inputs & { rows: Rows }, { precision }: Options): Recording {
    const given = { batch, draws, lossScale };
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
