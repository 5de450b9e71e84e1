/**
 * Options declared once. An option is a field of a zod object that carries, besides its type and its default, the words
 * of its error, its help and how the command line writes it. From that one declaration come
 *
 * * the check of what TypeScript callers give ({@link parseOptions}) and the type of it ({@link OptionsOf}),
 * * flags and arguments of commands, with types and defaults in their help (`cli/add-options.ts`),
 * * columns of prompt files and axes of sweeps, for options that may differ from prompt to prompt ({@link perPrompt}),
 * * defaults that a settings file changes (`cli/settings.ts`),
 * * the settings that a picture stores ({@link oneEach}).
 */
import { z } from "zod";
import { invalid } from "./errors.js";
import { snakeCase } from "./letter-case.js";
import { message } from "./message.js";
import { nearest } from "./nearest.js";

/** Words, or what gives them when they are needed: lists of what is registered grow after the declaration. */
export type Words = string | (() => string);

/** What is written at a place that an option names. */
export type Writing = "file" | "folder";

/** What an option is besides its schema. */
export interface Declaration {
  /** What is accepted, in words: `expected WORDS, received …`. */
  expected: Words;
  /** Of an option that may be a list too: what its items stand for, `one per picture`. */
  orList?: string;
  /** What it does, in a line for people; without its default, which the schema or `otherwise` says. */
  help: Words;
  /**
   * How the command line writes it: `--guidance <w>`, `<recipe>` for an argument; `--no-vae-256` for what holds unless
   * it is switched off. Absent: not at all.
   */
  flag?: string;
  /** The values that there are, where only the program knows them, for shells to complete; `help` names them. */
  values?: () => readonly string[];
  /** What holds where it is not given, if that is no constant of the schema. */
  otherwise?: Words;
  /** Reads a text of a command line, a cell or an axis; undefined where it cannot be read. Default: by the schema. */
  parse?: (text: string) => unknown;
  /** How such a text is written, for the error; default: `expected`. */
  written?: string;
  /** It may differ from prompt to prompt: a column of prompt files and an axis of sweeps. */
  perPrompt?: true;
  /** Its name as an axis of sweeps, null for none; default: that of its column. */
  axis?: string | null;
  /** It names what is going to be written; commands prove that it can be before they do anything. */
  writes?: Writing;
  /** Options inside of it, each with a flag, a column and an axis of its own. */
  members?: () => Readonly<Record<string, z.ZodType>>;
}

const declarations = new WeakMap<z.ZodType, Declaration>();

/** Declares an option. */
export function field<T extends z.ZodType>(schema: T, declaration: Declaration): T {
  const own = schema.clone(); // two options may have one schema
  declarations.set(own, declaration);
  return own;
}

/**
 * Describes a value of a recipe, or of another file that people write: no option of a function, so it has no flag. The
 * words go into the JSON Schema that zod makes, and from there into `docs/recipes.md`.
 *
 * @param upstream its name in the published code's configuration, where it is there under another name
 */
export function setting<T extends z.ZodType>(schema: T, description: string, upstream?: string): T {
  return schema.meta({ description, ...(upstream !== undefined && { upstream }) }) as T;
}

/** What was declared of an option. @throws Error for a schema that is no {@link field} */
export function declarationOf(schema: z.ZodType): Declaration {
  const declaration = declarations.get(schema);
  if (declaration === undefined) throw new Error("an option without a declaration");
  return declaration;
}

/** Whether a schema is a {@link field}. */
export function isDeclared(schema: z.ZodType): boolean {
  return declarations.has(schema);
}

/** What is accepted, in words. */
export function expectedOf(schema: z.ZodType): string {
  const { expected, orList } = declarationOf(schema);
  return wordsOf(expected) + (orList === undefined ? "" : `, or a list of such, ${orList}`);
}

/** A flag that is off unless it is given. */
export function flag(help: Words, name?: string) {
  return field(z.boolean().default(false), { expected: "true or false", help, ...(name && { flag: name }) });
}

