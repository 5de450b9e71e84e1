/** `miro train`: trains a model by a recipe, or shows what the recipe is. */
import "./extensions.js";
import { join } from "node:path";
import { InterruptedError, InvalidInputError, invalid, MiroError } from "../errors.js";
import { type Progress, ProgressLine } from "../training/logging/logging.js";
import { runTraining } from "../training/loop/run.js";
import { runTask } from "../training/loop/run-task.js";
import { taskOf } from "../training/loop/tasks.js";
import { dryRun } from "../training/planning/dry-run.js";
import { rankPlaceOf } from "../training/process-group/launch-environment.js";
import { checkRecipe } from "../training/recipes/checked-yaml.js";
import { parseRecipe } from "../training/recipes/recipe.js";
import { type ComposedRecipe, composeRecipe } from "../training/recipes/recipe-source.js";
import { resolvedValues, resolvedYaml } from "../training/recipes/resolved-recipe.js";
import type { CliContext, Register } from "./context.js";
import { dryRunText } from "./dry-run-text.js";
import { jsonWithFlags, nameFlags } from "./flag-names.js";

const EXAMPLES = `
Examples:
  miro train emoji
  miro train recipes/emoji.yaml trainer.batch_size=64 optimizer.lr=1e-3 --output runs/try-2
  miro train emoji --output runs/try-2 --resume
  miro train emoji --output runs/try-2 --resume 1000        from the checkpoint of step 1000; later ones are set aside
  miro train emoji --devices 2 trainer.replicas=1           two processes share each batch
  miro train multi_cad_synth data.dir=/data --print         every value, and where it comes from
  miro train multi_cad_synth trainer.devices=8 --dry-run    parameters, memory, FLOPs; are the data there?
  miro train clip_score_cad extends=base/as_upstream        another recipe on top

A recipe is a path, or the name of a file in the folder recipes. Ctrl-C stores a checkpoint and stops; --resume continues from it
exactly. A second Ctrl-C stops at once; the last stored checkpoint stays. The run's folder holds recipe.yaml, log.jsonl, samples/,
checkpoints/ and, at the end, export/. docs/training.md tells more.
`;

interface Flags {
  output?: string;
  resume?: boolean | string;
  device?: string;
  devices?: string;
  allowChanges?: boolean;
  skipBrokenShards?: boolean;
  print?: boolean;
  dryRun?: boolean;
  json?: boolean;
}

export const register: Register = (command, context) => {
  nameFlags(command, { resume: "--resume" });
  command
    .usage("[options] <recipe> [key=value...]")
    .argument("[recipe]", "name or file of the recipe")
    .argument("[key=value...]", "values that replace those of the recipe")
    .option("--output <dir>", "folder of the run (default: runs/NAME)")
    .option("--device <name>", "cpu, cuda or cuda:N: short for trainer.device=NAME; also for recipes of the parts")
    .option("--devices <n>", "processes, one for each device, that share each batch: short for trainer.devices=N")
    .option(
      "--resume [step]",
      "continue from the newest checkpoint in the folder of the run; with a step from the checkpoint of that step",
    )
    .option(
      "--allow-changes",
      "continue even though the recipe has changed in values that decide what the run computes",
    )
    .option("--skip-broken-shards", "train without shards that were cut: short for data.skip_broken_shards=true")
    .option("--print", "print the whole recipe with the origin of every value, and do nothing else")
    .option("--dry-run", "count parameters, memory and arithmetic, check the data, and do nothing else")
    .option("--json", "print the result as JSON")
    .addHelpText("after", EXAMPLES)
    .action(async (first: string | undefined, others: string[], flags: Flags) => {
      const { resume, words } = resumeOf(flags.resume ?? false, first === undefined ? [] : [first, ...others]);
      const [name, ...overrides] = words;
      if (name === undefined)
        throw new InvalidInputError("recipe: expected the name or file of a recipe, received none");
      const devices = flags.devices === undefined ? [] : [`trainer.devices=${flags.devices}`];
      const device = flags.device === undefined ? [] : [`trainer.device=${flags.device}`];
      const skipping = flags.skipBrokenShards ? ["data.skip_broken_shards=true"] : [];
      const composed = composeRecipe(name, [...overrides, ...device, ...devices, ...skipping]);
      if (flags.print) print(composed, flags, context);
      else if (flags.dryRun) await plan(composed, flags, context);
      else await train(composed, { ...flags, resume }, context);
    });
};

