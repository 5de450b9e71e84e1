/** Scorers: what judges pictures, and what is done with their judgement. */
export { colorfulnessScore, colourfulness, laplacianEnergy, sharpnessScore } from "./measured.js";
export { loadScorer, registerScorer, scorerSpec, scorerSpecs } from "./registry.js";
export type { LoadScorerOptions, Scorer, ScorerModel, ScorerSpec } from "./scorer.js";
