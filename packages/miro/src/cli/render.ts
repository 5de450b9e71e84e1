/** `miro render`: emoji scenes as raw tar shards. */
import { join } from "node:path";
import { z } from "zod";
import { type RenderRawShardsOptions, rawShardsRecipeSchema, renderRawShards } from "../emoji/scenes/raw-shards.js";
import { counted } from "../numbers.js";
import { field, flag } from "../options.js";
import { checkRecipe } from "../training/recipes/checked-yaml.js";
import { readRecipe } from "../training/recipes/recipe.js";
import { declare } from "./add-options.js";
import { json, recipeArguments } from "./common-options.js";
import type { Register } from "./context.js";
import { helpText } from "./help-text.js";
import { SAME_COMMAND, untilStopped } from "./interruption.js";
import { Progress } from "./progress.js";

const EXAMPLES = `
Examples:
  miro render emoji-data --output data/emoji/raw
  miro render emoji-data samples=500 samples_per_shard=250 --output data/emoji/small

Each sample is KEY.jpg, KEY.txt (the caption) and KEY.json (size, scene, true caption), as data sets from the web come.
Finished shards are kept: the same command goes on where it was interrupted, and does nothing when all is there.

`;

const schema = z.strictObject({
  ...recipeArguments,
  output: field(z.string().optional(), {
    expected: "a folder",
    help: "folder of the shards",
    flag: "--output <dir>",
    writes: "folder",
    otherwise: "data/NAME/raw",
  }),
  overwrite: flag("render again what is there, and replace shards of another recipe", "--overwrite"),
  json,
});

export const register: Register = (command, context) => {
  declare(command, schema, async ({ recipe: path, overrides, overwrite, json, ...given }) => {
    const recipe = checkRecipe(rawShardsRecipeSchema, readRecipe(path, overrides), path);
    const output = given.output ?? join("data", recipe.name, "raw");
    const progress = await Progress.for(context);
    let at = "";
    const work: RenderRawShardsOptions = {
      recipe,
      output,
      overwrite,
      signal: context.signal,
      onProgress: (done, total) => {
        at = `${done} of ${counted(total, "sample")}; finished shards are kept; `;
        progress.update("rendering", done, total);
      },
    };
    const left = () => `${at}${SAME_COMMAND}`;
    const result = await untilStopped(context, left, () => renderRawShards(work)).finally(() => progress.stop());
    const { shards, samples, kept } = result;
    context.stdout(
      json
        ? `${JSON.stringify(result)}\n`
        : `${output}: ${counted(shards.length, "shard")}, ${counted(samples, "sample")}, ${counted(kept, "shard")} kept\n`,
    );
  }).addHelpText("after", helpText(EXAMPLES));
};
