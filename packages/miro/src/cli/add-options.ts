/**
 * Commands out of declared options (`options.ts`): flags and arguments, their help with types and defaults, and what
 * was given as typed, checked values under the options' own names.
 */
import { Argument, type Command, Option } from "commander";
import type { z } from "zod";
import { invalid } from "../errors.js";
import { checkKey } from "../files/plain-data.js";
import {
  choices,
  collects,
  declarationOf,
  defaultOf,
  expectedOf,
  fromText,
  isDeclared,
  isFlag,
  isNumeric,
  isOnlyNumeric,
  parseOptions,
  wordsOf,
} from "../options.js";
import { kebabCase, nameFlags } from "./flag-names.js";

/** What was given on the command line, nothing filled in. */
export type Given<S extends z.ZodObject> = { [K in keyof z.output<S>]?: Exclude<z.output<S>[K], undefined> };

/** An option of commander whose value goes by the name of its declaration. */
export class DeclaredOption extends Option {
  readonly #name: string;
  /** The values of an option that has only a few: shells complete them. The help has them in words. */
  readonly values: readonly string[] | null;

  constructor(name: string, schema: z.ZodType, flag: string) {
    super(flag, description(schema));
    this.#name = name;
    this.values = isFlag(schema) ? null : choices(schema);
    this.mandatory = !schema.safeParse(undefined).success;
    if (!isFlag(schema)) this.argParser(reader(name, schema, flag));
  }

  override attributeName(): string {
    return this.#name;
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
      command.addOption(new DeclaredOption(name, of, flag));
      nameFlags(command, { [name]: flag.split(" ")[0]! });
    } else {
      command.addArgument(new Argument(flag, description(of)).argParser(reader(name, of, flag)));
      nameFlags(command, { [name]: flag.replace(/[<>[\].]/g, "").toUpperCase() });
    }
  }
  return command;
}

/**
 * Declares a command: adds its options, and runs it with what was given.
 *
 * @param run gets all options, defaults filled in, and those alone that were given
 */
export function declare<S extends z.ZodObject>(
  command: Command,
  schema: S,
  run: (options: z.output<S>, given: Given<S>) => void | Promise<void>,
): Command {
  return addOptions(command, schema).action(async () => {
    const given = givenTo(command, schema);
    await run(parseOptions(schema, given), given as Given<S>);
  });
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

/** The values of a command's options and arguments, by their names. */
function givenTo(command: Command, schema: z.ZodObject): Record<string, unknown> {
  const given: Record<string, unknown> = {};
  const words = [...command.processedArgs];
  for (const { path, flag } of writtenOf(schema, Object.keys(schema.shape))) {
    const name = path.join(".");
    const value = !flag.startsWith("-")
      ? words.shift()
      : command.getOptionValueSource(name) === "default"
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

/** Help with the type and the default. */
function description(schema: z.ZodType): string {
  const { help, otherwise, flag } = declarationOf(schema);
  const typed = isNumeric(schema) || choices(schema) !== null;
  const holds = otherwise === undefined ? shown(defaultOf(schema)) : wordsOf(otherwise);
  const notes = [typed ? expectedOf(schema) : "", holds === "" ? "" : `default: ${holds}`].filter(
    (note) => note !== "",
  );
  const what = flag?.startsWith("--no-") ? `no ${wordsOf(help)}` : wordsOf(help);
  return notes.length === 0 ? what : `${what} (${notes.join("; ")})`;
}

/** A default as it would be written; what a flag that is not given means is understood. */
function shown(value: unknown): string {
  if (typeof value === "string" || typeof value === "number") return String(value);
  return Array.isArray(value) ? value.join(",") : "";
}
