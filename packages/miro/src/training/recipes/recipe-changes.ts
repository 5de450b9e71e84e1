/**
 * What a run that is resumed may change in its recipe. Settings that decide neither the weights nor the order of the
 * data may change freely; others are refused, with their names, unless the caller allows them.
 */
import { isObject } from "../../arguments.js";
import { describe, InvalidInputError } from "../../errors.js";
import { message, option } from "../../message.js";
import { parseRecipe, type Recipe, recipeToJson } from "./recipe.js";

/**
 * Keys (and everything below them) that a resumed run may change: where things lie, how fast they go, what is written
 * when.
 */
const FREE = [
  "name",
  "initialization",
  "logger",
  "samples",
  "validation",
  "data.dir",
  "data.root",
  "data.cache",
  "data.workers",
  "data.prefetch_factor",
  "data.text_encoder",
  "data.autoencoder",
  "data.img_resolution",
  "ema.default_index",
  "trainer.max_steps",
  "trainer.max_minutes",
  "trainer.device",
  "trainer.devices",
  "trainer.num_nodes",
  "trainer.strategy",
  "trainer.device_batch_size",
  "trainer.accumulate_grad_batches",
  "trainer.cuda_graphs",
  "trainer.threads",
  "trainer.replicas",
  "trainer.max_skipped_in_a_row",
  "trainer.log_every_n_steps",
  "trainer.checkpoint_every_n_steps",
  "trainer.keep_last",
  "trainer.keep_every_n_steps",
];

/** A value that differs, by its key in the file. */
export interface RecipeChange {
  key: string;
  before: unknown;
  now: unknown;
}

/**
 * Every value in which two recipes differ that decides what a run computes.
 * @param freeKeys what may differ; by default that of the diffusion network's recipes
 */
export function recipeChanges(before: unknown, now: unknown, freeKeys: readonly string[] = FREE): RecipeChange[] {
  return differences(effective(before), effective(now), "").filter(
    ({ key }) => !freeKeys.some((free) => key === free || key.startsWith(`${free}.`)),
  );
}

/**
 * How a recipe differs from that of a checkpoint, in values that decide what a run computes. Settings that have come
 * since the checkpoint count with their defaults.
 */
export function changesSince(stored: unknown, recipe: Recipe): RecipeChange[] {
  return recipeChanges(withDefaults(stored), recipeToJson(recipe));
}

/** As it is where it is no longer a valid recipe. */
function withDefaults(stored: unknown): unknown {
  try {
    return recipeToJson(parseRecipe(stored));
  } catch {
    return stored;
  }
}

/** In which values the recipe of this process differs from that of rank 0. */
export function recipeDifferences(first: unknown, own: unknown): string {
  return recipeChanges(first, own, [])
    .map(({ key, before, now }) => `${key} is ${shown(now)} here, ${shown(before)} there`)
    .join("; ");
}

/**
 * Refuses to continue a run by another recipe.
 * @param where the checkpoint, for the error
 * @param newRun how to begin anew with the changed recipe, in words
 * @throws InvalidInputError with a line for each value that differs, and what to do
 */
export function refuseRecipeChanges(
  where: string,
  changes: readonly RecipeChange[],
  newRun = "start a new run from its weights with initialization.from",
): void {
  if (changes.length === 0) return;
  const lines = changes.map(
    ({ key, before, now }) => `  ${key}: ${shown(before)} in the checkpoint, ${shown(now)} now${keeping(key, before)}`,
  );
  const told = [`${where}: the run was made by another recipe:`, ...lines].join("\n");
  throw new InvalidInputError(
    message`${told}\ngive the recipe it was made with, or ${option("allowChanges", true)} to continue anyway, or ${newRun}`,
  );
}

/**
 * The recipe with the values that others depend on written out: the schedule's length is the run's where it is not
 * stated. Where no texts are dropped, the release alone has the empty prompt.
 */
function effective(recipe: unknown): unknown {
  if (!isObject(recipe) || !isObject(recipe.lr_scheduler) || !isObject(recipe.trainer)) return recipe;
  const total = recipe.lr_scheduler.total_steps ?? recipe.trainer.max_steps;
  const { data, loss } = recipe;
  const dropsTexts = !isObject(loss) || [loss.cond_drop_rate, loss.text_drop_rate].some((rate) => rate !== 0);
  return {
    ...recipe,
    lr_scheduler: { ...recipe.lr_scheduler, total_steps: total },
    ...(!dropsTexts && isObject(data) && { data: { ...data, uncond_embedding: undefined } }),
  };
}

function differences(before: unknown, now: unknown, path: string): RecipeChange[] {
  if (isObject(before) && isObject(now)) {
    const keys = [...new Set([...Object.keys(before), ...Object.keys(now)])];
    return keys.flatMap((key) => differences(before[key], now[key], path === "" ? key : `${path}.${key}`));
  }
  return JSON.stringify(before) === JSON.stringify(now) ? [] : [{ key: path, before, now }];
}

/** How a schedule stays what it was where a run gets other steps: without a length of its own it has the run's. */
function keeping(key: string, before: unknown): string {
  return key === "lr_scheduler.total_steps" ? `, as many as trainer.max_steps; ${key}=${shown(before)} keeps it` : "";
}

function shown(value: unknown): string {
  return value === undefined ? "not set" : describe(value);
}
