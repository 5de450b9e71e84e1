/**
 * Options declared once: a zod object whose fields carry, besides their type, a line of help and the words of their
 * error. The command line's help, its parsing errors and those of the TypeScript API come from the same declaration.
 */
import { z } from "zod";
import { invalid } from "./errors.js";

/** Words, or what gives them when they are needed: lists of what is registered grow after the declaration. */
export type Words = string | (() => string);

interface FieldMeta {
  description: Words;
  expected: Words;
}

function words(given: unknown): string | undefined {
  return typeof given === "function" ? (given as () => string)() : (given as string | undefined);
}

/** Attaches a field's help and the words of its error (`expected WORDS, received …`). */
export function field<T extends z.ZodType>(schema: T, expected: Words, description: Words): T {
  return schema.meta({ description, expected } as FieldMeta as unknown as z.GlobalMeta) as T;
}

/** The field of a function that the caller may give. */
export function callback<F>(description: Words) {
  return field(z.custom<F>((value) => typeof value === "function").optional(), "a function", description);
}

/** The field of a signal that ends the work early. */
export function abortSignal(description: Words) {
  return field(
    z.custom<AbortSignal>((value) => value instanceof AbortSignal).optional(),
    "an AbortSignal",
    description,
  );
}

/** The help of a field. */
export function help(schema: z.ZodObject, name: string): string {
  return words(schema.shape[name]?.meta()?.description) ?? "";
}

/**
 * Checks options.
 *
 * @param rename what the caller calls a field, where that differs (`{ steps: "--steps" }`)
 * @throws InvalidInputError naming the first wrong option, what is accepted and what came
 */
export function parseOptions<T extends z.ZodObject>(
  schema: T,
  input: unknown,
  rename: Readonly<Record<string, string>> = {},
): z.output<T> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  if (issue.code === "unrecognized_keys" && issue.path.length === 0) {
    throw invalid(issue.keys[0]!, `one of the options ${Object.keys(schema.shape).join(", ")}`, "an unknown option");
  }
  const path = issue.path.map(String);
  const name = path[0] ?? "options";
  const expected = words(schema.shape[name]?.meta()?.expected) ?? issue.message;
  const received = path.reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], input);
  throw invalid([rename[name] ?? name, ...path.slice(1)].join("."), expected, received);
}
