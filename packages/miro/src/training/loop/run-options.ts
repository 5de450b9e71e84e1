/** What a training is asked for, and what it answers. */
import type { Progress } from "../logging/logging.js";
import type { Recipe } from "../recipes/recipe.js";

/** @typeParam R of the diffusion network or of a task */
export interface RunOptions<R = Recipe> {
  /** What is trained, and how. */
  recipe: R;
  /** Folder of the run. */
  output: string;
  /**
   * Continue from the newest checkpoint in `output`, or from that of a step; otherwise a folder that holds one is
   * refused.
   */
  resume?: boolean | number | undefined;
  /** Continue even if values of the recipe differ that decide what the run computes. */
  allowChanges?: boolean | undefined;
  /** Files of modules that register scorers (`rewards/scorer-modules.ts`), for the other processes of the run. */
  scorerModules?: readonly string[] | undefined;
  /** Stops after a step, with a checkpoint. */
  signal?: AbortSignal | undefined;
  /** Called after each step. */
  onProgress?: ((progress: Progress) => void) | undefined;
  /** Told what a person at the terminal should know. */
  onMessage?: ((message: string) => void) | undefined;
  /** Told what must not get lost: a NaN, samples that cannot be read. Default: `onMessage`. */
  onWarning?: ((message: string) => void) | undefined;
}

/** What {@link runTraining} returns. */
export interface RunResult {
  /** All steps are done. */
  finished: boolean;
  /** Set where `trainer.max_minutes` ended the run before its last step; it can be resumed. */
  outOfTime?: true;
  step: number;
  /** Newest checkpoint. */
  checkpoint: string | null;
  /** Release folder, when the run is finished or out of time, and its data know the empty prompt. */
  exported: string | null;
}