/** An option of another schema as a flag, under the name that it has here. */
export function asFlag<T extends z.ZodType>(schema: T, name: string): T {
  return field(schema, { ...declarationOf(schema), flag: name });
}

/** The option that stops long work. */
export function abortSignal(help: Words) {
  const schema = z.custom<AbortSignal>((value) => value instanceof AbortSignal).optional();
  return field(schema, { expected: "an AbortSignal", help });
}

/** An option that is called back. */
export function callback<F>(help: Words) {
  return field(z.custom<F>((value) => typeof value === "function").optional(), { expected: "a function", help });
}

/** The words that are given, or computed. */
export function wordsOf(given: Words): string {
  return typeof given === "function" ? given() : given;
}

type Shape<S extends z.ZodObject> = S["shape"];
type OptionalKeys<S extends z.ZodObject> = {
  [K in keyof Shape<S>]: undefined extends z.input<Shape<S>[K]> ? K : never;
}[keyof Shape<S>];
type RequiredKeys<S extends z.ZodObject> = Exclude<keyof Shape<S>, OptionalKeys<S>>;
/** Lists are accepted frozen too. */
type Accepted<T> = T extends readonly unknown[] ? Readonly<T> : T;
type Optional<T, K extends keyof T> = { [P in K]?: Accepted<z.input<T[P]>> };
type Required<T, K extends keyof T> = { [P in K]: Accepted<z.input<T[P]>> };
type Flat<T> = { [K in keyof T]: T[K] };

/**
 * The type of the options that a schema accepts. Unlike `z.input` it keeps the comments above the fields, so that an
 * editor shows them to who calls the function.
 */
export type OptionsOf<S extends z.ZodObject> = Flat<
  Optional<Shape<S>, OptionalKeys<S>> & Required<Shape<S>, RequiredKeys<S>>
>;

/**
 * Checks options.
 *
 * @param within name of the option that holds these, where one does (`samplerOptions`)
 * @throws InvalidInputError naming the first wrong option, what is accepted and what came
 */
export function parseOptions<T extends z.ZodObject>(schema: T, input: unknown, within?: string): z.output<T> {
  if (!holdsOptions(input)) throw invalid(within ?? "options", "an object of options", input);
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const parameter = (...path: string[]) => [...(within === undefined ? [] : [within]), ...path].join(".");
  if (issue.code === "unrecognized_keys" && issue.path.length === 0) {
    const [unknown, known] = [issue.keys[0]!, Object.keys(schema.shape)];
    const near = nearest(unknown, known);
    const hint = near.length > 0 ? `; did you mean ${near.join(" or ")}?` : "";
    throw invalid(parameter(unknown), `one of the options ${known.join(", ")}`, message`an unknown one${hint}`);
  }
  const path = issue.path.map(String);
  const of = schema.shape[path[0] ?? ""] as z.ZodType | undefined;
  const words = of && isDeclared(of) ? expectedOf(of) : issue.message;
  const most = limitOf(result.error.issues);
  const expected = most === null || words.includes(String(most)) ? words : `${words}, and at most ${most}`;
  const received = path.reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], input);
  throw invalid(path.length > 0 ? parameter(...path) : (within ?? "options"), expected, received);
}

/** Not a promise, a signal, a map or a form, in which no option would be found: they would be left out in silence. */
function holdsOptions(input: unknown): input is object {
  return /^\[object (?:Object|Module)\]$/.test(Object.prototype.toString.call(input));
}

/**
 * A schema of what TypeScript shall not write to. Zod's `readonly()` also freezes: where it refuses a value, the
 * caller's own, and in a union that goes on to accept it.
 */
export function readOnly<S extends z.ZodType>(schema: S): z.ZodType<Readonly<z.output<S>>, Readonly<z.input<S>>> {
  return schema as unknown as z.ZodType<Readonly<z.output<S>>, Readonly<z.input<S>>>;
}

/** The limit that a number is above, or null where something else is wrong. */
function limitOf(issues: readonly z.core.$ZodIssue[]): number | bigint | null {
  for (const issue of issues) {
    if (issue.code === "too_big" && (issue.origin === "number" || issue.origin === "int")) return issue.maximum;
    const inside = issue.code === "invalid_union" ? limitOf(issue.errors.flat()) : null;
    if (inside !== null) return inside;
  }
  return null;
}

