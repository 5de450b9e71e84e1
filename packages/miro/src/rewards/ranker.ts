/** The scorers behind `--best-of`: what a request for pictures ranks its candidates with. */
import type { LoadRanker } from "../pipeline/requests/draw-request.js";
import { rank, type WeightedScorer } from "./best-of.js";
import { loadScorerFor } from "./registry.js";
import type { LoadScorerOptions } from "./scorer.js";
import { parseSelection } from "./selection.js";

/** Loads the scorers of a selection (`sharpness`, `image_reward_score,aesthetic_score=0.5`) for a `DrawRequest`. */
export const loadRanker: LoadRanker = rankerLoader({});

/** As {@link loadRanker}, with weights and precision of one's own. */
export function rankerLoader(load: Omit<LoadScorerOptions, "device" | "model" | "signal">): LoadRanker {
  return async (pipe, selection, { signal }) => {
    const scorers: WeightedScorer[] = [];
    const dispose = () => {
      for (const { scorer } of scorers) scorer.dispose();
    };
    try {
      for (const { key, weight } of parseSelection(selection))
        scorers.push({ scorer: await loadScorerFor(pipe, key, { ...load, signal }), weight });
    } catch (error) {
      dispose();
      throw error;
    }
    const models = Object.fromEntries(scorers.map(({ scorer: { key, name } }) => [key, name]));
    return { models, rank: (images, prompt, signal) => rank(images, prompt, scorers, signal), dispose };
  };
}
