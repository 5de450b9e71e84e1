/**
 * Commands out of declared options (`options.ts`): flags and arguments, their help with types and defaults, and what
 * was given as typed, checked values under the options' own names.
 */
import { dirname } from "node:path";
import { Argument, type Command, Option } from "commander";
import type { z } from "zod";
import { invalid } from "../errors.js";
import { removeIfEmpty } from "../files/make-folder.js";
import { checkKey } from "../files/plain-data.js";
import { behindLinks, proveWritable, withoutParents } from "../files/writable.js";
import { message, type OptionMention } from "../message.js";
import {
  choices,
  collects,
  declarationOf,
  expectedOf,
  fromText,
  isDeclared,
  isFlag,
  isNumeric,
  isOnlyNumeric,
  otherwiseOf,
  parseOptions,
  wordsOf,
} from "../options.js";
import { kebabCase, nameFlags } from "./flag-names.js";

/** What was given on the command line, nothing filled in. */
export type Given<S extends z.ZodObject> = { [K in keyof z.output<S>]?: Exclude<z.output<S>[K], undefined> };

/** An option of commander whose value goes by the name of its declaration. */
export class DeclaredOption extends Option {
  readonly #name: string;
  readonly schema: z.ZodType;
  /** The values of an option that has only a few: shells complete them. The help has them in words. */
  readonly values: readonly string[] | null;
  /** Reads a text, where it is no flag; of lists and records one after another. */
  readonly read: (text: string, earlier: unknown) => unknown;

  constructor(name: string, schema: z.ZodType, flag: string) {
    super(flag, description(schema));
    this.#name = name;
    this.schema = schema;
    this.values = isFlag(schema) ? null : choices(schema);
    this.read = reader(name, schema, flag);
    if (!isFlag(schema)) this.argParser(this.read);
  }

  override attributeName(): string {
    return this.#name;
  }

  /** Its name in a settings file: that of the flag, of `--no-x` too. */
  get key(): string {
    return this.long!.replace(/^--(?:no-)?/, "");
  }

  /** Whether it must be given, on the command line or by a settings file. */
  get isNeeded(): boolean {
    return !this.schema.safeParse(undefined).success;
  }
}

/** The opposite of a flag, `--no-x` of `--x` and the reverse, which overrides a settings file. No help lists it. */
class OppositeFlag extends Option {
  readonly #name: string;

  constructor({ long, name }: { long: string; name: string }) {
    super(long.startsWith("--no-") ? long.replace("--no-", "--") : long.replace("--", "--no-"));
    this.#name = name;
    this.hideHelp();
  }

  override attributeName(): string {
    return this.#name;
  }
}

/** An argument with the values that it may have, where they are few. */
export class DeclaredArgument extends Argument {
  readonly values: readonly string[] | null;

  constructor(name: string, schema: z.ZodType, written: string) {
    super(written, description(schema));
    this.values = choices(schema);
    this.argParser(reader(name, schema, written));
  }
}

/** An option or argument of a command: its path among the options, its schema and how it is written. */
interface Written {
  path: readonly string[];
  schema: z.ZodType;
  flag: string;
}

/**
 * Adds options, and arguments, to a command.
 *
 * @param keys those of the schema that are added; default: all that say how they are written
 */
export function addOptions<S extends z.ZodObject>(
  command: Command,
  schema: S,
  keys: readonly (keyof S["shape"] & string)[] = Object.keys(schema.shape),
): Command {
  for (const { path, schema: of, flag } of writtenOf(schema, keys)) {
    const name = path.join(".");
    if (flag.startsWith("-")) {
      const option = new DeclaredOption(name, of, flag);
      // Those of registered samplers may be called anything.
      if (command.options.some(({ long }) => long === option.long))
        throw invalid(name, `an option whose flag miro ${command.name()} does not have yet`, option.long);
      command.addOption(option);
      if (isFlag(of)) command.addOption(new OppositeFlag({ long: option.long!, name }));
      nameFlags(command, { [name]: flag.split(" ")[0]! });
    } else {
      command.addArgument(new DeclaredArgument(name, of, flag));
      nameFlags(command, { [name]: flag.replace(/[<>[\]]|\.{3}/g, "").toUpperCase() });
    }
  }
  return command;
}

/**
 * Declares a command: adds its options, and runs it with what was given, once it is known that what it is to write can
 * be written. A command that fails leaves no folder that it has made for that and put nothing in.
 *
 * @param run gets all options, defaults filled in; those alone that were given, on the command line or by a settings
 *   file; and those of the command line alone
 */
