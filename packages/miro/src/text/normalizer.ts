/**
 * The `normalizer` object of a `tokenizer.json`: what happens to the text before it is cut into words. Supported are
 * the kinds that T5 tokenisers have had in any release of transformers (`Precompiled`, alone or in a `Sequence` with
 * `Strip` and `Replace`) and the plain Unicode forms.
 */
import { z } from "zod";
import type { InvalidInputError } from "../errors.js";
import { expectation } from "../expectations.js";
import { CharsMap, TooLong } from "./charsmap.js";
import { WHITE_SPACE } from "./whitespace.js";

/** Rewrites well-formed text. @throws InvalidInputError where the text would grow beyond {@link MAX_GROWTH} */
export type Normalizer = (text: string) => string;

/** One step: `most` is how long its result may be. It throws {@link TooLong} before it makes a longer one. */
type Step = (text: string, most: number) => string;

const FORMS = ["NFC", "NFD", "NFKC", "NFKD"] as const;

const schema = z.discriminatedUnion("type", [
  z.object({ type: z.literal("Sequence"), normalizers: z.array(z.unknown()).max(64) }),
  z.object({ type: z.literal("Precompiled"), precompiled_charsmap: z.string() }),
  z.object({ type: z.literal("Strip"), strip_left: z.boolean(), strip_right: z.boolean() }),
  z.object({
    type: z.literal("Replace"),
    pattern: z.union([z.strictObject({ String: z.string().min(1) }), z.strictObject({ Regex: z.string() })]),
    content: z.string(),
  }),
  z.object({ type: z.literal("Lowercase") }),
  ...FORMS.map((form) => z.object({ type: z.literal(form) })),
]);

/** Refuses a part of the file; see `tokenizer-json.ts`. */
export type Refuse = (path: string, expected: string, received: unknown) => InvalidInputError;

/** Deeper nesting, or more steps, than this is no tokeniser but an attack. */
const MAX_DEPTH = 8;
const MAX_STEPS = 64;
/**
 * How many times as long as a text its rewriting may be, and what any text may become. NFKC, the most, makes 18 of 1.
 */
const MAX_GROWTH = 32;
const ALWAYS_ALLOWED = 1024;

/**
 * Makes the function that a `normalizer` object describes.
 *
 * @param json the object, or null for none
 * @param path where it stands in the file, for messages
 */
export function compileNormalizer(json: unknown, path: string, refuse: Refuse): Normalizer {
  if (json === null || json === undefined) return (text) => text;
  const steps: Step[] = [];
  collectSteps(json, path, refuse, steps, 0);
  return (text) => {
    const most = ALWAYS_ALLOWED + MAX_GROWTH * text.length;
    try {
      return steps.reduce((value, step) => {
        const result = step(value, most);
        if (result.length > most) throw new TooLong();
        return result;
      }, text);
    } catch (error) {
      if (!(error instanceof TooLong)) throw error;
      throw refuse(path, `rules that make at most ${most} characters of ${text.length}`, "rules that make more");
    }
  };
}

/** Adds the steps of an object, those of sequences one after the other. */
function collectSteps(json: unknown, path: string, refuse: Refuse, steps: Step[], depth: number): void {
  if (json === null || json === undefined) return;
  if (depth > MAX_DEPTH) throw refuse(path, `sequences nested at most ${MAX_DEPTH} deep`, "deeper ones");
  const parsed = schema.safeParse(json, { error: expectation });
  if (!parsed.success) throw refuseUnion(json, path, parsed.error, refuse);
  const normalizer = parsed.data;
  if (normalizer.type !== "Sequence") {
    if (steps.length >= MAX_STEPS) throw refuse(path, `at most ${MAX_STEPS} rules in all sequences together`, "more");
    steps.push(compileStep(normalizer, path, refuse));
    return;
  }
  for (const [i, part] of normalizer.normalizers.entries())
    collectSteps(part, `${path}.normalizers[${i}]`, refuse, steps, depth + 1);
}

