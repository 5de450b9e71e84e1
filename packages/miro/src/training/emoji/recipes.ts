/** The recipes of the parts around the diffusion network, told apart by their `kind`. */
import type { Progress } from "../logging.js";
import { checkRecipe } from "../recipe.js";
import type { RunResult } from "../run.js";

/** Where and how a recipe runs. */
export interface PretrainingContext {
  /** Folder of the run. */
  output: string;
  /** Continue from the checkpoint in `output`. */
  resume: boolean;
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  onMessage?: (message: string) => void;
}

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
  classifier: async (json, source, context) => {
    const { classifierRecipeSchema, trainClassifier } = await import("./classifier.js");
    return trainClassifier(checkRecipe(classifierRecipeSchema, json, source), context);
  },
};

/** The trainer of a recipe's `kind`, or null for a recipe of the diffusion network. */
export function pretrainingOf(recipe: Record<string, unknown>): Train | null {
  return typeof recipe.kind === "string" && Object.hasOwn(KINDS, recipe.kind) ? KINDS[recipe.kind]! : null;
}
