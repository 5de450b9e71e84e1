/**
 * Warm-up and cosine decay of the learning rate (MIRO's training configuration):
 *
 *   η(s) = η₀ · s / W                                          s < W
 *   η(s) = ½ η₀ (1 + cos(ρ π (s − W) / (S − W)))               otherwise
 *
 * With ρ < 1 the rate ends above zero. Beyond S the cosine continues. Update k = 1, 2, … uses η(k).
 *
 * Upstream applies the schedule after each update and never before the first, so that its update 1 runs at the full
 * base rate and update k at η(k − 1); `firstUpdateAtFullRate` does the same.
 */
import { invalid } from "../../errors.js";
import type { Recipe } from "../recipes/schema.js";

/** Options of {@link WarmupCosine}. */
export interface WarmupCosineOptions {
  /** W, in optimizer steps. */
  warmupSteps: number;
  /** S, in optimizer steps. */
  totalSteps: number;
  /** ρ: which part of the half cosine is walked until S. */
  rate?: number | undefined;
  /** The first update has the full rate, and the warm-up begins after it. */
  firstUpdateAtFullRate?: boolean | undefined;
}

/** The schedule of a recipe: as long as its run, where it does not say. */
export function scheduleOf({ lrScheduler, trainer }: Pick<Recipe, "lrScheduler" | "trainer">): WarmupCosineOptions {
  return { ...lrScheduler, totalSteps: lrScheduler.totalSteps ?? trainer.maxSteps };
}

/** η(s) / η₀. */
export function warmupCosine(s: number, { warmupSteps: W, totalSteps: S, rate = 1 }: WarmupCosineOptions): number {
  if (s < W) return s / W;
  return 0.5 * (1 + Math.cos((rate * Math.PI * (s - W)) / (S - W)));
}

/** What becomes of the rate in a run that goes on beyond the schedule's lowest point; null where it does not. */
export function risingAgain(
  { warmupSteps: W, totalSteps: S, rate = 1 }: WarmupCosineOptions,
  maxSteps: number,
): string | null {
  const lowest = Math.ceil(W + (S - W) / rate);
  if (maxSteps <= lowest) return null;
  const course = `the learning rate is lowest at step ${lowest} and rises again after it`;
  return `is ${S}, trainer.max_steps ${maxSteps}: ${course}`;
}

/** Sets the learning rates of an optimizer's groups; the base rates are those it has when this is constructed. */
export class WarmupCosine {
  readonly #baseRates: number[];
  readonly #optimizer: { paramGroups: { lr: number }[] };

  constructor(
    optimizer: { paramGroups: { lr: number }[] },
    readonly options: WarmupCosineOptions,
  ) {
    this.#optimizer = optimizer;
    if (!(options.warmupSteps >= 0)) throw invalid("warmupSteps", "0 or more", options.warmupSteps);
    if (!(options.totalSteps > options.warmupSteps))
      throw invalid("totalSteps", `more than warmupSteps (${options.warmupSteps})`, options.totalSteps);
    this.#baseRates = optimizer.paramGroups.map((group) => group.lr);
  }

  /** Sets the rates for update `k` (from 1); call it before that update. */
  apply(k: number): void {
    const factor = this.#factor(k);
    this.#optimizer.paramGroups.forEach((group, i) => {
      group.lr = this.#baseRates[i]! * factor;
    });
  }

  #factor(k: number): number {
    if (!this.options.firstUpdateAtFullRate) return warmupCosine(k, this.options);
    return k === 1 ? 1 : warmupCosine(k - 1, this.options);
  }
}
