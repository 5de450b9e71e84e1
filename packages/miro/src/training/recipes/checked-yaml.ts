/**
 * YAML files that are checked by a zod schema: snake_case in the file, camelCase in the program; every error names the
 * key as the file writes it, unknown keys with the nearest valid ones, and where the value came from.
 */
import { z } from "zod";
import { isObject } from "../../arguments.js";
import { describe, InvalidInputError } from "../../errors.js";
import { expectation } from "../../expectations.js";
import { camelCase, snakeCase } from "../../letter-case.js";
import { nearest } from "../../nearest.js";
import { type RecipeFault, recipeFault } from "../batches/recipe-fault.js";
import type { Origins } from "./recipe-source.js";

/**
 * Checks a recipe against the schema of its kind; keys become camelCase.
 * @throws InvalidInputError with one line for each unknown key, wrong type or value
 */
export function checkRecipe<S extends z.ZodType>(
  schema: S,
  json: unknown,
  source = "recipe",
  origins?: Origins,
): z.output<S> {
  const camel = renameKeys(json, camelCase, openSections(schema));
  const result = schema.safeParse(camel, { error: expectation });
  if (!result.success) {
    const keys = keysOf(schema);
    const { issues } = result.error;
    // A recipe of another kind has other keys: they are no faults of it.
    const kind = issues.find(({ path }) => path.length === 1 && path[0] === "kind");
    const faults = (kind === undefined ? issues : [kind]).flatMap((issue) => explain(issue, camel, schema, keys));
    refuseRecipe(source, faults, origins);
  }
  return result.data as z.output<S>;
}

/** Faults that an error lists. */
const LISTED = 50;

/** Refuses a recipe, one line for each fault, each with the place that the value comes from. */
export function refuseRecipe(source: string, faults: readonly RecipeFault[], origins?: Origins): never {
  const lines = faults.slice(0, LISTED).map(({ key, text }) => `${originOf(key, origins) ?? source}: ${text}`);
  if (faults.length > LISTED) lines.push(`and ${faults.length - LISTED} more`);
  throw new InvalidInputError(lines.join("\n"));
}

/** Where a key's value comes from: that of the key, of a list or mapping that holds it, of the first key below it. */
function originOf(key: string, origins: Origins = new Map()): string | undefined {
  for (let known = key; known !== ""; known = known.slice(0, Math.max(0, known.lastIndexOf(".")))) {
    const origin = origins.get(known);
    if (origin !== undefined) return origin;
  }
  return [...origins].find(([known]) => known.startsWith(`${key}.`))?.[1];
}

/** A checked object as its file would state it. */
export function toFile(value: object, schema: z.ZodType): unknown {
  return renameKeys(value, snakeCase, openSections(schema));
}

function explain(issue: z.core.$ZodIssue, json: unknown, schema: z.ZodType, keys: readonly KnownKey[]): RecipeFault[] {
  const path = issue.path.map(String);
  if (issue.code === "unrecognized_keys")
    return issue.keys.flatMap((key) => {
      const place = [...path, key];
      const named = publishedKeys(place, valueAt(place, json), keys);
      return named.length > 0 ? named : [unknownKey(place, knownKeys(path, json, schema), keys)];
    });
  const value = valueAt(path, json);
  const name = path.map(snakeCase).join(".");
  if (value === undefined && name === "kind") return [{ key: name, text: `${name} is missing: ${issue.message}` }];
  if (value === undefined) return [{ key: name, text: `${name} is missing` }];
  return [recipeFault(name, `${issue.message} (received ${describe(value)})`)];
}

function valueAt(path: readonly string[], json: unknown): unknown {
  return path.reduce<unknown>(
    (place, key) => (isObject(place) || Array.isArray(place) ? Reflect.get(place, key) : undefined),
    json,
  );
}

/** A key of a recipe, with all sections before it. */
interface KnownKey {
  key: string;
  /** Its name in the published code's configuration. */
  upstream: string | undefined;
  /** Of a section that there is in several kinds, the kind that has the key. */
  kind: string | undefined;
}

