/** A checked recipe as a list of values, each with where it comes from: what `miro train RECIPE --print` shows. */
import { Document, isMap, isScalar, type Node } from "yaml";
import { type Recipe, recipeToJson } from "./recipe.js";
import type { Origins } from "./recipe-source.js";

/** A value of a recipe. */
export interface ResolvedValue {
  /** Its place: `trainer.max_steps`. */
  path: string;
  value: unknown;
  /**
   * `FILE:LINE`, `command line`, `environment NAME`, `.env:LINE NAME`, `default`, or another value that it follows
   * from.
   */
  origin: string;
}

/** Values that the check of a recipe fills in from others. */
const DERIVED: Record<string, string> = {
  "preconditioning.num_latents": "network.num_latents",
  "preconditioning.latents_dim": "network.latents_dim",
};

/** Every value of a checked recipe in the order of its sections; lists count as one value. */
export function resolvedValues(recipe: Recipe, origins: Origins): ResolvedValue[] {
  const values: ResolvedValue[] = [];
  const walk = (value: unknown, path: string): void => {
    if (typeof value === "object" && value !== null && !Array.isArray(value) && Object.keys(value).length > 0)
      for (const [key, item] of Object.entries(value)) walk(item, path === "" ? key : `${path}.${key}`);
    else {
      const derived = DERIVED[path];
      values.push({
        path,
        value,
        origin: derived === undefined ? (origins.get(path) ?? "default") : `from ${derived}`,
      });
    }
  };
  walk(recipeToJson(recipe), "");
  return values;
}

/** The recipe as one YAML file that needs no other, the origin of each value in a comment beside it. */
export function resolvedYaml(recipe: Recipe, origins: Origins): string {
  const byPath = new Map(resolvedValues(recipe, origins).map(({ path, origin }) => [path, origin]));
  const document = new Document(recipeToJson(recipe));
  const annotate = (node: unknown, path: string): void => {
    if (!isMap(node)) return;
    for (const { key, value } of node.items) {
      const place = `${path}${String(isScalar(key) ? key.value : key)}`;
      const origin = byPath.get(place);
      if (origin === undefined) annotate(value, `${place}.`);
      else if (value !== null) {
        const leaf = value as Node & { flow?: boolean };
        if (!isScalar(leaf)) leaf.flow = true;
        leaf.comment = ` ${origin}`;
      }
    }
  };
  annotate(document.contents, "");
  return document.toString({ lineWidth: 0 });
}
