/** The recipes of the parts around the diffusion network, told apart by their `kind`. */

import type { RunResult } from "../loop/run-options.js";
import { checkRecipe } from "../recipes/recipe.js";
import { RunLock } from "../state/run-lock.js";
import type { PretrainingContext } from "./pretraining.js";

type Train = (json: unknown, source: string, context: PretrainingContext) => Promise<RunResult>;

/** Loaded when called: each pulls in its networks. */
const KINDS: Record<string, Train> = {
  autoencoder: async (json, source, context) => {
    const { autoencoderRecipeSchema, trainAutoencoder } = await import("./autoencoder.js");
    return trainAutoencoder(checkRecipe(autoencoderRecipeSchema, json, source), context);
  },
  "text-encoder": async (json, source, context) => {
    const { textEncoderRecipeSchema, trainTextEncoder } = await import("./text-encoder.js");
    return trainTextEncoder(checkRecipe(textEncoderRecipeSchema, json, source), context);
  },
  clip: async (json, source, context) => {
    const { clipRecipeSchema, trainClip } = await import("./clip.js");
    return trainClip(checkRecipe(clipRecipeSchema, json, source), context);
  },
  classifier: async (json, source, context) => {
    const { classifierRecipeSchema, trainClassifier } = await import("./classifier.js");
    return trainClassifier(checkRecipe(classifierRecipeSchema, json, source), context);
  },
};

/**
 * The trainer of a recipe's `kind`, which takes the folder of the run for itself, or null for a recipe of the diffusion
 * network.
 */
export function pretrainingOf(recipe: Record<string, unknown>): Train | null {
  if (typeof recipe.kind !== "string" || !Object.hasOwn(KINDS, recipe.kind)) return null;
  const train = KINDS[recipe.kind]!;
  return async (json, source, context) => {
    const lock = await RunLock.acquire(context.output, context);
    try {
      return await train(json, source, { ...context, lock });
    } finally {
      lock.release();
    }
  };
}
