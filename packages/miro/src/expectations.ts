/**
 * What a schema expected, in the words of all other errors, for content of files that a schema checks. Options of calls
 * and commands say themselves what they expect (options.ts).
 */
import type { z } from "zod";
import { describe, InvalidInputError } from "./errors.js";
import { counted } from "./numbers.js";

type Issue = z.core.$ZodRawIssue;

const TYPES: Readonly<Record<string, string>> = {
  string: "a text",
  number: "a number",
  int: "an integer",
  boolean: "true or false",
  array: "a list",
  tuple: "a list",
  object: "an object",
  record: "an object",
};

/** What is counted of a value that has a size. */
const UNITS: Readonly<Record<string, string>> = { string: "character", array: "value" };

/**
 * "expected an integer of at least 1" for `safeParse(value, { error: expectation })`; undefined leaves zod's own words,
 * as for faults that a schema words itself.
 */
export function expectation(issue: Issue): string | undefined {
  const words = wordsOf(issue);
  return words && `expected ${words}`;
}

/** "expected an integer of at least 1, received 0" for `safeParse(value, { error: expectedAndReceived })`. */
export function expectedAndReceived(issue: Issue): string | undefined {
  const words = wordsOf(issue);
  return words && `expected ${words}, received ${issue.input === undefined ? "nothing" : describe(issue.input)}`;
}

/**
 * Checks what a file, or a part of it, holds.
 * @param where it stands, for the error: the file, or the file and the line
 * @throws InvalidInputError naming the place, the first field that is wrong, what it may be and what it is
 */
export function checkContent<S extends z.ZodType>(schema: S, content: unknown, where: string): z.output<S> {
  const result = schema.safeParse(content, { error: expectedAndReceived });
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0]!;
  throw new InvalidInputError([where, ...(path.length > 0 ? [path.join(".")] : []), message].join(": "));
}

function wordsOf(issue: Issue): string | undefined {
  switch (issue.code) {
    case "invalid_type":
      return typeof issue.input === "number" && issue.expected === "number" ? "a finite number" : typeOf(issue);
    case "too_small":
      return bounded(issue, issue.minimum, issue.inclusive ? "of at least" : "above");
    case "too_big":
      return bounded(issue, issue.maximum, issue.inclusive ? "of at most" : "below");
    case "not_multiple_of":
      return `a multiple of ${issue.divisor}`;
    case "invalid_value":
      return `${issue.values.length > 1 ? "one of " : ""}${issue.values.map(String).join(", ")}`;
    case "invalid_union":
      return anyOf(issue.errors);
    default:
      return;
  }
}

function typeOf(issue: Issue & { code: "invalid_type" }): string | undefined {
  return TYPES[issue.expected === "number" && isInteger(issue) ? "int" : issue.expected];
}

/** Whether the schema of a number takes integers alone. */
function isInteger({ schema, inst }: Issue): boolean {
  return [schema, inst].some((one) => /int/.test((one?._zod.def as { format?: string } | undefined)?.format ?? ""));
}

function bounded(issue: Issue & { code: "too_small" | "too_big" }, bound: number | bigint, how: string) {
  const { origin, exact } = issue;
  const isTuple = (issue.inst as z.core.$ZodType | undefined)?._zod.def.type === "tuple";
  const limit = exact || isTuple ? "of" : how;
  const unit = UNITS[origin];
  if (unit !== undefined) return `${TYPES[origin]} ${limit} ${counted(Number(bound), unit)}`;
  if (origin !== "number" && origin !== "int") return;
  return `${isInteger(issue) ? TYPES.int : TYPES.number} ${limit} ${bound}`;
}

/** The words of all alternatives. */
function anyOf(errors: readonly (readonly z.core.$ZodIssue[])[]): string | undefined {
  const words = errors.map(([issue]) => {
    const own = issue && wordsOf(issue as Issue);
    return own && (issue.path.length > 0 ? `${own} in ${issue.path.join(".")}` : own);
  });
  return words.length === 0 || words.includes(undefined) ? undefined : [...new Set(words)].join(" or ");
}
