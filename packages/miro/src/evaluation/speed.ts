/** How fast a pipeline draws on this machine: seconds of a picture, of a step, and of what surrounds the steps. */
import { z } from "zod";
import { checkObject } from "../arguments.js";
import { abortSignal, callback, field, type OptionsOf, parseOptions, readOnly } from "../options.js";
import { generateSchema } from "../pipeline/generate-options.js";
import type { MiroPipeline } from "../pipeline/pipeline.js";

export const speedSchema = z.strictObject({
  /** What is drawn. Default: a red apple on a light blue background. */
  prompt: field(z.string().min(1).default("a red apple on a light blue background"), {
    expected: "a text",
    help: "what is drawn",
    flag: "[prompt]",
  }),
  /** Pictures computed together; each number is measured by itself. */
  batches: field(readOnly(z.array(z.int().min(1).max(4096)).min(1)).default([1]), {
    expected: "integers of at least 1",
    help: "pictures computed together, several with commas between them: each is measured by itself",
    flag: "--batches <n,...>",
    parse: (text) => (/^\d+(,\d+)*$/.test(text) ? text.split(",").map(Number) : undefined),
  }),
  /** How often each is measured, after a first time that is not counted. Default: 3. */
  rounds: field(z.int().min(1).max(1000).default(3), {
    expected: "an integer of at least 1",
    help: "how often each is measured, after a first time that is not counted",
    flag: "--rounds <n>",
  }),
  /** Sampling steps. Default: the checkpoint's. */
  steps: generateSchema.shape.steps,
  /** Guidance scale. Default: the checkpoint's. */
  guidanceScale: generateSchema.shape.guidanceScale,
  /** Called after each call that was drawn, the uncounted ones too. */
  onProgress: callback<(done: number, total: number) => void>("called after each call that was drawn"),
  /** Stops within one step. */
  signal: abortSignal("stops within one step"),
});

/** Options of {@link measureSpeed}. */
export type SpeedOptions = OptionsOf<typeof speedSchema>;

/** Median, least and most of what was measured, in seconds. */
export interface Seconds {
  median: number;
  min: number;
  max: number;
}

/** Of pictures computed together. */
export interface Speed {
  /** Pictures computed together. */
  batch: number;
  /** Sampling steps of each picture. */
  steps: number;
  /** Of the whole call. */
  call: Seconds;
  /** Of one step, for all pictures of the batch. */
  step: Seconds;
  /** Of what is no step, for all pictures of the batch: encoding the text, the first step's preparation, decoding. */
  rest: Seconds;
  /** Pictures a second, by the median of the calls. */
  picturesPerSecond: number;
}

/**
 * Measures how fast a pipeline draws. Each batch is drawn once without being counted, then `rounds` times.
 *
 * @throws InvalidInputError for a wrong option
 * @throws the reason of the signal once it is aborted
 *
 * @example
 * ```ts
 * import { MiroPipeline } from "miro-t2i";
 * import { measureSpeed } from "miro-t2i/evaluation";
 *
 * await using pipe = await MiroPipeline.fromPretrained("miro-emoji");
 * const [alone] = await measureSpeed(pipe, { steps: 20, rounds: 1 });
 * console.log(`${alone!.picturesPerSecond.toFixed(1)} pictures a second`);
 * ```
 */
export async function measureSpeed(pipe: MiroPipeline, options: SpeedOptions = {}): Promise<Speed[]> {
  checkObject("pipe", pipe, "a MiroPipeline", ["generate"]);
  const { prompt, batches, rounds, onProgress, ...drawing } = parseOptions(speedSchema, options);
  const speeds: Speed[] = [];
  for (const batch of batches) {
    const calls: number[] = [];
    const steps: number[] = [];
    const rests: number[] = [];
    let count = 0;
    for (let round = 0; round <= rounds; round++) {
      const marks: number[] = [];
      const start = performance.now();
      await pipe.generate(prompt, {
        ...drawing,
        seed: round * batch,
        imagesPerPrompt: batch,
        batchSize: batch,
        onStep: (progress) => {
          count = progress.steps;
          marks.push(performance.now());
        },
      });
      const seconds = (performance.now() - start) / 1000;
      onProgress?.(speeds.length * (rounds + 1) + round + 1, batches.length * (rounds + 1));
      if (round === 0) continue;
      // A callback comes after its step; on a GPU after the one before, and those of the first two come together. Of a
      // single step nothing can be told but the whole.
      const timed = marks.slice(pipe.device === "cpu" ? 0 : 1);
      const each = timed.slice(1).map((mark, i) => (mark - timed[i]!) / 1000);
      if (each.length === 0) each.push(seconds);
      calls.push(seconds);
      steps.push(...each);
      rests.push(Math.max(0, seconds - secondsOf(each).median * count));
    }
    const call = secondsOf(calls);
    speeds.push({
      batch,
      steps: count,
      call,
      step: secondsOf(steps),
      rest: secondsOf(rests),
      picturesPerSecond: batch / call.median,
    });
  }
  return speeds;
}

function secondsOf(values: readonly number[]): Seconds {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const median = (sorted[Math.ceil(middle) - 1]! + sorted[Math.floor(middle)]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)! };
}
