/** `miro train`: trains a model by a recipe, or shows what the recipe is. */
import "./extensions.js";
import { join } from "node:path";
import { z } from "zod";
import { InterruptedError, InvalidInputError, invalid } from "../errors.js";
import { message, option } from "../message.js";
import { wholeNumber } from "../numbers.js";
import { field, flag } from "../options.js";
import { loadScorerModules, scorerModules } from "../rewards/scorer-modules.js";
import { shellWord } from "../shell-word.js";
import { missing } from "../training/batches/finding.js";
import { type Progress, ProgressLine } from "../training/logging/logging.js";
import { runTraining } from "../training/loop/run.js";
import { runTask } from "../training/loop/run-task.js";
import { taskOf } from "../training/loop/tasks.js";
import { minutes } from "../training/loop/time-budget.js";
import { blocking, dryRun } from "../training/planning/dry-run.js";
import { dryRunTask } from "../training/planning/dry-run-task.js";
import { proposeTraining } from "../training/planning/propose.js";
import { rankPlaceOf } from "../training/process-group/launch-environment.js";
import { checkRecipe } from "../training/recipes/checked-yaml.js";
import { parseRecipe } from "../training/recipes/recipe.js";
import { type ComposedRecipe, composeRecipe } from "../training/recipes/recipe-source.js";
import { resolvedValues, resolvedYaml } from "../training/recipes/resolved-recipe.js";
import { declare } from "./add-options.js";
import { recipeArguments } from "./common-options.js";
import type { CliContext, Register } from "./context.js";
import { dryRunText, refuseBlocked, taskDryRunText } from "./dry-run-text.js";
import { jsonWithFlags } from "./flag-names.js";
import { helpText } from "./help-text.js";
import { proposalText } from "./proposal-text.js";
import { keysText, recipeKinds } from "./recipe-keys.js";

const EXAMPLES = `
Examples:
  miro train emoji
  miro train emoji trainer.batch_size=64 optimizer.lr=1e-3 --output runs/try-2
  miro train emoji --output runs/try-2 --resume
  miro train emoji --output runs/try-2 --resume 1000        from the checkpoint of step 1000; later ones are set aside
  miro train emoji --devices 2                              two processes share each batch
  miro train mine.yaml --plan                               batch, steps, schedule and time for these data and this machine
  miro train multi_cad_synth data.dir=/data --print         every value, and where it comes from
  miro train multi_cad_synth trainer.devices=8 --dry-run    parameters, memory, FLOPs, and all that would stop the run
  miro train emoji trainer.max_minutes=30                   stops after half an hour as at its end, with a checkpoint and a model
  miro train clip_score_cad extends=base/as_upstream        another recipe on top

  miro train --keys                                         every key that a recipe can have (docs/recipes.md)

A recipe is a path, or the name of a file in the folder recipes. Ctrl-C stores a checkpoint and stops; --resume continues from it
exactly. A second Ctrl-C stops at once; the last stored checkpoint stays. The run's folder holds recipe.yaml, log.jsonl, samples/,
checkpoints/ and, at the end, export/. miro generate --model RUN draws with the newest checkpoint at any time. docs/training.md
tells more.
`;

const text = z.string().optional();

const schema = z.strictObject({
  recipe: field(text, {
    expected: "the name or file of a recipe",
    help: "name or file of the recipe",
    flag: "[recipe]",
  }),
  overrides: recipeArguments.overrides,
  output: field(text, {
    expected: "a folder",
    help: "folder of the run",
    flag: "--output <dir>",
    writes: "folder",
    otherwise: "runs/NAME",
  }),
  device: field(text, {
    expected: "a device",
    help: "cpu, cuda or cuda:N: short for trainer.device=NAME; also for recipes of the parts",
    flag: "--device <name>",
    otherwise: "the recipe's",
  }),
  devices: field(text, {
    expected: "an integer",
    help: "processes, one for each device, that share each batch: short for trainer.devices=N",
    flag: "--devices <n>",
    otherwise: "the recipe's",
  }),
  resume: field(z.union([z.boolean(), z.string()]).default(false), {
    expected: "a step",
    help: "continue from the newest checkpoint in the folder of the run; with a step from the checkpoint of that step",
    flag: "--resume [step]",
    otherwise: "begin at step 0",
  }),
  allowChanges: flag(
    "continue even though the recipe has changed in values that decide what the run computes",
    "--allow-changes",
  ),
  skipBrokenShards: flag(
    "train without shards that were cut: short for data.skip_broken_shards=true",
    "--skip-broken-shards",
  ),
  scorerModules,
  keys: flag("print every key that a recipe can have, and do nothing else", "--keys"),
  print: flag("print the whole recipe with the origin of every value, and do nothing else", "--print"),
  plan: flag(
    "propose batch, threads, steps, schedule and their time from the data and this machine, as overrides to paste; a few steps are made to measure them",
    "--plan",
  ),
  dryRun: flag(
    "count parameters, memory and arithmetic, find all that would stop the run, and do nothing else",
    "--dry-run",
  ),
  json: flag("print the result as JSON", "--json"),
});

