/**
 * What `miro launch` submits: the recipe is put together and checked as `miro train` does it, for every task of an
 * array, and all paths are made absolute, before anything is written.
 */
import { createHash, scryptSync } from "node:crypto";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { z } from "zod";
import { InvalidInputError, invalid } from "../../errors.js";
import { about, message, option } from "../../message.js";
import { counted } from "../../numbers.js";
import { parseOptions } from "../../options.js";
import { shellWord } from "../../shell-word.js";
import { sourceOf } from "../batches/sources.js";
import { taskOf } from "../loop/tasks.js";
import { type Environment, jobVariables, readEnvironment, siteSettings } from "../recipes/environment.js";
import { parseRecipe, type Recipe, recipeToJson, recipeToYaml } from "../recipes/recipe.js";
import { composeRecipe } from "../recipes/recipe-source.js";
import { arrayTasks } from "./array.js";
import { foldersIn, planContainer } from "./container.js";
import type { Job } from "./job-script.js";
import { type LaunchOptions, launchOptionsSchema } from "./launch-options.js";
import { readPrologue } from "./prologue.js";
import { withSiteOptions } from "./site-options.js";
import { planStaging } from "./staging.js";
import { limitSeconds } from "./time-limit.js";

export { type LaunchOptions, launchOptionsSchema } from "./launch-options.js";

type CheckedOptions = z.output<typeof launchOptionsSchema>;

/** A job, and the files that it needs. */
export interface JobPlan {
  job: Job;
  /** The folder that its script, and what the script refers to, is kept in. */
  folder: string;
  /** Whether that folder is for people, who edit the script and submit it themselves. */
  isForEditing: boolean;
  /**
   * The recipe of each task as it is now: what is edited while the job waits or runs does not reach it. Path → YAML.
   */
  recipes: ReadonlyMap<string, string>;
  /** The variables of the job, as a file for bash; they may be secrets. The same holds for it. */
  environment: { path: string; text: string };
  /** What each task trains, and where. */
  tasks: readonly { recipe: Recipe; output: string }[];
}

/** A task of the array. */
interface PlannedTask {
  /** Its folder in that of the run. */
  folder: string;
  /** The overrides of its recipe. */
  words: string[];
  recipe: Recipe;
}

/**
 * Checks everything and decides what is submitted; writes nothing.
 * @param variables those of the site that the job gets
 * @throws InvalidInputError naming the option, or the place in the recipe, that is wrong
 */
export function planJob(
  input: LaunchOptions,
  environment: Environment = readEnvironment(),
  variables: ReadonlyMap<string, string> = jobVariables(),
): JobPlan {
  const options = withSiteOptions(parseOptions(launchOptionsSchema, input), environment);
  const { time, array, maxSimultaneous, stageTo } = options;
  checkTimes(options);
  checkContainerOptions(options);
  const tasks = planTasks(options, environment);
  const { recipe } = tasks[0]!;
  const output = resolve(options.output ?? join("runs", recipe.name));
  const folder = options.write === undefined ? join(output, "slurm") : resolve(options.write);
  const workingDirectory = resolve(".");
  const { devices, numNodes, device } = recipe.trainer;
  const recipes = tasks.map((task) => frozenRecipe(folder, task.recipe));
  const { networkInterface } = options;
  const interfaces =
    networkInterface === undefined
      ? {}
      : { NCCL_SOCKET_IFNAME: networkInterface, GLOO_SOCKET_IFNAME: networkInterface };
  const frozen = frozenEnvironment(folder, new Map([...variables, ...Object.entries(interfaces)]));
  const needed = () => [workingDirectory, output, folder, ...foldersIn(tasks.map((task) => recipeToJson(task.recipe)))];
  return {
    folder,
    isForEditing: options.write !== undefined,
    recipes: new Map(recipes.map(({ path, text }) => [path, text])),
    environment: frozen,
    tasks: tasks.map(({ recipe, folder }) => ({ recipe, output: join(output, folder) })),
    job: {
      name: recipe.name,
      partition: options.partition,
      account: options.account,
      qos: options.qos,
      constraint: options.constraint,
      mem: options.mem,
      nodes: numNodes,
      tasksPerNode: devices,
      cpusPerTask: options.cpusPerTask,
      ...gpuRequest(options, recipe),
      usesGpus: device.startsWith("cuda"),
      time,
      signalBefore: options.signalBefore,
      dependency: options.dependency,
      sbatch: options.sbatch,
      maxSimultaneous,
      logs: resolve(siteSettings(environment).slurmOutputDir),
      workingDirectory,
      environmentFile: frozen.path,
      prologue: options.prologue === undefined ? undefined : readPrologue(options.prologue),
      node: process.execPath,
      miro: fileURLToPath(new URL("../../../bin/miro.mjs", import.meta.url)),
      container:
        options.container === undefined
          ? undefined
          : planContainer(
              { image: options.container, runtime: options.containerRuntime },
              [...needed(), ...foldersIn(environment("HF_HOME")?.value)],
              options.containerMounts,
            ),
      staging: stageTo === undefined ? undefined : planStaging(stageTo, folder),
      isArray: array.length > 0,
      runs: tasks.map((task, i) => ({
        output: join(output, task.folder),
        arguments: [
          recipes[i]!.path,
          ...(options.allowChanges ? ["--allow-changes"] : []),
          ...options.scorerModules.flatMap((file) => ["--scorer-module", resolve(file)]),
        ],
      })),
    },
  };
}

