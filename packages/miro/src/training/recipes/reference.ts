/** All keys of a kind of recipe, out of its schema: name, type, default, meaning, and upstream's name. */
import { z } from "zod";
import { snakeCase } from "../../letter-case.js";
import { declarationOf, defaultOf, isDeclared, wordsOf } from "../../options.js";

/** A key of a recipe. */
export interface RecipeKey {
  /** Its place: `trainer.max_steps`. */
  key: string;
  /** What is accepted, in words; null for a section. */
  type: string | null;
  /** What holds where it is not given; undefined where nothing does. */
  default?: unknown;
  /** Whether it must be given. */
  required: boolean;
  description: string;
  /** Its name in the published code's configuration, where that is another. */
  upstream?: string;
  /** Of a key of `data`: the `data.kind` that has it. */
  kind?: string;
}

/** Schemas of sections that a recipe's own schema leaves open, by their place. */
export type OpenSections = Readonly<Record<string, z.ZodObject>>;

/**
 * The keys of a schema, in its order; a section stands before what is in it.
 * @throws Error for a key that is not described
 */
export function recipeKeys(schema: z.ZodObject, open: OpenSections = {}): RecipeKey[] {
  return keysOf(schema, "", { open });
}

interface Place {
  open: OpenSections;
  kind?: string | undefined;
  /** What the section is by default, which may differ from the defaults of its keys. */
  value?: unknown;
}

function keysOf(section: z.ZodObject, prefix: string, { open, kind, value }: Place): RecipeKey[] {
  return Object.entries<z.ZodType>(section.shape).flatMap(([name, schema]): RecipeKey[] => {
    const key = prefix + snakeCase(name);
    const inner: z.ZodType = open[key] ?? unwrapped(schema);
    const own = Reflect.get(Object(value), name) ?? defaultOf(schema);
    const entry: RecipeKey = {
      key,
      type: null,
      required: own === undefined && !schema.safeParse(undefined).success,
      ...describedAs(schema, key),
      ...(kind !== undefined && { kind }),
    };
    if (inner instanceof z.ZodDiscriminatedUnion) {
      const kinds = (inner.options as z.ZodObject[])
        .map((option) => ({ option, kind: String((option.shape.kind as z.ZodLiteral).value) }))
        .sort((a, b) => (a.kind < b.kind ? -1 : 1)); // whichever was registered first
      return [entry, ...kinds.flatMap(({ option, kind }) => keysOf(option, `${key}.`, { open, kind }))];
    }
    if (inner instanceof z.ZodObject)
      return [entry, ...keysOf(inner, `${key}.`, { open, kind, value: key in open ? undefined : own })];
    return [{ ...entry, type: typeOf(schema), ...(own !== undefined && { default: own }) }];
  });
}

/** What a schema accepts behind defaults. */
function unwrapped(schema: z.ZodType): z.ZodType {
  const wraps =
    schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault
      ? (schema.unwrap() as z.ZodType)
      : null;
  return wraps === null ? schema : unwrapped(wraps);
}

function describedAs(schema: z.ZodType, key: string): { description: string; upstream?: string } {
  if (isDeclared(schema)) return { description: wordsOf(declarationOf(schema).help) };
  const { description, upstream } = (z.globalRegistry.get(schema) ?? {}) as { description?: string; upstream?: string };
  if (description === undefined) throw new Error(`${key}: a key without a description`);
  return { description, ...(upstream !== undefined && upstream !== key && { upstream }) };
}

/** What a schema accepts, in words. */
function typeOf(schema: z.ZodType): string {
  return words(z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }));
}

type JsonSchema = z.core.JSONSchema._JSONSchema;

function words(schema: JsonSchema): string {
  if (typeof schema === "boolean") return "anything";
  const { const: constant, enum: values, anyOf, type, prefixItems, items, multipleOf } = schema;
  if (constant !== undefined) return String(constant);
  if (values !== undefined) return values.map(String).join(", ");
  if (anyOf !== undefined) return anyOf.map(words).join(", or ");
  switch (type) {
    case "integer":
    case "number":
      return `${type}${range(schema)}${multipleOf === undefined ? "" : `, a multiple of ${multipleOf}`}`;
    case "boolean":
      return "true or false";
    case "string":
      return "text";
    case "array":
      return Array.isArray(prefixItems)
        ? `[${prefixItems.map(words).join(", ")}]`
        : `list of ${items === undefined || Array.isArray(items) ? "values" : words(items)}`;
    case "null":
      return "null";
    default:
      return "mapping";
  }
}

/** `≥ 1`, `0 to 1`, `> 0`. */
function range({ type, minimum, maximum, exclusiveMinimum, exclusiveMaximum }: z.core.JSONSchema.JSONSchema): string {
  const whole = type === "integer";
  const above = typeof exclusiveMinimum === "number" ? exclusiveMinimum : undefined;
  const least = whole && above !== undefined ? above + 1 : minimum;
  const lowest = least === Number.MIN_SAFE_INTEGER ? undefined : least;
  const highest = maximum === Number.MAX_SAFE_INTEGER ? undefined : maximum;
  const below = typeof exclusiveMaximum === "number" ? exclusiveMaximum : undefined;
  if (lowest !== undefined && highest !== undefined) return ` ${lowest} to ${highest}`;
  const parts = [
    ...(lowest === undefined ? [] : [`≥ ${lowest}`]),
    ...(whole || above === undefined ? [] : [`> ${above}`]),
    ...(highest === undefined ? [] : [`≤ ${highest}`]),
    ...(below === undefined ? [] : [`< ${below}`]),
  ];
  return parts.length === 0 ? "" : ` ${parts.join(" and ")}`;
}
