/**
 * The gradients of a step as captured work: launching the kernels of both passes and of the backward pass one by one
 * takes longer than running them where a batch is small, so they are recorded once (as a CUDA graph) and replayed on
 * new values in the same tensors.
 *
 * Batch, draws and loss scale are copied into tensors that stay. Gradients stay where they are, too: they are set to
 * zero, not dropped, and every accumulation step adds to them. There is a recording for each shape of the inputs: texts
 * should come padded to a few lengths (padded-texts.ts), so that a few recordings serve all batches. Where recording
 * fails, gradients are computed operator by operator from then on.
 *
 * Several processes record and replay the gradients of their own rows, and sum them once they are complete. So a
 * process whose recording fails calls the same collectives as the others.
 */
import { noGrad, type Replayable, scope, type Tensor } from "@miro-t2i/torch";
import type { TensorList } from "@miro-t2i/torch/optim";
import type { LossBatch } from "../../flow/loss.js";
import { type Capture, copyInto, formOf, staying } from "../../flow/recording.js";
import { release } from "../../flow/release.js";
import type { Rows } from "../batches/batch-slices.js";
import type { DataParallelGroup } from "../process-group/process-group.js";
import { GradientBuffer } from "./gradient-buffer.js";
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

/** Gradients of a process's rows, recorded by the shapes of its batches. */
export class CapturedGradients {
  readonly #model: Model;
  readonly #trainable: TensorList;
  readonly #capture: Capture;
  readonly #onFailure: (failure: Error) => void;
  readonly #recordings = new Map<string, Recording>();
  #gradients: GradientBuffer | null = null;
  #works = true;

  /** @param onFailure told why nothing is recorded any more, once */
  constructor(model: Model, trainable: TensorList, capture: Capture, onFailure: (failure: Error) => void) {
    this.#model = model;
    this.#trainable = trainable;
    this.#capture = capture;
    this.#onFailure = onFailure;
  }

  /** As `accumulateGradients`, but what was in the gradients before is gone. */
  accumulate(batch: LossBatch, options: Options): Tensor {
    const { draws, lossScale = 1, rows, accumulateGradBatches } = options;
    const parts = microBatches(batch, draws, rows, accumulateGradBatches);
    this.#gradients ??= this.#lay({ ...parts[0]!, lossScale }, options);
    const prepared = this.#prepare(parts, options);
    noGrad(() => this.#gradients!.zero_());
    if (prepared === null) return accumulateGradients(this.#model, batch, options);
    return meanOf(
      prepared.map(({ recording, batch, draws, rows, own }) => {
        copyInto(recording.inputs, { batch, draws, lossScale });
        seedNetwork({ ...options, rows });
        recording.run.replay();
        return { terms: recording.run.outputs.terms.clone(), rows: own };
      }),
    );
  }

  /** Makes the gradients those of the whole batch, where each process has accumulated those of its rows. */
  async sumOver(group: DataParallelGroup): Promise<void> {
    await this.#gradients?.sumOver(group);
  }

  /** Moves the gradients to where they stay. Which parameters have one, a first accumulation step says. */
  #lay({ batch, ...inputs }: Inputs & { rows: Rows }, { precision }: Options): GradientBuffer {
    scope(() => addGradients(this.#model, batch, { ...inputs, precision }));
    return new GradientBuffer(this.#trainable.tensors);
  }

  /** The accumulation steps with their recordings; null where nothing can be recorded. */
  #prepare(parts: readonly MicroBatch[], options: Options): (MicroBatch & { recording: Recording })[] | null {
    if (!this.#works) return null;
    const { lossScale = 1 } = options;
    try {
      return parts.map((part) => ({ ...part, recording: this.#recordingOf({ ...part, lossScale }, options) }));
    } catch (error) {
      this.#works = false;
      this.#forget();
      this.#onFailure(error as Error);
      return null;
    }
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
    this.#forget();
    this.#gradients?.dispose();
    this.#gradients = null;
  }

  #forget(): void {
    for (const { inputs, run } of this.#recordings.values()) {
      run.dispose();
      release(inputs);
    }
    this.#recordings.clear();
  }
}