/**
 * With `--resume` a word of digits is the step of a checkpoint, wherever it stands: neither a recipe nor a value is written so. Any other word
 * behind `--resume` is the recipe or a value.
 */
function resumeOf(flag: boolean | string, given: string[]): { resume: boolean | number; words: string[] } {
  const isStep = (word: string) => /^\d{1,15}$/.test(word);
  if (flag === false) return { resume: false, words: given };
  if (flag === "") throw invalid("--resume", "the step of a checkpoint", flag);
  const behind = typeof flag === "string" ? [flag] : [];
  const words = /^[\w.]+=/.test(behind[0] ?? "") ? [...given, ...behind] : [...behind, ...given];
  const steps = words.filter(isStep);
  if (steps.length > 1) throw new InvalidInputError(`--resume: expected one step, received ${steps.join(" and ")}`);
  return { resume: steps.length === 0 ? true : Number(steps[0]), words: words.filter((word) => !isStep(word)) };
}

function print({ json, path, origins }: ComposedRecipe, flags: Flags, { stdout }: CliContext): void {
  if (taskOf(json) !== null) throw new InvalidInputError(`${path}: --print is for recipes of the diffusion network`);
  const recipe = parseRecipe(json, path, origins);
  stdout(
    flags.json
      ? `${JSON.stringify({ recipe: path, values: resolvedValues(recipe, origins) })}\n`
      : resolvedYaml(recipe, origins),
  );
}

async function plan({ json, path, origins }: ComposedRecipe, flags: Flags, { stdout }: CliContext): Promise<void> {
  if (taskOf(json) !== null) throw new InvalidInputError(`${path}: --dry-run is for recipes of the diffusion network`);
  const report = await dryRun(parseRecipe(json, path, origins));
  stdout(flags.json ? `${jsonWithFlags(report)}\n` : dryRunText(report));
  const missing = report.data.checks.filter(({ status }) => status === "missing").length;
  if (missing > 0)
    throw new MiroError(`the data are not ready: ${missing} ${missing === 1 ? "thing is" : "things are"} missing`);
}

async function train(
  { json, path, origins }: ComposedRecipe,
  flags: Omit<Flags, "resume"> & { resume: boolean | number },
  context: CliContext,
): Promise<void> {
  const task = taskOf(json);
  const recipe = task === null ? parseRecipe(json, path, origins) : checkRecipe(task.schema, json, path);
  // Of processes that a launcher has started, the first tells how it goes; all tell what is wrong.
  const first = (rankPlaceOf(process.env)?.rank ?? 0) === 0;
  const progress = new ProgressLine({ isTTY: context.interactive, write: context.stderr });
  const surroundings = {
    output: flags.output ?? join("runs", recipe.name),
    resume: flags.resume,
    allowChanges: flags.allowChanges ?? false,
    signal: context.signal,
    ...(first && { onProgress: (now: Progress) => progress.update(now) }),
    onMessage: (message: string) => progress.say(message),
  };
  const result = await ("kind" in recipe
    ? runTask({ recipe, ...surroundings })
    : runTraining({ recipe, ...surroundings })
  ).finally(() => progress.end());
  if (flags.json && first) context.stdout(`${JSON.stringify(result)}\n`);
  if (!result.finished) {
    if (first) context.stderr(`stopped at step ${result.step}; continue with --resume\n`);
    // Of several processes any may have been asked, not only this one.
    throw new InterruptedError(`stopped at step ${result.step}`);
  }
  if (!flags.json && first) context.stderr(`done: ${result.exported ?? result.checkpoint}\n`);
}