/** The alternatives that a schema accepts, without what makes it optional. */
function alternatives(schema: z.ZodType): z.ZodType[] {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodNullable || schema instanceof z.ZodDefault)
    return alternatives(schema.unwrap() as z.ZodType);
  if (schema instanceof z.ZodUnion) return (schema.options as z.ZodType[]).flatMap(alternatives);
  return [schema];
}

/** What an option may be for one picture: one value, where a list may hold one for each prompt or picture. */
function single(schema: z.ZodType): z.ZodType {
  const all = alternatives(schema);
  const alone = all.filter((one) => !(one instanceof z.ZodArray));
  const kept = alone.length > 0 ? alone : all;
  const { orList: _, ...declaration } = declarationOf(schema);
  return field(kept.length === 1 ? kept[0]! : z.union(kept), declaration);
}

type One<T> = T extends readonly unknown[] ? (number extends T["length"] ? never : T) : T;

/** The schema of options as they are for one picture. */
export type OneEach<S extends z.ZodObject> = z.ZodObject<
  { [K in keyof S["shape"]]: z.ZodType<One<Exclude<z.output<S["shape"][K]>, undefined>>> },
  z.core.$strict
>;

/** Options as they are for one picture, each given and without a default. */
export function oneEach<S extends z.ZodObject>(options: S): OneEach<S> {
  const fields = Object.entries<z.ZodType>(options.shape).map(([name, schema]) => [name, single(schema)]);
  return z.strictObject(Object.fromEntries(fields)) as unknown as OneEach<S>;
}

/** The schema of the options of one prompt. */
export type PerPrompt<S extends z.ZodObject> = z.ZodObject<
  { [K in keyof S["shape"]]: z.ZodOptional<OneEach<S>["shape"][K]> },
  z.core.$strict
>;

/**
 * Of some options those that may differ from prompt to prompt, as they are for one; none has a default, but its words
 * say what holds.
 */
export function perPrompt<S extends z.ZodObject>(options: S): PerPrompt<S> {
  const fields = Object.entries<z.ZodType>(options.shape)
    .filter(([, schema]) => isDeclared(schema) && declarationOf(schema).perPrompt)
    .map(([name, schema]) => {
      const one = single(schema);
      const { otherwise = otherwiseOf(schema), ...declaration } = declarationOf(one);
      return [name, field(one.optional(), { ...declaration, otherwise })];
    });
  return z.strictObject(Object.fromEntries(fields)) as unknown as PerPrompt<S>;
}

/** Whether several texts on a command line make one value together, and which: `list` or `record`. */
export function collects(schema: z.ZodType): "list" | "record" | null {
  const all = alternatives(schema);
  if (all.some((one) => one instanceof z.ZodRecord)) return "record";
  return all.every((one) => one instanceof z.ZodArray) ? "list" : null;
}

/** Whether an option is a number, and possibly other things too. */
export function isNumeric(schema: z.ZodType): boolean {
  return alternatives(schema).some((one) => one instanceof z.ZodNumber);
}

/** Whether an option is a number, and nothing else. */
export function isOnlyNumeric(schema: z.ZodType): boolean {
  return alternatives(schema).every((one) => one instanceof z.ZodNumber);
}

/** Whether an option is true or false, and nothing else. */
export function isFlag(schema: z.ZodType): boolean {
  return alternatives(schema).every((one) => one instanceof z.ZodBoolean);
}

/** The values of an option that has only a few, else null. */
export function choices(schema: z.ZodType): readonly string[] | null {
  const { values } = declarationOf(schema);
  if (values !== undefined) return values();
  const all = alternatives(schema);
  return all.every((one) => one instanceof z.ZodEnum) ? all.flatMap((one) => one.options.map(String)) : null;
}

/** The default of an option as its schema says; undefined where it has none. */
export function defaultOf(schema: z.ZodType): unknown {
  const result = schema.safeParse(undefined);
  return result.success ? result.data : undefined;
}