/** All keys of a schema, those of every kind of `data`. */
function keysOf(schema: unknown, prefix = ""): KnownKey[] {
  const inner = unwrap(schema, undefined);
  const sections = schema instanceof z.ZodDiscriminatedUnion ? schema.options : [inner];
  return sections.flatMap((section) => {
    if (!(section instanceof z.ZodObject)) return [];
    const kind = sections.length > 1 ? kindOf(section) : undefined;
    return Object.entries<z.ZodType>(section.shape).flatMap(([name, part]) => {
      const key = prefix + snakeCase(name);
      const { upstream } = (z.globalRegistry.get(part) ?? {}) as { upstream?: string };
      return [{ key, upstream, kind }, ...keysOf(part, `${key}.`)];
    });
  });
}

/** The `kind` that a section of a recipe is chosen by. */
function kindOf({ shape }: z.ZodObject): string | undefined {
  const kind = unwrap(shape.kind, undefined);
  return kind instanceof z.ZodLiteral ? String(kind.value) : undefined;
}

/** Refuses keys of the published code's configuration, those in a section before it, with the names they have here. */
function publishedKeys(path: string[], value: unknown, keys: readonly KnownKey[]): RecipeFault[] {
  const parts = isObject(value) ? Object.entries(value) : [];
  const inside = parts.flatMap(([name, part]) => publishedKeys([...path, name], part, keys));
  if (inside.length > 0) return inside;
  const key = path.map(snakeCase).join(".");
  const ours = keys.find((one) => one.upstream === key && one.key !== key)?.key;
  return ours === undefined ? [] : [{ key, text: `unknown key ${key}; the published code's ${key} is ${ours} here` }];
}

/** Refuses a key that is not known at its place. @param keys all keys, of which those of its name may be meant */
export function unknownKey(path: string[], known: string[], keys: readonly KnownKey[] = []): RecipeFault {
  const names = known.map(snakeCase);
  const key = path.map(snakeCase).join(".");
  const name = snakeCase(path.at(-1)!);
  const kinds = keys.filter((one) => one.key === key).map(({ kind }) => kind);
  if (kinds.length > 0) return { key, text: `unknown key ${key}; it is one of kind: ${kinds.join(" or ")}` };
  const elsewhere = keys.map((one) => one.key).filter((one) => one.endsWith(`.${name}`) && one !== key);
  const near = [...new Set([...elsewhere, ...nearest(name, names)])].slice(0, 3);
  const hint = near.length > 0 ? `; did you mean ${near.join(" or ")}?` : `; valid here: ${names.join(", ")}`;
  return { key, text: `unknown key ${key}${hint}` };
}

/** The keys that the schema knows at a place of the recipe. */
function knownKeys(path: string[], json: unknown, root: z.ZodType): string[] {
  let schema: unknown = root;
  let value = json;
  for (const key of [...path, null]) {
    schema = unwrap(schema, value);
    if (key === null) break;
    schema = schema instanceof z.ZodObject ? schema.shape[key] : undefined;
    value = isObject(value) ? value[key] : undefined;
  }
  return schema instanceof z.ZodObject ? Object.keys(schema.shape) : [];
}

/** The object schema behind defaults and unions (`data` is chosen by its `kind`). */
function unwrap(schema: unknown, value: unknown): unknown {
  if (schema instanceof z.ZodPrefault || schema instanceof z.ZodDefault || schema instanceof z.ZodOptional)
    return unwrap(schema.unwrap(), value);
  if (schema instanceof z.ZodDiscriminatedUnion)
    return schema.options.find(
      (option) => option instanceof z.ZodObject && isObject(value) && option.shape.kind?.safeParse(value.kind).success,
    );
  return schema;
}

/** Sections that hold whatever their reader knows; their keys stay as the file has them. */
function openSections(schema: z.ZodType): string[] {
  if (!(schema instanceof z.ZodObject)) return [];
  return Object.keys(schema.shape).filter((key) => unwrap(schema.shape[key], undefined) instanceof z.ZodRecord);
}

/** Renames the keys of objects at every depth, except inside the `kept` sections. */
function renameKeys(value: unknown, rename: (key: string) => string, kept: readonly string[] = []): unknown {
  if (Array.isArray(value)) return value.map((item) => renameKeys(item, rename));
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [
      rename(key),
      kept.includes(rename(key)) ? item : renameKeys(item, rename),
    ]),
  );
}
