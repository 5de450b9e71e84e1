import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { pretrainingOf } from "./emoji/recipes.js";
import { parseRecipe, readRecipe } from "./recipe.js";

const folder = join(import.meta.dirname, "../../../../recipes");
const diffusion = readdirSync(folder).filter((name) => {
  const json = readRecipe(join(folder, name));
  return pretrainingOf(json) === null && "network" in json; // the others render data
});

it.each(diffusion)("recipes/%s is valid", (name) => {
  expect(() => parseRecipe(readRecipe(join(folder, name)), name)).not.toThrow();
});