export function declare<S extends z.ZodObject>(
  command: Command,
  schema: S,
  run: (options: z.output<S>, given: Given<S>, typed: Given<S>) => void | Promise<void>,
): Command {
  return addOptions(command, schema).action(async () => {
    const given = givenTo(command, schema, ["default"]);
    const isSet = (option: Option) => command.getOptionValue(option.attributeName()) !== undefined;
    for (const option of command.options)
      if (option instanceof DeclaredOption && option.isNeeded && !isSet(option))
        command.error(`error: required option '${option.flags}' not specified`);
    const options: Record<string, unknown> & z.output<S> = parseOptions(schema, given);
    // A dry run writes nothing, and tells everything that would stop the work at once.
    const isDry = "dryRun" in options && options.dryRun === true;
    /** Folders that the command will make, each with the first of those above it that are missing. */
    const made = new Map<string, string>();
    for (const [name, of] of Object.entries<z.ZodType>(schema.shape)) {
      const kind = isDeclared(of) ? declarationOf(of).writes : undefined;
      const path = options[name];
      if (kind === undefined || typeof path !== "string") continue;
      if (path === "") throw invalid(name, expectedOf(of), path); // a variable of a script that is not set
      const place = kind === "file" ? behindLinks(withoutParents(path)) : withoutParents(path);
      for (const places of [options, given] as Record<string, unknown>[])
        if (places[name] === path) places[name] = place;
      if (isDry) continue;
      const missing = proveWritable(place, kind, name);
      if (missing !== undefined) made.set(kind === "file" ? dirname(place) : place, missing);
    }
    try {
      await run(options, given as Given<S>, givenTo(command, schema, ["default", "config"]) as Given<S>);
    } catch (error) {
      for (const [folder, first] of made) removeIfEmpty(folder, first);
      throw error;
    }
  });
}

/**
 * Refuses options of the command line that mean nothing without another one. Settings files may have them all the same.
 *
 * @param other the one that is missing, as a message mentions it
 */
export function refuseWithout(other: OptionMention, typed: object, names: readonly string[]): void {
  for (const [name, value] of Object.entries(typed))
    if (names.includes(name)) throw invalid(name, message`${other} with it`, value);
}

function writtenOf(schema: z.ZodObject, keys: readonly string[]): Written[] {
  return keys.flatMap((key) => {
    const of = schema.shape[key] as z.ZodType;
    if (!isDeclared(of)) return [];
    const { flag, members } = declarationOf(of);
    const inside = Object.entries(members?.() ?? {}).map(([member, of]) => {
      return { path: [key, member], schema: of, flag: declarationOf(of).flag ?? `--${kebabCase(member)} <value>` };
    });
    return flag === undefined ? inside : [{ path: [key], schema: of, flag }, ...inside];
  });
}

/** The values of a command's options and arguments, by their names, but for those from some sources. */
function givenTo(command: Command, schema: z.ZodObject, without: readonly string[]): Record<string, unknown> {
  const given: Record<string, unknown> = {};
  const words = [...command.processedArgs];
  for (const { path, flag } of writtenOf(schema, Object.keys(schema.shape))) {
    const name = path.join(".");
    const value = !flag.startsWith("-")
      ? words.shift()
      : without.includes(command.getOptionValueSource(name) ?? "default")
        ? undefined
        : command.getOptionValue(name);
    if (value === undefined) continue;
    const [key, member] = path as [string, string?];
    if (member === undefined) given[key] = value;
    else given[key] = { ...(given[key] as object | undefined), [member]: value };
  }
  return given;
}

/** Reads a text of the command line; of lists and records one after another. */
function reader(name: string, schema: z.ZodType, flag: string): (text: string, earlier: unknown) => unknown {
  const together = collects(schema);
  return (text, earlier) => {
    const value = fromText(schema, text, name);
    if (together === "list") return [...((earlier as unknown[] | undefined) ?? []), ...[value].flat()];
    if (together === "record") {
      for (const key of Object.keys(value as object)) checkKey(key, flag.split(" ")[0]!);
      return { ...(earlier as object | undefined), ...(value as object) };
    }
    if (isOnlyNumeric(schema) && typeof value !== "number") throw invalid(name, "a number", text);
    return value;
  };
}

/** Help with the type and the default; of what must be given there is none, and a flag is off unless it is given. */
function description(schema: z.ZodType): string {
  const { help, flag, values } = declarationOf(schema);
  const typed = isNumeric(schema) || (values === undefined && choices(schema) !== null);
  const hasDefault = !isFlag(schema) && schema.safeParse(undefined).success && Boolean(flag?.startsWith("-"));
  const notes = [
    ...(typed ? [expectedOf(schema)] : []),
    ...(hasDefault || otherwiseOf(schema) !== "none" ? [`default: ${otherwiseOf(schema)}`] : []),
  ];
  const what = flag?.startsWith("--no-") ? `no ${wordsOf(help)}` : wordsOf(help);
  return notes.length === 0 ? what : `${what} (${notes.join("; ")})`;
}
