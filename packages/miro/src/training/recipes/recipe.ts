/** Training recipes: a YAML file and `key=value` overrides, checked as a whole before anything is allocated. */
import { stringify } from "yaml";
import type { z } from "zod";
import { checkText } from "../../arguments.js";
import { invalid } from "../../errors.js";
import { parsePrecondConfig, parseRinConfig, precondConfigToJson, rinConfigToJson } from "../../networks/config.js";
import type { SourceRecipe } from "../batches/sources.js";
import { planOf } from "./batch-plan.js";
import { checkRecipe, refuseRecipe, toFile } from "./checked-yaml.js";
import { composeRecipe, type Origins } from "./recipe-source.js";
import { checkRules } from "./rules.js";
import { type Recipe, recipeSchema } from "./schema.js";

export type { Recipe } from "./schema.js";

/**
 * Checks a recipe in the form of its file.
 * @param origins where values come from: the errors then say so
 * @throws InvalidInputError with one line for each unknown key (and the nearest valid names), wrong type or value.
 */
export function parseRecipe(json: unknown, source = "recipe", origins?: Origins): Recipe {
  checkText("source", source, "where the recipe comes from, for errors");
  if (origins !== undefined && !(origins instanceof Map))
    throw invalid("origins", "where values come from, as composeRecipe gives it", origins);
  const recipe = checkRecipe(recipeSchema(), json, source, origins);
  leaveOutCpuSettings(recipe, origins);
  const network = checkRules(recipe, (lines) => refuseRecipe(source, lines, origins));
  recipe.network = rinConfigToJson(network);
  recipe.preconditioning = precondConfigToJson(
    parsePrecondConfig({ ...recipe.preconditioning, num_latents: network.numLatents, latents_dim: network.latentsDim }),
  );
  return recipe;
}

/**
 * Leaves out what a recipe sets for one process on the CPU when a GPU or several processes are chosen: a recipe for the
 * CPU trains on GPUs by `trainer.device=cuda` alone. What the command line sets stays, to be refused.
 */
function leaveOutCpuSettings({ trainer }: Recipe, origins?: Origins): void {
  const isOneOnCpu = trainer.device === "cpu" && trainer.devices * trainer.numNodes === 1;
  const origin = origins?.get("trainer.replicas");
  if (!isOneOnCpu && origin !== undefined && origin !== "command line") delete trainer.replicas;
}

/** What a source of data needs to know of the rest of its recipe. */
export function sourceRecipe({ network, loss, trainer }: Recipe): SourceRecipe {
  return { network: parseRinConfig(network), loss, batchSize: trainer.batchSize };
}

/** Samples of a batch of the validation: by default as many as a device computes at once. */
export function validationBatchSize({ validation, trainer }: Recipe): number {
  return validation.batchSize ?? planOf(trainer).deviceBatchSize;
}

/** A recipe as its file would state it, every value included; by default one of the diffusion network. */
export function recipeToJson(recipe: object, schema: z.ZodType = recipeSchema()): unknown {
  return toFile(recipe, schema);
}

/** The text of such a file. */
export function recipeToYaml(recipe: Recipe): string {
  return stringify(recipeToJson(recipe));
}

/** Reads a recipe with overrides and checks it; see recipe-source.ts for names, parts and overrides. */
export function loadRecipe(name: string, overrides: readonly string[] = []): Recipe {
  const composed = composeRecipe(name, overrides);
  return parseRecipe(composed.json, composed.path, composed.origins);
}

/** A recipe with its overrides, not checked yet. */
export function readRecipe(name: string, overrides: readonly string[] = []): Record<string, unknown> {
  return composeRecipe(name, overrides).json;
}
