/**
 * Quality against work: each sampler at several numbers of network evaluations, from the same noise.
 *
 * The measure is the root mean square distance of the final latents to the converged solution of the same equation, Heun's with
 * 200 evaluations on the same schedule: how much of a picture is the integration's error. It says nothing of whether the
 * exact solution is the better picture; for that `judge` scores the pictures of each cell.
 */
import { scope, type Tensor } from "@miro-t2i/torch";
import { evaluationsOf, SAMPLERS, type SamplerName, stepsWithin } from "../flow/samplers.js";
import type { GenerateOptions } from "../pipeline/generate-options.js";
import type { MiroPipeline } from "../pipeline/pipeline.js";
import type { GeneratedImage } from "../pipeline/settings.js";

/** Options of {@link compareSamplers}. */
export interface SamplerComparisonOptions {
  /** What is drawn, one picture each. */
  prompts: readonly string[];
  /** Default: all. */
  samplers?: readonly SamplerName[];
  /** Numbers of network evaluations that a picture may take; default 5, 10, 20, 40. */
  evaluations?: readonly number[];
  /** Evaluations of the solution that everything is compared with (default 200). */
  referenceEvaluations?: number;
  /** Everything else of `generate`: guidance, shift, seeds, reward targets. */
  generate?: Omit<GenerateOptions, "sampler" | "steps" | "imagesPerPrompt">;
  /** Scores by name of the pictures of one cell, in the order of the prompts. */
  judge?: (images: readonly GeneratedImage[]) => Record<string, number> | Promise<Record<string, number>>;
  onProgress?: (done: number, total: number) => void;
}

/** One cell of the comparison. */
export interface SamplerComparisonRow {
  sampler: SamplerName;
  /** Evaluations that were allowed, and those that were made. */
  budget: number;
  evaluations: number;
  steps: number;
  /** Root mean square distance of the latents to the reference, in the network's space, where data has a deviation of about 0.5. */
  distance: number;
  scores?: Record<string, number>;
}

/** Draws every prompt with every sampler and number of evaluations. @throws as `MiroPipeline.generate` */
export async function compareSamplers(
  pipe: MiroPipeline,
  {
    prompts,
    samplers = Object.keys(SAMPLERS) as SamplerName[],
    evaluations = [5, 10, 20, 40],
    referenceEvaluations = 200,
    generate = {},
    judge,
    onProgress,
  }: SamplerComparisonOptions,
): Promise<SamplerComparisonRow[]> {
  const draw = (sampler: SamplerName, budget: number) =>
    pipe.generate(prompts, { ...generate, sampler, steps: stepsWithin(sampler, budget) });
  const total = samplers.length * evaluations.length + 1;
  const { latents: reference } = await draw("heun", referenceEvaluations);
  onProgress?.(1, total);
  const rows: SamplerComparisonRow[] = [];
  try {
    for (const sampler of samplers) {
      for (const budget of evaluations) {
        const { images, latents } = await draw(sampler, budget);
        const distance = rootMeanSquare(latents, reference);
        latents.dispose();
        const steps = stepsWithin(sampler, budget);
        const row = { sampler, budget, evaluations: evaluationsOf(sampler, steps), steps, distance };
        rows.push(judge ? { ...row, scores: await judge(images) } : row);
        onProgress?.(rows.length + 1, total);
      }
    }
    return rows;
  } finally {
    reference.dispose();
  }
}

function rootMeanSquare(a: Tensor, b: Tensor): number {
  return scope(() => a.sub(b).square().mean().sqrt().item() as number);
}
