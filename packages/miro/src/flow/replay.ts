/**
 * The network's evaluations as captured work: on an accelerator, launching a thousand small kernels takes longer than
 * running them, so the whole evaluation is recorded once (as a CUDA graph) and replayed with new values in the same
 * tensors.
 *
 * What changes from step to step (noisy latents, signal levels, latents of the step before, conditioning) is copied
 * into tensors that stay; nothing waits for the device. There is a recording for each shape of the inputs, and one more
 * for the first evaluation of a picture, which has no previous latents; those that were not used for longest go. Where
 * recording fails for another reason than memory, evaluations run as they are from then on.
 */
import { type Replayable, scope, type Tensor } from "@miro-t2i/torch";
import { isOutOfMemory } from "../errors.js";
import type { Predict } from "./guidance.js";
import { type Capture, copyInto, formOf, staying } from "./recording.js";
import { release } from "./release.js";

interface Prediction {
  D: Tensor;
  z: Tensor | null;
}

/** Tensors that stay, and the work on them. */
interface Recording<Conditioning> {
  inputs: { y: Tensor; gamma: Tensor; conditioning: Conditioning; previousLatents: Tensor | null };
  /** The conditioning that the inputs hold a copy of. */
  source: Conditioning;
  run: Replayable<Prediction>;
}

/** More shapes than a server is asked for in turn; each recording holds its inputs, and memory for what it computes. */
const MOST_RECORDINGS = 16;

/** Evaluations of a network, recorded by their shapes. Belongs to one network; free it with {@link dispose}. */
export class ReplayedPredict<Conditioning extends object> {
  readonly #predict: Predict<Conditioning>;
  readonly #capture: Capture;
  /** By the shapes of the inputs, the one that was used last at the end. */
  readonly #recordings = new Map<string, Recording<Conditioning>>();
  /** Of conditionings that were seen: one serves all steps of a call. */
  readonly #forms = new WeakMap<object, string>();
  /** Why nothing is recorded any more; null while recording works. */
  failure: Error | null = null;

  constructor(predict: Predict<Conditioning>, capture: Capture) {
    this.#predict = predict;
    this.#capture = capture;
  }

  /** As the function given to the constructor. */
  readonly predict: Predict<Conditioning> = (y, gamma, conditioning, previousLatents) => {
    if (this.failure !== null) return this.#predict(y, gamma, conditioning, previousLatents);
    const given = { y, gamma, conditioning, previousLatents };
    let conditioned = this.#forms.get(conditioning);
    if (conditioned === undefined) {
      conditioned = formOf(conditioning);
      this.#forms.set(conditioning, conditioned);
    }
    const form = `${formOf([y, gamma, previousLatents])} ${conditioned}`;
    let recording = this.#recordings.get(form);
    if (!recording) {
      try {
        recording = this.#record(given);
      } catch (error) {
        if (isOutOfMemory(error as Error)) throw error; // fewer rows may fit
        this.failure = error as Error;
        return this.#predict(y, gamma, conditioning, previousLatents);
      }
      this.#forgetOldest();
    } else {
      this.#recordings.delete(form);
      // The conditioning of a call is one object for all its steps.
      const { conditioning: same, ...changing } = recording.inputs;
      copyInto(changing, { y, gamma, previousLatents });
      if (recording.source !== conditioning) copyInto(same, conditioning);
      recording.source = conditioning;
    }
    this.#recordings.set(form, recording);
    recording.run.replay();
    const { D, z } = recording.run.outputs;
    return { D: D.clone(), z: z?.clone() ?? null };
  };

  #record(given: Recording<Conditioning>["inputs"]): Recording<Conditioning> {
    const inputs = scope(() => staying(given));
    try {
      const { y, gamma, conditioning, previousLatents } = inputs;
      const run = this.#capture<Prediction>(() => this.#predict(y, gamma, conditioning, previousLatents));
      return { inputs, source: given.conditioning, run };
    } catch (error) {
      release(inputs);
      throw error;
    }
  }

  #forgetOldest(): void {
    if (this.#recordings.size < MOST_RECORDINGS) return;
    for (const [form, oldest] of this.#recordings) {
      free(oldest);
      this.#recordings.delete(form);
      return;
    }
  }

  /** Frees everything recorded. */
  dispose(): void {
    for (const recording of this.#recordings.values()) free(recording);
    this.#recordings.clear();
  }
}

function free({ inputs, run }: Recording<object>): void {
  run.dispose();
  release(inputs);
}
