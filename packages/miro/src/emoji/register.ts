/**
 * The emoji world comes in by the extension points that anybody's package can use: its scorer, its data and the
 * training of its parts.
 */
import { registerScorer } from "../rewards/registry.js";
import { registerSource } from "../training/batches/sources.js";
import { registerTask } from "../training/loop/tasks.js";
import { clipScoreSpec } from "./scorer/emoji-clip-score.js";
import { emojiSource } from "./training/emoji-source.js";
import {
  autoencoderRecipeSchema,
  classifierRecipeSchema,
  clipRecipeSchema,
  textEncoderRecipeSchema,
} from "./training/recipes.js";

registerScorer(clipScoreSpec);
registerSource("emoji", emojiSource);

// What trains a part pulls in networks and sprites: loaded when it is asked for.
const checks = () => import("./training/part-checks.js");
registerTask("autoencoder", {
  schema: autoencoderRecipeSchema,
  build: async (recipe, context) => (await import("./training/autoencoder.js")).buildAutoencoder(recipe, context),
  check: async (recipe) => (await checks()).checkAutoencoder(recipe),
});
registerTask("text-encoder", {
  schema: textEncoderRecipeSchema,
  build: async (recipe, context) => (await import("./training/text-encoder.js")).buildTextEncoder(recipe, context),
  check: async (recipe) => (await checks()).checkTextEncoder(recipe),
});
registerTask("clip", {
  schema: clipRecipeSchema,
  freeKeys: ["evaluated_scenes"],
  build: async (recipe, context) => (await import("./training/clip.js")).buildClip(recipe, context),
  check: async (recipe) => (await checks()).checkClip(recipe),
});
registerTask("classifier", {
  schema: classifierRecipeSchema,
  build: async (recipe, context) => (await import("./training/classifier.js")).buildClassifier(recipe, context),
  check: async (recipe) => (await checks()).checkClassifier(recipe),
});
