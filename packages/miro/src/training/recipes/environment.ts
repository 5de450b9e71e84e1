/**
 * Settings of a site: variables of the process, and those of the file `.env` in the working directory for whatever the process does not
 * set. The names are upstream's; `.env.example` lists them.
 *
 * `.env` holds lines `NAME=value`, which a shell can source as well: comments, empty lines and `export` are allowed, a value with anything
 * but letters, digits and `_ . , : / + @ % = ~ -` stands in quotes. What a shell would expand is refused, so that both read the same.
 */
import { readFileSync } from "node:fs";
import { InvalidInputError, MiroError, systemReason } from "../../errors.js";

/** A variable and where it was set: `environment` or `.env:LINE`. */
export interface Variable {
  value: string;
  origin: string;
}

/** Variables by name. */
export type Environment = (name: string) => Variable | undefined;

/**
 * The variables of the process and of a `.env` file; those of the process win. Variables that are set to nothing count as not set.
 * @param path the file; it need not exist
 * @throws InvalidInputError naming the line that is not understood
 */
export function readEnvironment(path = ".env", processVariables: NodeJS.ProcessEnv = process.env): Environment {
  const own = readEnvFile(path);
  return (name) => {
    const value = processVariables[name];
    if (value) return { value, origin: "environment" };
    const line = own.get(name);
    return line?.value ? line : undefined;
  };
}

/**
 * What a job on another machine takes along: the variables of a `.env` file, those of the process whose names begin with `MIRO_`, and
 * `LIBTORCH`. Those of the process win. So a job that begins again later does so with the settings it was submitted with.
 */
export function jobVariables(path = ".env", processVariables: NodeJS.ProcessEnv = process.env): Map<string, string> {
  const environment = readEnvironment(path, processVariables);
  const names = [
    ...readEnvFile(path).keys(),
    ...Object.keys(processVariables).filter((name) => /^MIRO_\w+$|^LIBTORCH$/.test(name)),
  ];
  return new Map(
    [...new Set(names)].sort().flatMap((name) => {
      const variable = environment(name);
      return variable === undefined ? [] : [[name, variable.value]];
    }),
  );
}

/** What is known of the machines at a site. */
export interface SiteSettings {
  /** `MIRO_DATA_DIR`: folder with `cc12m/train`, `cc12m/val` and `laion_aesthetics_6.0`. */
  dataDir: string | undefined;
  /** `MIRO_SLURM_PARTITION`: where jobs are submitted to. */
  slurmPartition: string | undefined;
  /** `MIRO_SLURM_OUTPUT_DIR`: folder of the jobs' logs, by default `./slurm-logs`. */
  slurmOutputDir: string;
}

/** The settings of a site from its variables. */
export function siteSettings(environment: Environment = readEnvironment()): SiteSettings {
  return {
    dataDir: environment("MIRO_DATA_DIR")?.value,
    slurmPartition: environment("MIRO_SLURM_PARTITION")?.value,
    slurmOutputDir: environment("MIRO_SLURM_OUTPUT_DIR")?.value ?? "./slurm-logs",
  };
}

const assignment = /^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$/;
const plain = /^[\w.,:/+@%=~-]*$/;

function readEnvFile(path: string): Map<string, Variable> {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return new Map();
    throw new MiroError(`${path}: ${systemReason(error)}`);
  }
  const variables = new Map<string, Variable>();
  text.split(/\r?\n/).forEach((raw, i) => {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) return;
    const origin = `${path}:${i + 1}`;
    const [, name, written] = assignment.exec(line) ?? [];
    if (name === undefined || written === undefined)
      throw new InvalidInputError(`${origin}: expected NAME=value or a comment`);
    variables.set(name, { value: unquoted(written, `${origin}: ${name}`), origin });
  });
  return variables;
}

function unquoted(written: string, where: string): string {
  const text = written.replace(/\s+#.*$/, "").trim();
  const single = /^'([^']*)'$/.exec(text)?.[1];
  if (single !== undefined) return single;
  const double = /^"([^"$`\\]*)"$/.exec(text)?.[1];
  if (double !== undefined) return double;
  if (plain.test(text)) return text;
  throw new InvalidInputError(`${where}: put the value in single quotes; nothing is expanded in it`);
}
