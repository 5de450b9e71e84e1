/**
 * Settings files: defaults of options, for all commands or for one.
 *
 * ```yaml
 * # miro.config.yaml
 * device: cuda          # of every command that has --device
 * generate:             # of one command
 *   steps: 30
 *   reward: { sharpness: 0.3 }
 * evaluate:
 *   geneval: { n-samples: 1 }
 * ```
 *
 * Two files are read, if they are there: `miro.config.yaml` in the working folder or the nearest one above that has it,
 * and `config.yaml` of the user (`~/.config/miro/`); the first overrides the second. MIRO_CONFIG names one file
 * instead of both, or none when it is empty. A flag overrides all of them. A value is read as its flag reads it, with
 * the same errors, which name file and line.
 */
import { existsSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import type { Command } from "commander";
import { isObject } from "../arguments.js";
import { InvalidInputError, invalid } from "../errors.js";
import type { YamlFile } from "../files/yaml-file.js";
import { message } from "../message.js";
import { nearest } from "../nearest.js";
import { collects, expectedOf, isFlag } from "../options.js";
import { DeclaredOption } from "./add-options.js";
import { OPTION_NAMES } from "./option-names.generated.js";

/** The name of the file of a project. */
export const PROJECT_FILE = "miro.config.yaml";

/** A settings file that is read. */
interface SettingsFile extends YamlFile {
  path: string;
}

/** One value of a settings file. */
export interface Setting {
  /** The commands that it stands below; none for every command. */
  section: readonly string[];
  /** The name of the flag, without dashes. */
  key: string;
  value: unknown;
  /** `miro.config.yaml:3` */
  place: string;
}

/** Where settings files are, the one that overrides the other first, and what is wrong with one that is left out. */
export function settingsPaths(
  env: NodeJS.ProcessEnv = process.env,
  folder = process.cwd(),
): { paths: string[]; warnings: string[] } {
  if (env.MIRO_CONFIG !== undefined) return { paths: env.MIRO_CONFIG === "" ? [] : [env.MIRO_CONFIG], warnings: [] };
  const home = env.XDG_CONFIG_HOME && isAbsolute(env.XDG_CONFIG_HOME) ? env.XDG_CONFIG_HOME : undefined;
  const user = join(home ?? join(env.HOME || homedir(), ".config"), "miro", "config.yaml");
  const project = projectFile(folder);
  const warnings: string[] = [];
  // A folder above may be everybody's, such as /tmp: what strangers leave there must not steer our commands.
  const isStrange = project !== null && dirname(project) !== resolve(folder) && !isOurs(project);
  if (isStrange)
    warnings.push(`${project} is left out, as it belongs to another user; MIRO_CONFIG=${project} reads it`);
  const paths = [...(project === null || isStrange ? [] : [project]), ...(existsSync(user) ? [user] : [])];
  return { paths, warnings };
}

function projectFile(folder: string): string | null {
  for (let above = resolve(folder); ; above = dirname(above)) {
    const file = join(above, PROJECT_FILE);
    if (existsSync(file)) return file;
    if (dirname(above) === above) return null;
  }
}

function isOurs(path: string): boolean {
  const { uid } = statSync(path);
  return uid === 0 || uid === process.getuid?.();
}

/** The settings files of one run of the program. */
export class Settings {
  /** Where the value of an option comes from, by the option's name. */
  readonly #places = new Map<string, string>();

  /**
   * Gives a command the values that the files have for it and that its flags do not give.
   *
   * @returns what the user should know, also of what stands wrongly in the sections of other commands
   * @throws InvalidInputError naming file and line of what no command has, and of a value that its option cannot read
   */
  async apply(command: Command): Promise<string[]> {
    const { files, warnings } = await readSettings();
    for (const { option, setting } of settingsFor(files, command)) {
      const name = option.attributeName();
      if (command.getOptionValueSource(name) === "cli") continue;
      this.#places.set(name, setting.place);
      command.setOptionValueWithSource(name, readSetting(option, setting.value), "config");
    }
    return [...warnings, ...faultsElsewhere(files, command)];
  }

  /** `miro.config.yaml:3: ` where the parameter that a message is about comes from there, else nothing. */
  placeOf(parameter: string | undefined): string {
    if (parameter === undefined) return "";
    const place = this.#places.get(parameter) ?? this.#places.get(parameter.split(".")[0]!);
    return place === undefined ? "" : `${place}: `;
  }
}

/** The settings files that there are. */
export async function readSettings(): Promise<{ files: SettingsFile[]; warnings: string[] }> {
  const { paths, warnings } = settingsPaths();
  if (paths.length === 0) return { files: [], warnings };
  const { readYamlFile, shownPath } = await import("../files/yaml-file.js");
  const files = paths.map((path) => ({ ...readYamlFile(path, "options and commands", true), path: shownPath(path) }));
  return { files, warnings };
}

/** The path of a command below the program: `["evaluate", "geneval"]`. */
export function commandPath(command: Command): string[] {
  return command.parent === null ? [] : [...commandPath(command.parent), command.name()];
}

/** The commands that do something: this one, or those within it. */
export function leavesOf(command: Command): Command[] {
  return command.commands.length === 0 ? [command] : command.commands.flatMap(leavesOf);
}

/** The options of a command by their names in settings files. */
export function settableOptions(command: Command): Map<string, DeclaredOption> {
  const declared = command.options.filter((option) => option instanceof DeclaredOption);
  return new Map(declared.map((option) => [option.key, option]));
}

/**
 * The options of a command that files give a value for, with the value that counts.
 *
 * @throws InvalidInputError naming file and line of what no command has
 */
export function settingsFor(
  files: readonly SettingsFile[],
  command: Command,
): { option: DeclaredOption; setting: Setting }[] {
  const options = settableOptions(command);
  const found = new Map<string, Setting>();
  for (const file of [...files].reverse())
    for (const setting of valuesFor(file, command)) {
      if (options.has(setting.key)) found.set(setting.key, setting);
      else if (setting.section.length === commandPath(command).length || !isKnown(setting))
        throw unknownSetting(setting);
    }
  return [...found].map(([key, setting]) => ({ option: options.get(key)!, setting }));
}

/** Values of a file that stand for a command: for all of them, for those that it belongs to, and for itself. */
function valuesFor({ json, placeOf }: SettingsFile, command: Command): Setting[] {
  const names = commandPath(command);
  const settings: Setting[] = [];
  let values: unknown = json;
  for (let depth = 0; depth <= names.length && values !== undefined; depth++) {
    const section = names.slice(0, depth);
    if (!isObject(values)) {
      const name = section.join(".");
      throw new InvalidInputError(`${placeOf(name)}: ${name}: expected the settings of miro ${section.join(" ")}`);
    }
    let level: Command = command;
    for (let up = names.length; up > depth; up--) level = level.parent!;
    const inner = level.commands.map((one) => one.name());
    for (const [key, value] of Object.entries(values)) {
      const place = placeOf([...section, key].join("."));
      if (!inner.includes(key)) settings.push({ section, key: key.replaceAll("_", "-"), value, place });
    }
    const next = names[depth];
    // The section of a command whose options are all commented out is null.
    values = (next !== undefined && Object.hasOwn(values, next) ? values[next] : null) ?? undefined;
  }
  return settings;
}

/** The names of the options of all commands of a program, by the words that call the command. */
export function optionNames(program: Command): Record<string, string[]> {
  const named = leavesOf(program).map((command) => [
    commandPath(command).join(" "),
    [...settableOptions(command).keys()],
  ]);
  return Object.fromEntries(named);
}

/** Options of a command and of those within it, by the table that needs none of them loaded. */
function optionsBelow(section: readonly string[]): string[] {
  const isBelow = (path: string) => section.every((name, depth) => path.split(" ")[depth] === name);
  return Object.entries(OPTION_NAMES).flatMap(([path, keys]) => (isBelow(path) ? keys : []));
}

/** The names of the commands within a command, or of the program. */
function commandsWithin(section: readonly string[]): string[] {
  const paths = Object.keys(OPTION_NAMES).map((path) => path.split(" "));
  const inside = paths.filter((path) => path.length > section.length && section.every((name, i) => path[i] === name));
  return [...new Set(inside.map((path) => path[section.length]!))];
}

/** Whether any command that a setting stands for has an option of its name. */
function isKnown({ section, key }: Setting): boolean {
  return optionsBelow(section).includes(key);
}

function unknownSetting({ section, key, place }: Setting): InvalidInputError {
  const near = nearest(key, [...new Set([...commandsWithin(section), ...optionsBelow(section)])]);
  const hint = near.length > 0 ? `; did you mean ${near.join(" or ")}?` : "";
  const whose = section.length === 0 ? "any command" : `miro ${section.join(" ")}`;
  return new InvalidInputError(`${place}: ${[...section, key].join(".")} is no option of ${whose}${hint}`);
}

/**
 * What stands in the sections of other commands and is no option of theirs: nothing to this command, but whoever wrote
 * it should know.
 */
function faultsElsewhere(files: readonly SettingsFile[], command: Command): string[] {
  const own = commandPath(command);
  const faults: string[] = [];
  for (const { json, placeOf } of files) {
    const walk = (section: readonly string[], values: unknown): void => {
      if (values === null) return;
      if (!isObject(values)) {
        const name = section.join(".");
        faults.push(`${placeOf(name)}: ${name}: expected the settings of miro ${section.join(" ")}`);
        return;
      }
      const isOwn = section.every((name, depth) => name === own[depth]);
      const within = commandsWithin(section);
      for (const [key, value] of Object.entries(values)) {
        const place = placeOf([...section, key].join("."));
        const setting = { section, key: key.replaceAll("_", "-"), value, place };
        if (within.includes(key)) walk([...section, key], value);
        else if (!isOwn && !isKnown(setting)) faults.push(unknownSetting(setting).message);
      }
    };
    walk([], json);
  }
  return faults;
}

/**
 * The value of an option as its flag would read it; its schema has still to check it.
 * @throws InvalidInputError for what no flag could be given
 */
function readSetting(option: DeclaredOption, value: unknown): unknown {
  const { schema } = option;
  const name = option.attributeName();
  if (isFlag(schema)) {
    if (typeof value !== "boolean") throw invalid(name, "true or false", value);
    return value;
  }
  const isText = (one: unknown) => ["string", "number", "boolean"].includes(typeof one);
  const texts = isObject(value) ? Object.entries(value).map(([key, one]) => [`${key}=`, one]) : asList(value);
  const several = collects(schema);
  const fits = isObject(value) ? several === "record" : !Array.isArray(value) || several !== null;
  if (!fits || texts.length === 0 || texts.some(([, one]) => !isText(one)))
    throw invalid(name, expectedOf(schema), value);
  return texts.reduce<unknown>((earlier, [head, one]) => option.read(`${head}${one}`, earlier), undefined);
}

function asList(value: unknown): (readonly [string, unknown])[] {
  return [value].flat().map((one) => ["", one] as const);
}

/** @throws InvalidInputError naming the place, for a value that the option's schema refuses */
export function checkSetting(option: DeclaredOption, { place, value }: Setting): unknown {
  const name = option.attributeName();
  try {
    const read = readSetting(option, value);
    if (!option.schema.safeParse(read).success) throw invalid(name, expectedOf(option.schema), read);
    return read;
  } catch (error) {
    if (!(error instanceof InvalidInputError)) throw error;
    throw new InvalidInputError(message`${place}: ${error}`, { cause: error });
  }
}
