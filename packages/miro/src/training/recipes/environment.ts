/**
 * Settings of a site: variables of the process, and those of the file `.env` in the working directory for whatever the
 * process does not set. The names are upstream's; `.env.example` lists them.
 *
 * `.env` holds lines `NAME=value`, which a shell can source as well: comments, empty lines and `export` are allowed, a
 * value with anything but letters, digits and `_ . , : / + @ % = ~ -` stands in quotes. What a shell would expand is
 * refused, so that both read the same.
 *
 * The file may be another program's too, which reads it by rules of its own: only the lines whose names are asked for
 * are checked.
 */
import { existsSync } from "node:fs";
import { InvalidInputError } from "../../errors.js";
import { linesOf, readTextFile } from "../../files/text-file.js";

/** A variable and where it was set: `environment` or `.env:LINE`. */
export interface Variable {
  value: string;
  origin: string;
}

/** Variables by name. */
export type Environment = (name: string) => Variable | undefined;

/**
 * The variables of the process and of a `.env` file; those of the process win. Variables that are set to nothing count
 * as not set.
 * @param path the file; it need not exist
 * @throws InvalidInputError, when a variable is asked for, naming the line of it that is not understood
 */
export function readEnvironment(path = ".env", processVariables: NodeJS.ProcessEnv = process.env): Environment {
  const own = readEnvFile(path);
  return (name) => {
    const value = processVariables[name];
    if (value) return { value, origin: "environment" };
    const line = own.get(name)?.();
    return line?.value ? line : undefined;
  };
}

/** Names that a job takes from the process and from `.env`: the settings of this program, and where libtorch is. */
const OWN = /^MIRO_\w+$|^LIBTORCH$/;
/** Names that a job takes from `.env` as well: those of the Hub, of proxies and of the links between machines. */
const USED =
  /^(?:HF_HOME|HF_ENDPOINT|HF_TOKEN|HF_TOKEN_PATH|HF_HUB_[A-Z_]+|(?:HTTPS?|ALL|NO)_PROXY|(?:NCCL|GLOO)_[A-Z0-9_]+)$/i;

/**
 * What a job on another machine takes along: of the variables of a `.env` file those that this program uses, and of the
 * process those whose names begin with `MIRO_`, and `LIBTORCH`. Those of the process win. So a job that begins again
 * later does so with the settings it was submitted with. Other lines of `.env` may be another program's passwords: a
 * job's folder gets no copy of them.
 */
export function jobVariables(path = ".env", processVariables: NodeJS.ProcessEnv = process.env): Map<string, string> {
  const environment = readEnvironment(path, processVariables);
  const ofFile = [...readEnvFile(path).keys()].filter((name) => OWN.test(name) || USED.test(name));
  const ofProcess = Object.keys(processVariables).filter((name) => OWN.test(name));
  return new Map(
    [...new Set([...ofFile, ...ofProcess])].sort().flatMap((name) => {
      const variable = environment(name);
      return variable === undefined ? [] : [[name, variable.value]];
    }),
  );
}

/** Variables of the system and of job schedulers that say where and who, and hold no secrets. */
const PLACES = new Set(
  "HOME USER TMPDIR SCRATCH WORK SLURM_JOB_ID SLURM_JOB_NAME SLURM_ARRAY_TASK_ID SLURM_TMPDIR HF_HOME".split(" "),
);

/**
 * Whether a recipe may hold a variable. One from elsewhere must not carry this machine's secrets into its prints and
 * logs.
 */
export function mayBeInRecipe(name: string): boolean {
  return name.startsWith("MIRO_") || PLACES.has(name);
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

const start = /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)/;
const plain = /^[\w.,:/+@%=~-]*$/;

/** The variables of a file by name; each is read, and refused, when it is asked for. */
function readEnvFile(path: string): Map<string, () => Variable> {
  const variables = new Map<string, () => Variable>();
  if (!existsSync(path)) return variables;
  const lines = linesOf(readTextFile(path));
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]!;
    const [head, name] = start.exec(line) ?? [];
    if (head === undefined || name === undefined) continue;
    const origin = `${path}:${i + 1}`;
    const rest = line.slice(head.length);
    variables.set(name, () => {
      if (!rest.startsWith("="))
        throw new InvalidInputError(`${origin}: expected NAME=value for ${name}, without spaces`);
      return { value: unquoted(rest.slice(1), `${origin}: ${name}`), origin };
    });
    // A value in quotes may go on over several lines, which are no variables of their own.
    const open = /^\s*=\s*(["'`])/.exec(rest);
    if (open === null || rest.indexOf(open[1]!, open[0].length) >= 0) continue;
    let end = i + 1;
    while (end < lines.length && !lines[end]!.includes(open[1]!)) end++;
    if (end < lines.length) i = end;
  }
  return variables;
}

function unquoted(written: string, where: string): string {
  const quoted = /^\s*(?:'([^']*)'|"([^"$`\\]*)")(?:\s+#|\s*$)/.exec(written);
  if (quoted !== null) return quoted[1] ?? quoted[2]!;
  const comment = written.search(/\s#/);
  const text = (comment < 0 ? written : written.slice(0, comment)).trim();
  if (plain.test(text)) return text;
  throw new InvalidInputError(`${where}: put the value in single quotes; nothing is expanded in it`);
}