/** The signal comes before the time is over, and a limit of tasks needs an array. */
function checkTimes({ signalBefore, time, array, maxSimultaneous }: CheckedOptions): void {
  const limit = time === undefined ? null : limitSeconds(time);
  if (limit !== null && signalBefore >= limit)
    throw invalid("signalBefore", message`less than the ${limit} seconds of ${option("time")}`, signalBefore);
  if (maxSimultaneous !== undefined && array.length === 0)
    throw new InvalidInputError(message`${about("maxSimultaneous")}: needs ${option("array")}`);
}

/** The tasks of the array with their recipes, all of which get the same machines. */
function planTasks(options: CheckedOptions, environment: Environment): PlannedTask[] {
  const tasks = arrayTasks(options.array).map((task) => {
    const words = [...options.overrides, ...task.overrides];
    return { folder: task.folder, words, recipe: readRecipe(options.recipe, words, environment) };
  });
  const [first] = tasks as [PlannedTask];
  const { data } = first.recipe;
  if (options.stageTo !== undefined && sourceOf(data).needsClone)
    throw new InvalidInputError(
      message`${about("stageTo")}: data.kind ${data.kind} needs files of the clone that are not copied; make shards of such data first (miro render, then miro preprocess), and train on them`,
    );
  const size = sizeOf(first.recipe);
  const other = tasks.find(({ recipe }) => sizeOf(recipe) !== size);
  if (other !== undefined)
    throw new InvalidInputError(
      message`${about("array")}: all tasks of an array get the same machines; ${first.words.join(" ")} asks for ${size}, ${other.words.join(" ")} for ${sizeOf(other.recipe)}`,
    );
  return tasks;
}

/** Options that say something about a container need one, and a container has its own Node and libtorch. */
function checkContainerOptions({ container, containerRuntime, containerMounts, stageTo }: CheckedOptions): void {
  if (container !== undefined && stageTo !== undefined)
    throw new InvalidInputError(
      message`${about("stageTo")}: a container has its own Node and libtorch; leave one of ${option("stageTo")} and ${option("container")} out`,
    );
  if (container !== undefined) return;
  const alone =
    containerRuntime !== undefined ? "containerRuntime" : containerMounts.length > 0 ? "containerMounts" : null;
  if (alone !== null) throw new InvalidInputError(message`${about(alone)}: needs ${option("container")}`);
}

/**
 * What the nodes are asked for: what the user or the site says, else a GPU for each process.
 * @throws InvalidInputError where there would be fewer GPUs than processes
 */
function gpuRequest(
  { gpusPerNode, gres }: Pick<CheckedOptions, "gpusPerNode" | "gres">,
  { trainer: { device, devices } }: Recipe,
): Pick<Job, "gpusPerNode" | "gres"> {
  if (!device.startsWith("cuda")) return { gpusPerNode, gres };
  if (gpusPerNode === undefined && gres === undefined) return { gres: `gpu:${devices}` };
  const gpus = gpusPerNode === undefined ? gpusIn(gres!) : Number(gpusPerNode.split(":").at(-1));
  if (gpus < devices)
    throw invalid(
      gpusPerNode === undefined ? "gres" : "gpusPerNode",
      `at least ${counted(devices, "GPU")}, one for each of trainer.devices`,
      gpusPerNode ?? gres,
    );
  return { gpusPerNode, gres };
}

/** The GPUs among resources: `gpu` is one, `gpu:8` and `gpu:a100:8` are eight. */
function gpusIn(gres: string): number {
  const counts = gres.split(",").map((entry) => {
    const [name, ...rest] = entry.split(":");
    const count = /^\d+$/.test(rest.at(-1) ?? "") ? Number(rest.at(-1)) : 1;
    return name === "gpu" ? count : 0;
  });
  return counts.reduce((sum, count) => sum + count, 0);
}

function readRecipe(name: string, overrides: readonly string[], environment: Environment): Recipe {
  const { json, path, origins } = composeRecipe(name, overrides, environment);
  if (taskOf(json, path) !== null)
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

/**
 * The variables in a file named after its content, so that no later job changes what a waiting one will get. Others may
 * see the name: it comes from a slow hash, by which nobody finds out a short secret.
 */
function frozenEnvironment(folder: string, variables: ReadonlyMap<string, string>): { path: string; text: string } {
  const text = [...variables].map(([name, value]) => `${name}=${shellWord(value)}\n`).join("");
  return { path: join(folder, `environment-${scryptSync(text, "miro launch", 6).toString("hex")}.sh`), text };
}

/** What a recipe asks of a cluster. */
function sizeOf({ trainer: { devices, numNodes, device } }: Recipe): string {
  return `${numNodes} × ${devices} of ${device.replace(/:.*/, "")}`;
}
