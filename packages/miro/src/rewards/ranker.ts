/** The scorers behind `--best-of`: what a request for pictures ranks its candidates with. */
import type { LoadRanker } from "../pipeline/requests/draw-request.js";
import { rank } from "./best-of.js";
import { loadScorerFor } from "./registry.js";

/** Loads the scorer of a key for a `DrawRequest`. */
export const loadRanker: LoadRanker = async (pipe, key, options) => {
  const scorer = await loadScorerFor(pipe, key, options);
  return {
    rank: (images, prompt, signal) => rank(images, prompt, [scorer], signal),
    dispose: () => scorer.dispose(),
  };
};
