/**
 * What `miro launch` submits: the recipe is put together and checked as `miro train` does it, for every task of an
 * array, and all paths are made absolute, before anything is written.
 */
import { createHash } from "node:crypto";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { InvalidInputError, invalid } from "../../errors.js";
import { about, message, option } from "../../message.js";
import { field, flag, type OptionsOf, parseOptions } from "../../options.js";
import { taskOf } from "../loop/tasks.js";
import { type Environment, readEnvironment, siteSettings } from "../recipes/environment.js";
import { parseRecipe, type Recipe, recipeToYaml } from "../recipes/recipe.js";
import { composeRecipe } from "../recipes/recipe-source.js";
import { arrayTasks } from "./array.js";
import type { Job } from "./job-script.js";
import { limitSeconds } from "./time-limit.js";

const count = z.int().positive();

const name = z.string().min(1).optional();

/** Options of {@link planJob}. */
export const launchOptionsSchema = z.strictObject({
  /** Name or file of the recipe. */
  recipe: field(z.string().min(1), {
    expected: "the name or file of a recipe",
    help: "name or file of the recipe",
    flag: "<recipe>",
  }),
  /** Values that replace those of the recipe, as `key=value`. */
  overrides: field(z.array(z.string()).default([]), {
    expected: "key=value",
    help: "values that replace those of the recipe",
    flag: "[key=value...]",
  }),
  /** Folder of the run. Default: runs/NAME. */
  output: field(name, {
    expected: "a path",
    help: "folder of the run",
    flag: "--output <dir>",
    otherwise: "runs/NAME",
  }),
  /** Partition to submit to. Default: MIRO_SLURM_PARTITION. */
  partition: field(name, {
    expected: "the name of a partition",
    help: "partition to submit to",
    flag: "--partition <name>",
    otherwise: "MIRO_SLURM_PARTITION",
  }),
  /** Time limit of the job, as minutes, H:M:S or D-H:M:S. Default: the partition's. */
  time: field(
    z
      .string()
      .refine((text) => limitSeconds(text) !== null)
      .optional(),
    {
      expected: "a time above 0 as minutes, H:M:S or D-H:M:S",
      help: "time limit of the job, as minutes, H:M:S or D-H:M:S",
      flag: "--time <limit>",
      otherwise: "the partition's",
    },
  ),
  /** Seconds before the limit at which the run stores a checkpoint and stops. */
  signalBefore: field(count.max(65535).default(180), {
    expected: "seconds from 1 to 65535",
    help: "when the run stores a checkpoint and stops before the limit",
    flag: "--signal-before <seconds>",
  }),
  /** CPUs, and threads, of each process. */
  cpusPerTask: field(count.default(8), {
    expected: "an integer of at least 1",
    help: "CPUs, and threads, of each process",
    flag: "--cpus-per-task <n>",
  }),
  /** An array with one task for each value, as `key=value,value`; of several, for each combination. */
  array: field(z.array(z.string()).default([]), {
    expected: "key=value,value,…",
    help: "an array with one task for each value; repeat it for all combinations",
    flag: "--array <key=values>",
  }),
  /** Tasks of the array that run at the same time. */
  maxSimultaneous: field(count.optional(), {
    expected: "an integer of at least 1",
    help: "tasks of the array that run at the same time",
    flag: "--max-simultaneous <n>",
  }),
  /** What to wait for, as `afterok:JOB`. */
  dependency: field(name, {
    expected: "a dependency of sbatch",
    help: "what to wait for, as afterok:JOB",
    flag: "--dependency <what>",
  }),
  /** Other options of sbatch, as `--account=x`. */
  sbatch: field(z.array(z.string().regex(/^-[^\r\n]*$/)).default([]), {
    expected: "an option of sbatch, as --account=x",
    help: "another option of sbatch; repeat it for more",
    flag: "--sbatch <option>",
  }),
  /** Continue even though the recipe has changed in values that decide what the run computes. */
  allowChanges: flag(
    "continue even though the recipe has changed in values that decide what the run computes",
    "--allow-changes",
  ),
});

/** Options of {@link planJob}, defaults left out. */
export type LaunchOptions = OptionsOf<typeof launchOptionsSchema>;