function compileStep(
  normalizer: Exclude<z.infer<typeof schema>, { type: "Sequence" }>,
  path: string,
  refuse: Refuse,
): Step {
  switch (normalizer.type) {
    case "Precompiled": {
      const charsMap = readCharsMap(normalizer.precompiled_charsmap, `${path}.precompiled_charsmap`, refuse);
      return (text, most) => charsMap.apply(text, most);
    }
    case "Strip": {
      const left = new RegExp(`^[${WHITE_SPACE}]+`);
      return (text) => {
        const kept = normalizer.strip_left ? text.replace(left, "") : text;
        return normalizer.strip_right ? stripEnd(kept) : kept;
      };
    }
    case "Replace": {
      const { pattern, content } = normalizer;
      if ("String" in pattern) return (text, most) => text.replaceAll(pattern.String, bounded(text, content, most));
      const expression = compilePattern(pattern.Regex, `${path}.pattern.Regex`, refuse);
      if (content.includes("$")) throw refuse(`${path}.content`, "a text without references to groups", content);
      return (text, most) => text.replace(expression, bounded(text, content, most));
    }
    case "Lowercase":
      // Character by character, so that a final sigma is not treated specially.
      return (text) => Array.from(text, (character) => character.toLowerCase()).join("");
    default: {
      const form = normalizer.type;
      return (text) => text.normalize(form);
    }
  }
}

/** Puts `content` in the place of a match, as long as the whole does not grow beyond `most`. */
function bounded(text: string, content: string, most: number): (match: string) => string {
  let length = text.length;
  return (match) => {
    length += content.length - match.length;
    if (length > most) throw new TooLong();
    return content;
  };
}

function readCharsMap(base64: string, path: string, refuse: Refuse): CharsMap {
  if (base64.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(base64)) throw refuse(path, "base64", base64);
  try {
    return new CharsMap(Buffer.from(base64, "base64"));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw refuse(path, "a SentencePiece character map", `one that is broken: ${error.message}`);
  }
}

/** A loop and no regular expression: `\s+$` takes quadratic time on long runs inside the text. */
function stripEnd(text: string): string {
  const space = new RegExp(`[${WHITE_SPACE}]`);
  let end = text.length;
  while (end > 0 && space.test(text[end - 1]!)) end--;
  return text.slice(0, end);
}

/**
 * One character or class with one quantifier (` {2,}` is what T5 has): anything freer could be made to run for ever.
 */
function compilePattern(source: string, path: string, refuse: Refuse): RegExp {
  const match = /^(\\s|\\[^\p{L}\d]|[^\\.^$|?*+()[\]{}])(\+|\{\d{1,3}(?:,\d{0,3})?\})?$/u.exec(source);
  if (!match) throw refuse(path, "one character or \\s, perhaps repeated (+, {2,})", source);
  const [, one = "", quantifier = ""] = match;
  const atom = one === "\\s" ? `[${WHITE_SPACE}]` : one.length > 1 ? `[${one}]` : one;
  try {
    return new RegExp(atom + quantifier, "gu");
  } catch {
    throw refuse(path, "a regular expression", source);
  }
}

/** The error that names the unknown kind, or the first wrong field of a known one. */
export function refuseUnion(json: unknown, path: string, error: z.ZodError, refuse: Refuse): InvalidInputError {
  const issue = error.issues[0]!;
  if (issue.code === "invalid_union" && issue.path.at(-1) === "type")
    return refuse(`${path}.type`, "a supported kind", (json as { type?: unknown } | null)?.type);
  const where = issue.path.map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`)).join("");
  let value: unknown = json;
  for (const key of issue.path) value = (value as Record<PropertyKey, unknown> | undefined)?.[key];
  return refuse(path + where, issue.message.replace(/^expected /, ""), value);
}
