/** `miro render`: emoji scenes as raw tar shards. */
import { join } from "node:path";
import { rawShardsRecipeSchema, renderRawShards } from "../emoji/scenes/raw-shards.js";
import { checkRecipe } from "../training/recipes/checked-yaml.js";
import { readRecipe } from "../training/recipes/recipe.js";
import type { Register } from "./context.js";
import { Progress } from "./progress.js";

const EXAMPLES = `
Examples:
  miro render recipes/emoji-data.yaml --output data/emoji/raw
  miro render recipes/emoji-data.yaml samples=500 samples_per_shard=250 --output data/emoji/small

Each sample is KEY.jpg, KEY.txt (the caption) and KEY.json (size, scene, true caption), as data sets from the web come.
Finished shards are kept: the same command goes on where it was interrupted, and does nothing when all is there.

`;

export const register: Register = (command, context) => {
  command
    .argument("<recipe>", "YAML file of the recipe")
    .argument("[key=value...]", "values that replace those of the recipe")
    .option("--output <dir>", "folder of the shards (default: data/NAME/raw)")
    .option("--overwrite", "render again what is there, and replace shards of another recipe")
    .option("--json", "print one JSON object on stdout")
    .addHelpText("after", EXAMPLES)
    .action(
      async (path: string, overrides: string[], flags: { output?: string; overwrite?: boolean; json?: boolean }) => {
        const recipe = checkRecipe(rawShardsRecipeSchema, readRecipe(path, overrides), path);
        const output = flags.output ?? join("data", recipe.name, "raw");
        const progress = await Progress.for(context);
        const result = await renderRawShards({
          recipe,
          output,
          overwrite: flags.overwrite ?? false,
          signal: context.signal,
          onProgress: (done, total) => progress.update("rendering", done, total),
        }).finally(() => progress.stop());
        if (flags.json) context.stdout(`${JSON.stringify(result)}\n`);
        else
          context.stdout(
            `${output}: ${result.shards.length} shards, ${result.samples} samples, ${result.kept} shards kept\n`,
          );
      },
    );
};
