/**
 * The network's evaluations as captured work: on an accelerator, launching a thousand small kernels takes longer than
 * running
 * them, so the whole evaluation is recorded once (as a CUDA graph) and replayed with new values in the same tensors.
 *
 * What changes from step to step (noisy latents, signal levels, latents of the step before, conditioning) is copied
 * into tensors
 * that stay; nothing waits for the device. The first evaluation of a picture, which has no previous latents, is a
 * different one and
 * runs as it is. Where recording fails for another reason than memory, evaluations run as they are from then on.
 */
import { type Replayable, scope, Tensor } from "@miro-t2i/torch";
import type { Predict } from "./guidance.js";
import { release } from "./release.js";

/** Runs `body` and gives something that repeats it on the same tensors, such as the engine's `captureGraph`. */
export type Capture = <T extends object>(body: () => T) => Replayable<T>;

interface Prediction {
  D: Tensor;
  z: Tensor | null;
}

/** Tensors that stay, and the work on them. */
interface Recording<Conditioning> {
  inputs: { y: Tensor; gamma: Tensor; conditioning: Conditioning; previousLatents: Tensor };
  /** The conditioning that the inputs hold a copy of. */
  source: Conditioning;
  run: Replayable<Prediction>;
}

/** Evaluations of a network, recorded by their number of rows. Belongs to one network; free it with {@link dispose}. */
export class ReplayedPredict<Conditioning extends object> {
  readonly #predict: Predict<Conditioning>;
  readonly #capture: Capture;
  readonly #recordings = new Map<number, Recording<Conditioning>>();
  /** Why nothing is recorded any more; null while recording works. */
  failure: Error | null = null;

  constructor(predict: Predict<Conditioning>, capture: Capture) {
    this.#predict = predict;
    this.#capture = capture;
  }

  /** As the function given to the constructor. */
  readonly predict: Predict<Conditioning> = (y, gamma, conditioning, previousLatents) => {
    if (previousLatents === null || this.failure !== null)
      return this.#predict(y, gamma, conditioning, previousLatents);
    const given = { y, gamma, conditioning, previousLatents };
    const rows = y.shape[0]!;
    let recording = this.#recordings.get(rows);
    if (recording && !fits(recording.inputs, given)) {
      free(recording);
      this.#recordings.delete(rows);
      recording = undefined;
    }
    if (!recording) {
      try {
        recording = this.#record(given);
      } catch (error) {
        if (/out of memory/i.test((error as Error).message)) throw error; // fewer rows may fit
        this.failure = error as Error;
        return this.#predict(y, gamma, conditioning, previousLatents);
      }
      this.#recordings.set(rows, recording);
    } else {
      // The conditioning of a call is one object for all its steps.
      const { conditioning: same, ...changing } = recording.inputs;
      copyInto(changing, { y, gamma, previousLatents });
      if (recording.source !== conditioning) copyInto(same, conditioning);
      recording.source = conditioning;
    }
    recording.run.replay();
    const { D, z } = recording.run.outputs;
    return { D: D.clone(), z: z?.clone() ?? null };
  };

  #record(given: Recording<Conditioning>["inputs"]): Recording<Conditioning> {
    const inputs = scope(() => kept(given));
    try {
      const { y, gamma, conditioning, previousLatents } = inputs;
      const run = this.#capture<Prediction>(() => this.#predict(y, gamma, conditioning, previousLatents));
      return { inputs, source: given.conditioning, run };
    } catch (error) {
      release(inputs);
      throw error;
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

/** A structure of plain objects, arrays and tensors with copies of its tensors that outlive scopes. */
function kept<T>(value: T): T {
  if (value instanceof Tensor) return value.clone().contiguous().keep() as T;
  if (Array.isArray(value)) return value.map(kept) as T;
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, kept(item)])) as T;
}

/** Whether two structures have the same form, with tensors of the same shapes and dtypes at the same places. */
function fits(a: unknown, b: unknown): boolean {
  if (a instanceof Tensor && b instanceof Tensor) return a.dtype === b.dtype && String(a.shape) === String(b.shape);
  if (a === null || b === null || typeof a !== "object" || typeof b !== "object") return a === b;
  if (a instanceof Tensor || b instanceof Tensor) return false;
  const [left, right] = [Object.entries(a), b as Record<string, unknown>];
  return left.length === Object.keys(right).length && left.every(([key, item]) => fits(item, right[key]));
}

/** Copies the values of one structure into the tensors of another that {@link fits}. */
function copyInto(target: unknown, source: unknown): void {
  if (target instanceof Tensor) target.copy_(source as Tensor);
  else if (target !== null && typeof target === "object") {
    for (const [key, item] of Object.entries(target)) copyInto(item, (source as Record<string, unknown>)[key]);
  }
}