type Options = z.output<typeof schema>;
/** With the step that `--resume` names. */
type Resolved = Omit<Options, "resume"> & { resume: boolean | number };

export const register: Register = (command, context) => {
  declare(command, schema, async (options) => {
    const { recipe, overrides, device, devices, skipBrokenShards, print, dryRun } = options;
    const modules = await loadScorerModules(options.scorerModules);
    const { resume, words } = resumeOf(options.resume, recipe === undefined ? [] : [recipe, ...overrides]);
    const [name, ...values] = words;
    if (options.keys) return printKeys(name, options, context);
    if (name === undefined) throw invalid("recipe", "the name or file of a recipe", message`none`);
    const given = [
      ...values,
      ...(device === undefined ? [] : [`trainer.device=${device}`]),
      ...(devices === undefined ? [] : [`trainer.devices=${devices}`]),
      ...(skipBrokenShards ? ["data.skip_broken_shards=true"] : []),
    ];
    const composed = composeRecipe(name, given);
    if (print) printRecipe(composed, options, context);
    else if (options.plan) await propose({ name, values: given }, composed, { ...options, resume }, context);
    else if (dryRun) await plan(composed, { ...options, resume }, context);
    else await train(composed, { ...options, scorerModules: modules, resume }, context);
  })
    .usage("[options] <recipe> [key=value...]")
    .addHelpText("after", helpText(EXAMPLES));
};

/**
 * With `--resume` a word of digits is the step of a checkpoint, wherever it stands: neither a recipe nor a value is
 * written so. Any other word behind `--resume` is the recipe or a value.
 */
function resumeOf(flag: boolean | string, given: string[]): { resume: boolean | number; words: string[] } {
  const isStep = (word: string) => /^\d{1,15}$/.test(word);
  if (flag === false) return { resume: false, words: given };
  if (flag === "") throw invalid("--resume", "the step of a checkpoint", flag);
  const behind = typeof flag === "string" ? [flag] : [];
  const words = /^[\w.]+=/.test(behind[0] ?? "") ? [...given, ...behind] : [...behind, ...given];
  const steps = words.filter(isStep);
  if (steps.length > 1) throw invalid("resume", "one step", message`${steps.join(" and ")}`);
  return { resume: steps.length === 0 ? true : Number(steps[0]), words: words.filter((word) => !isStep(word)) };
}

/** The keys of a recipe's kind; without a recipe those of the diffusion network. */
function printKeys(name: string | undefined, flags: Options, { stdout }: CliContext): void {
  const { kind = null } = name === undefined ? {} : composeRecipe(name).json;
  const found = recipeKinds().find((one) => one.kind === kind);
  if (found === undefined) throw invalid("kind", "the kind of a recipe", kind);
  stdout(flags.json ? `${JSON.stringify(found)}\n` : keysText(found));
}

function printRecipe({ json, path, origins }: ComposedRecipe, flags: Options, { stdout }: CliContext): void {
  if (taskOf(json, path) !== null)
    throw new InvalidInputError(`${path}: --print is for recipes of the diffusion network`);
  const recipe = parseRecipe(json, path, origins);
  stdout(
    flags.json
      ? `${JSON.stringify({ recipe: path, values: resolvedValues(recipe, origins) })}\n`
      : resolvedYaml(recipe, origins),
  );
}

