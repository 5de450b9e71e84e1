/** `miro train`: trains a model by a recipe. */
import { join } from "node:path";
import { pretrainingOf } from "../training/emoji/recipes.js";
import { type Progress, ProgressLine } from "../training/logging.js";
import { parseRecipe, readRecipe } from "../training/recipe.js";
import { runTraining } from "../training/run.js";
import type { Register } from "./context.js";

const EXAMPLES = `
Examples:
  miro train recipes/emoji.yaml
  miro train recipes/emoji.yaml trainer.batch_size=64 optimizer.lr=1e-3 --output runs/try-2
  miro train recipes/emoji.yaml --output runs/try-2 --resume

Ctrl-C stores a checkpoint and stops; --resume continues from it exactly. A second Ctrl-C stops at once; the last stored
checkpoint stays. The run's folder holds recipe.yaml, log.jsonl, samples/, checkpoints/ and, at the end, export/.
`;

export const register: Register = (command, context) => {
  command
    .argument("<recipe>", "YAML file of the recipe")
    .argument("[key=value...]", "values that replace those of the recipe")
    .option("--output <dir>", "folder of the run (default: runs/NAME)")
    .option("--resume", "continue from the newest checkpoint in the folder of the run")
    .option("--json", "print the result as JSON")
    .addHelpText("after", EXAMPLES)
    .action(
      async (path: string, overrides: string[], options: { output?: string; resume?: boolean; json?: boolean }) => {
        const json = readRecipe(path, overrides);
        const pretrain = pretrainingOf(json);
        const recipe = pretrain === null ? parseRecipe(json, path) : null;
        const progress = new ProgressLine({ isTTY: context.interactive, write: context.stderr });
        const surroundings = {
          output: options.output ?? join("runs", recipe?.name ?? String(json.name)),
          resume: options.resume ?? false,
          signal: context.signal,
          onProgress: (now: Progress) => progress.update(now),
          onMessage: (message: string) => progress.say(message),
        };
        const result = await (recipe === null
          ? pretrain!(json, path, surroundings)
          : runTraining({ recipe, ...surroundings })
        ).finally(() => progress.end());
        if (options.json) context.stdout(`${JSON.stringify(result)}\n`);
        if (!result.finished) {
          context.stderr(`stopped at step ${result.step}; continue with --resume\n`);
          throw context.signal.reason;
        }
        if (!options.json) context.stderr(`done: ${result.exported ?? result.checkpoint}\n`);
      },
    );
};
