/** Whether the data of a recipe are there; what is missing, and the command that makes it. */
import type { DataCheck } from "../batches/finding.js";
import { sourceOf } from "../batches/sources.js";
import { type Recipe, sourceRecipe, validationBatchSize } from "../recipes/recipe.js";

/** What `checkData` found. */
export interface DataReport {
  /** Nothing is missing. */
  ready: boolean;
  /** Samples that pass the filters, where their number is known. */
  samples: number | null;
  checks: DataCheck[];
}

/**
 * Looks at the data of a recipe.
 * @param readAll look at all of them, so that their number is known, however long it takes
 */
export async function checkData(recipe: Recipe, readAll = false): Promise<DataReport> {
  const { everyNSteps, root } = recipe.validation;
  const report = await sourceOf(recipe.data).check(
    recipe.data,
    sourceRecipe(recipe),
    everyNSteps > 0 && root !== undefined ? { root, batchSize: validationBatchSize(recipe) } : undefined,
    readAll,
  );
  return { ready: report.checks.every(({ status }) => status !== "missing"), ...report };
}