async function plan(
  { json, path, origins }: ComposedRecipe,
  { output, resume, allowChanges, json: asJson }: Resolved,
  { stdout }: CliContext,
): Promise<void> {
  const task = taskOf(json, path);
  if (task !== null) {
    const report = await dryRunTask(checkRecipe(task.schema, json, path, origins), { output, resume, allowChanges });
    stdout(asJson ? `${jsonWithFlags(report)}\n` : taskDryRunText(report));
    refuseBlocked("the run", missing(report.start));
    return;
  }
  const recipe = parseRecipe(json, path, origins);
  const report = await dryRun(recipe, { output: output ?? folderOf(recipe), resume, allowChanges });
  stdout(asJson ? `${jsonWithFlags(report)}\n` : dryRunText(report));
  refuseBlocked("the run", blocking(report));
}

/** Where the run of a recipe lies unless another folder is named. */
function folderOf({ name }: { name: string }): string {
  return join("runs", name);
}

/** Prints what to add to a recipe, and the command that trains so. */
async function propose(
  { name, values }: { name: string; values: readonly string[] },
  { json, path, origins }: ComposedRecipe,
  flags: Resolved,
  { stdout, note, signal }: CliContext,
): Promise<void> {
  if (taskOf(json, path) !== null)
    throw new InvalidInputError(`${path}: --plan is for recipes of the diffusion network`);
  const output = flags.output ?? folderOf(parseRecipe(json, path, origins));
  const proposal = await proposeTraining({
    start: { output, resume: flags.resume, allowChanges: flags.allowChanges },
    compose(overrides) {
      const composed = composeRecipe(name, [...values, ...overrides]);
      return parseRecipe(composed.json, composed.path, composed.origins);
    },
    isGiven: (key) => origins.get(key) === "command line",
    signal,
    onMessage: (text) => note(`${text}\n`),
  });
  const overrides = Object.entries(proposal.overrides).map(([key, value]) => `${key}=${value}`);
  const folder = flags.output === undefined ? [] : ["--output", flags.output];
  const command = ["miro", "train", ...[name, ...values, ...overrides, ...folder].map(shellWord)].join(" ");
  const { report, ...rest } = proposal;
  stdout(flags.json ? `${jsonWithFlags({ ...rest, command, ...report })}\n` : proposalText(proposal, command));
  refuseBlocked("the run", blocking(report));
}

async function train({ json, path, origins }: ComposedRecipe, flags: Resolved, context: CliContext): Promise<void> {
  const task = taskOf(json, path);
  const recipe = task === null ? parseRecipe(json, path, origins) : checkRecipe(task.schema, json, path, origins);
  // Of processes that a launcher has started, the first tells how it goes; all tell what is wrong.
  const first = (rankPlaceOf(process.env)?.rank ?? 0) === 0;
  const progress = new ProgressLine({
    isTTY: context.interactive,
    write: context.note,
    // As wide as it is now: windows change their size.
    get columns() {
      return process.stderr.columns || 80;
    },
  });
  const surroundings = {
    output: flags.output ?? folderOf(recipe),
    resume: flags.resume,
    allowChanges: flags.allowChanges,
    scorerModules: flags.scorerModules,
    signal: context.signal,
    ...(first && { onProgress: (now: Progress) => progress.update(now) }),
    onMessage: (message: string) => progress.say(message),
    onWarning: (message: string) => {
      progress.end();
      context.stderr(`${message}\n`);
    },
  };
  const result = await ("kind" in recipe
    ? runTask({ recipe, ...surroundings })
    : runTraining({ recipe, ...surroundings })
  )
    .catch((error: unknown) => {
      // The first tells that all were stopped.
      throw context.signal.aborted && !first ? new InterruptedError("", { cause: error }) : error;
    })
    .finally(() => progress.end());
  if (flags.json && first) context.stdout(`${JSON.stringify(result)}\n`);
  if (!result.finished && result.outOfTime !== true) {
    // Of several processes any may have been asked, not only this one; the first tells it.
    throw new InterruptedError(
      first ? message`stopped at step ${result.step}; continue with ${option("resume", true)}` : "",
    );
  }
  if (flags.json || !first) return;
  const { maxSteps, maxMinutes } = recipe.trainer;
  if (result.outOfTime)
    context.note(
      `stopped after ${minutes(maxMinutes!)}, at step ${wholeNumber(result.step)} of ${wholeNumber(maxSteps)}; continue with --resume\n`,
    );
  context.note(`done: ${result.exported ?? result.checkpoint}\n`);
}
