/**
 * What a site sets for all jobs: the variables that `sbatch` itself reads (`SBATCH_ACCOUNT`), of the process or of
 * `.env`. For `sbatch` its variables override what a script says, so that a flag of `miro launch` would have no effect
 * where one is set. Therefore they are read here, where flags override them, and `sbatch` does not get them.
 */
import type { z } from "zod";
import { describe, InvalidInputError } from "../../errors.js";
import { expectedOf } from "../../options.js";
import type { Environment } from "../recipes/environment.js";
import { launchOptionsSchema } from "./launch-options.js";

/** The variables of each option, the first that is set wins. */
const VARIABLES = {
  partition: ["MIRO_SLURM_PARTITION", "SBATCH_PARTITION"],
  account: ["SBATCH_ACCOUNT"],
  qos: ["SBATCH_QOS"],
  constraint: ["SBATCH_CONSTRAINT"],
  mem: ["SBATCH_MEM_PER_NODE", "SBATCH_MEM"],
  gpusPerNode: ["SBATCH_GPUS_PER_NODE"],
  gres: ["SBATCH_GRES"],
  time: ["SBATCH_TIMELIMIT"],
  prologue: ["MIRO_SLURM_PROLOGUE"],
} as const satisfies Partial<Record<keyof typeof launchOptionsSchema.shape, readonly string[]>>;

/** Options that a site may set. */
export type SiteOptions = Pick<z.output<typeof launchOptionsSchema>, keyof typeof VARIABLES>;

/** Variables that would override what every script says by itself. */
const SAID_BY_SCRIPT = ["ARRAY_INX", "JOB_NAME", "NO_REQUEUE", "OPEN_MODE", "OUTPUT", "REQUEUE", "SIGNAL"];

/** The variables that `sbatch` must not read: a script has what they say. */
const READ_HERE = new Set<string>([
  ...Object.values(VARIABLES).flat(),
  ...SAID_BY_SCRIPT.map((name) => `SBATCH_${name}`),
]);

/**
 * Options with those of the site where none is given. GPUs are asked for in one way: a flag for one of the two replaces
 * the variables of both.
 * @throws InvalidInputError naming the variable whose value is wrong, and where it was set
 */
export function withSiteOptions<T extends SiteOptions>(given: T, environment: Environment): T {
  const options: T = { ...given };
  const asksForGpus = given.gpusPerNode !== undefined || given.gres !== undefined;
  for (const [name, variables] of Object.entries(VARIABLES) as [keyof SiteOptions, readonly string[]][]) {
    const isForGpus = name === "gpusPerNode" || name === "gres";
    if (given[name] !== undefined || (isForGpus && asksForGpus)) continue;
    options[name] = siteValue(name, variables, environment) as T[typeof name];
  }
  return options;
}

function siteValue(option: keyof SiteOptions, variables: readonly string[], environment: Environment) {
  const schema = launchOptionsSchema.shape[option];
  for (const name of variables) {
    const variable = environment(name);
    if (variable === undefined) continue;
    const { success, data } = schema.safeParse(variable.value);
    if (success) return data;
    throw new InvalidInputError(
      `${variable.origin}: ${name}: expected ${expectedOf(schema)}, received ${describe(variable.value)}`,
    );
  }
  return undefined;
}

/**
 * The variables that `sbatch` gets. Inside of another job those of SLURM describe that job; srun would take them for
 * those of the new one.
 */
export function sbatchEnvironment(processVariables: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(processVariables).filter(
      ([name]) => (!name.startsWith("SLURM_") || name === "SLURM_CONF") && !READ_HERE.has(name),
    ),
  );
}