/** A job, and the files that it needs. */
export interface JobPlan {
  job: Job;
  /** The folder that its script is kept in. */
  folder: string;
  /**
   * The recipe of each task as it is now: what is edited while the job waits or runs does not reach it. Path → YAML.
   */
  recipes: ReadonlyMap<string, string>;
}

/**
 * Checks everything and decides what is submitted; writes nothing.
 * @throws InvalidInputError naming the option, or the place in the recipe, that is wrong
 */
export function planJob(input: LaunchOptions, environment: Environment = readEnvironment()): JobPlan {
  const options = parseOptions(launchOptionsSchema, input);
  const { signalBefore, time, array, maxSimultaneous, overrides } = options;
  const limit = time === undefined ? null : limitSeconds(time);
  if (limit !== null && signalBefore >= limit)
    throw invalid("signalBefore", message`less than the ${limit} seconds of ${option("time")}`, signalBefore);
  if (maxSimultaneous !== undefined && array.length === 0)
    throw new InvalidInputError(message`${about("maxSimultaneous")}: needs ${option("array")}`);

  const tasks = arrayTasks(array).map((task) => {
    const words = [...overrides, ...task.overrides];
    return { ...task, words, recipe: readRecipe(options.recipe, words, environment) };
  });
  const { recipe } = tasks[0]!;
  const size = sizeOf(recipe);
  const other = tasks.find((task) => sizeOf(task.recipe) !== size);
  if (other !== undefined)
    throw new InvalidInputError(
      message`${about("array")}: all tasks of an array get the same machines; ${tasks[0]!.words.join(" ")} asks for ${size}, ${other.words.join(" ")} for ${sizeOf(other.recipe)}`,
    );

  const site = siteSettings(environment);
  const partition = options.partition ?? site.slurmPartition;
  if (partition === undefined)
    throw new InvalidInputError(
      message`${about("partition")}: missing; name one, or set MIRO_SLURM_PARTITION in the environment or .env`,
    );
  const output = resolve(options.output ?? join("runs", recipe.name));
  const folder = join(output, "slurm");
  const { devices, numNodes, device } = recipe.trainer;
  const recipes = tasks.map((task) => frozenRecipe(folder, task.recipe));
  return {
    folder,
    recipes: new Map(recipes.map(({ path, text }) => [path, text])),
    job: {
      name: recipe.name,
      partition,
      nodes: numNodes,
      tasksPerNode: devices,
      cpusPerTask: options.cpusPerTask,
      gpusPerNode: device.startsWith("cuda") ? devices : 0,
      time,
      signalBefore,
      dependency: options.dependency,
      sbatch: options.sbatch,
      maxSimultaneous,
      logs: resolve(site.slurmOutputDir),
      workingDirectory: resolve("."),
      environmentFile: join(folder, "environment.sh"),
      node: process.execPath,
      miro: fileURLToPath(new URL("../../../bin/miro.mjs", import.meta.url)),
      isArray: array.length > 0,
      runs: tasks.map((task, i) => ({
        output: join(output, task.folder),
        arguments: [recipes[i]!.path, ...(options.allowChanges ? ["--allow-changes"] : [])],
      })),
    },
  };
}

function readRecipe(name: string, overrides: readonly string[], environment: Environment): Recipe {
  const { json, path, origins } = composeRecipe(name, overrides, environment);
  if (taskOf(json) !== null)
    throw new InvalidInputError(`${path}: miro launch is for recipes of the diffusion network`);
  return parseRecipe(json, path, origins);
}

/**
 * A recipe with all its values, in a file named after its content, so that no later job replaces that of a waiting one.
 */
function frozenRecipe(folder: string, recipe: Recipe): { path: string; text: string } {
  const text = recipeToYaml(recipe);
  const digest = createHash("sha256").update(text).digest("hex").slice(0, 12);
  return { path: join(folder, `recipe-${digest}.yaml`), text };
}

/** What a recipe asks of a cluster. */
function sizeOf({ trainer: { devices, numNodes, device } }: Recipe): string {
  return `${numNodes} × ${devices} of ${device.replace(/:.*/, "")}`;
}
