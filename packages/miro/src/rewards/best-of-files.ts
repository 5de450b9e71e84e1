/** The best of several for each picture of a plan, one picture after another, so that each is stored as soon as it is chosen. */
import { cat, scope, type Tensor } from "@miro-t2i/torch";
import type { MiroPipeline } from "../pipeline/pipeline.js";
import type { DrawOptions, DrawResult, PlannedPicture } from "../pipeline/requests/draw-pictures.js";
import type { GeneratedImage, ImageSettings } from "../pipeline/settings.js";
import { bestOf } from "./best-of.js";
import { loadScorer } from "./registry.js";

/** Options of {@link drawBestOf}. */
export interface DrawBestOfOptions extends Omit<DrawOptions, "onImage"> {
  /** Candidates for each picture; `noise` holds as many rows for each. */
  count: number;
  /** Key of the scorer that decides. */
  scorer: string;
  /** Called with all candidates of a picture, best first, their scores and ranks in their settings. */
  onRanked: (ranked: readonly GeneratedImage[], picture: PlannedPicture) => void | Promise<void>;
}

/**
 * Draws `count` candidates for each picture, of which the scorer ranks.
 * @returns the latents of the best ones when asked for
 * @throws as `bestOf`
 */
export async function drawBestOf(
  pipe: MiroPipeline,
  pictures: readonly PlannedPicture[],
  { count, scorer: key, noise, batchSize, keepLatents = false, signal, onStep, onRanked }: DrawBestOfOptions,
): Promise<DrawResult> {
  const scorer = await loadScorer(key, { device: pipe.device, signal });
  const warnings = new Set<string>();
  const kept: Tensor[] = [];
  try {
    for (const picture of pictures) {
      const { index, prompt, seed, options } = picture;
      const result = await bestOf(pipe, prompt, {
        ...options,
        n: count,
        scorer,
        ...(seed !== null && { seed }),
        ...(noise && { noise: noise.narrow(0, index * count, count) }),
        ...(batchSize !== undefined && { batchSize }),
        ...(signal && { signal }),
        ...(onStep && { onStep: ({ step, steps }) => onStep({ step, steps, images: [index] }) }),
      });
      try {
        for (const warning of result.warnings) warnings.add(warning);
        const { ranked } = result.prompts[0]!;
        if (keepLatents) kept.push(scope(() => result.latents.narrow(0, ranked[0]!.index, 1).clone()));
        const images = ranked.map(({ image, scores }, i): GeneratedImage => {
          const chosen: ImageSettings["bestOf"] = { count, seed, scorer: key, scores, rank: i + 1 };
          return { ...image, settings: { ...image.settings, bestOf: chosen } };
        });
        await onRanked(images, picture);
      } finally {
        result.latents.dispose();
      }
    }
    return { latents: keepLatents ? scope(() => cat(kept, 0)) : null, warnings: [...warnings] };
  } finally {
    scorer.dispose();
    for (const part of kept) part.dispose();
  }
}
