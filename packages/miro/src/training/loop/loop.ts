/**
 * The training loop, of whatever is trained: step by step until the last one or a request to stop, with what is to
 * happen every so many steps.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Progress } from "../logging/logging.js";

/** What is trained, as the loop sees it. */
export interface Work {
  /** Optimizer steps done. */
  readonly step: number;
  /** Resolves when the next batch can be had without waiting. */
  ready?(signal: AbortSignal | undefined): Promise<void>;
  /** Makes one step. @param waitingSince when the wait for its batch began, by performance.now() */
  advance(waitingSince: number): void | Promise<void>;
  /** How it goes. */
  pace(): { loss: number; stepsPerSecond: number };
  /** Writes the figures of the steps since it was last called, now or as soon as they are known. */
  log(): void;
}

/** Something that happens after every so many steps. */
export interface Recurring {
  /** 0: never. */
  everyNSteps: number;
  /** How many steps after a multiple of `everyNSteps`; 0 by default. */
  offset?: number;
  /** Whether it is due at the beginning, too, where the step that was done last is one of those. */
  atStart?: boolean;
  run(step: number): void | Promise<void>;
}

export interface LoopOptions {
  maxSteps: number;
  /** Samples of a step, for the speed. */
  batchSize: number;
  logEveryNSteps: number;
  /** In this order, after the log. */
  recurring: readonly Recurring[];
  /** Whether to stop before the next step. */
  stop(): boolean;
  /** Ends waiting; what fails for it ends the loop as a request to stop does. */
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: Progress) => void) | undefined;
}

/** Runs the loop. @returns whether all steps were done */
export async function runLoop(work: Work, options: LoopOptions): Promise<boolean> {
  const { maxSteps, batchSize, logEveryNSteps, recurring, stop, signal, onProgress } = options;
  /** Whether it was done, and not ended by the signal. */
  const done = async (part: () => void | Promise<void>): Promise<boolean> => {
    try {
      await part();
      return true;
    } catch (error) {
      if (signal?.aborted) return false;
      throw error;
    }
  };
  /** @returns whether all that is due of these was done */
  const recur = async (those: readonly Recurring[]): Promise<boolean> => {
    const { step } = work;
    for (const { everyNSteps, offset = 0, run } of those) {
      if (everyNSteps === 0 || step % everyNSteps !== offset % everyNSteps) continue;
      if (!(await done(() => run(step)))) return false;
    }
    return true;
  };
  if (!(await recur(recurring.filter(({ atStart }) => atStart)))) return work.step >= maxSteps;
  while (work.step < maxSteps && !stop()) {
    const waitingSince = performance.now();
    const waited = await done(async () => {
      await work.ready?.(signal);
      await nextTurn(); // signals and worker messages are handled between steps
    });
    if (!waited) break;
    await work.advance(waitingSince);
    const { step } = work;
    const { loss, stepsPerSecond } = work.pace();
    onProgress?.({
      step,
      totalSteps: maxSteps,
      loss,
      imagesPerSecond: stepsPerSecond * batchSize,
      secondsLeft: (maxSteps - step) / stepsPerSecond,
    });
    if (step % logEveryNSteps === 0) work.log();
    if (!(await recur(recurring))) break;
  }
  return work.step >= maxSteps;
}