/** What holds where an option is not given, in words: `none` where that is nothing. */
export function otherwiseOf(schema: z.ZodType): string {
  const { otherwise } = declarationOf(schema);
  if (otherwise !== undefined) return wordsOf(otherwise);
  const value = defaultOf(schema);
  if (typeof value === "string" || typeof value === "number") return String(value);
  return Array.isArray(value) && value.length > 0 ? value.join(",") : "none";
}

/** Options that have been checked, one by one, with the defaults of those that are not given. */
export function withDefaults<S extends z.ZodObject>(schema: S, checked: Partial<z.output<S>>): z.output<S> {
  const defaults = Object.entries<z.ZodType>(schema.shape).map(([name, of]) => [name, defaultOf(of)]);
  const given = Object.entries(checked).filter(([, value]) => value !== undefined);
  return Object.fromEntries([...defaults, ...given].filter(([, value]) => value !== undefined));
}

/**
 * A text as the value of an option, which its schema has still to check: of a number its decimal digits, of a record
 * `KEY=VALUE`, of a list one item.
 *
 * @param parameter name of the option, for the error
 * @throws InvalidInputError for a text that its option's own `parse` cannot read
 */
export function fromText(schema: z.ZodType, text: string, parameter: string): unknown {
  const { parse, written, flag } = declarationOf(schema);
  if (parse === undefined)
    return readValue(alternatives(schema), text, parameter, flag?.match(/<([^<=>]+=[^<=>]+)>/)?.[1]);
  const value = parse(text);
  if (value === undefined) throw invalid(parameter, written ?? expectedOf(schema), text);
  return value;
}

/** @param form of an entry of a record, as its flag says it */
function readValue(all: readonly z.ZodType[], text: string, parameter: string, form = "key=value"): unknown {
  for (const one of all) {
    if (one instanceof z.ZodNumber && isDecimal(text)) return Number(text);
    if (one instanceof z.ZodBoolean && /^\s*(true|false)\s*$/i.test(text)) return /true/i.test(text);
    if (one instanceof z.ZodRecord) return entryOf(one, text, parameter, form);
  }
  const items = all.every((one) => one instanceof z.ZodArray) ? (all as z.ZodArray[]) : [];
  if (items.length > 0)
    return readValue(
      items.flatMap(({ element }) => alternatives(element as z.ZodType)),
      text,
      parameter,
      form,
    );
  return all.some((one) => one.safeParse(text).success) ? text : text.trim();
}

function entryOf(record: z.ZodRecord, text: string, parameter: string, form: string): Record<string, unknown> {
  const values = alternatives(record.valueType as z.ZodType);
  const example = values.some((value) => value instanceof z.ZodNumber) ? ", for example clip_score=0.5" : "";
  const cut = text.indexOf("=");
  if (cut < 1) throw invalid(parameter, form + example, text);
  const [key, value] = [text.slice(0, cut).trim(), text.slice(cut + 1)];
  const isNone = record.valueType instanceof z.ZodNullable && /^\s*none\s*$/i.test(value);
  return { [key]: isNone ? null : readValue(values, value, `${parameter} ${key}`) };
}

function isDecimal(text: string): boolean {
  return /^[-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|Infinity)$/.test(text.trim());
}

/** Both ends of `FIRST-LAST`; undefined for any other text. */
export function firstAndLast(text: string): [number, number] | undefined {
  const [, first, last] = /^\s*(\d+)\s*-\s*(\d+)\s*$/.exec(text) ?? [];
  return first === undefined ? undefined : [Number(first), Number(last)];
}

/** The parts of a list with commas. */
export function commaSeparated(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

/** An option's flag without its dashes and what follows it, with `_` for `-`: its column in prompt files. */
export function columnOf(name: string, schema: z.ZodType): string {
  const word = declarationOf(schema).flag?.match(/--(?:no-)?([\w-]+)/)?.[1];
  return word === undefined ? snakeCase(name) : word.replaceAll("-", "_");
}
