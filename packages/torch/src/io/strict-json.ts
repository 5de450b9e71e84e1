/**
 * A strict reader for the JSON subset of safetensors headers (RFC 8259 without fractions, exponents, signs): objects
 * become Maps, duplicate keys are errors, numbers are safe non-negative integers, and every error knows its byte.
 *
 * `JSON.parse` cannot serve: it silently keeps the last of two equal keys and knows no byte offsets.
 */

/** A value of the subset. */
export type StrictJson = string | number | boolean | null | StrictJson[] | Map<string, StrictJson>;

/** Text that is not of the subset: which rule it breaks, and where. */
export class StrictJsonError extends Error {
  constructor(
    /** The broken rule. */
    readonly rule: "HeaderNotUtf8" | "HeaderNotJson" | "DuplicateKey" | "NumberOverflow" | "NumberNotAnInteger",
    message: string,
    /** Position in the text, in bytes. */
    readonly byteOffset: number,
  ) {
    super(message);
  }
}

const MAX_DEPTH = 8;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** Parses one JSON value that fills `bytes`, apart from white space behind it. */
export function parseStrictJson(bytes: Uint8Array): StrictJson {
  let at = 0;

  const fail = (rule: StrictJsonError["rule"], message: string, offset = at): never => {
    throw new StrictJsonError(rule, message, offset);
  };
  const describe = (): string =>
    at >= bytes.length ? "the end of the header" : JSON.stringify(String.fromCharCode(bytes[at]!));
  const isSpace = (c: number | undefined): boolean => c === 0x20 || c === 0x09 || c === 0x0a || c === 0x0d;
  const isDigit = (c: number | undefined): boolean => c !== undefined && c >= 0x30 && c <= 0x39;
  const skipSpace = (): void => {
    while (isSpace(bytes[at])) at++;
  };
  const take = (character: string): boolean => {
    if (bytes[at] !== character.charCodeAt(0)) return false;
    at++;
    return true;
  };
  const expect = (character: string): void => {
    if (!take(character)) fail("HeaderNotJson", `expected ${JSON.stringify(character)}, found ${describe()}`);
  };

  function text(): string {
    const start = at;
    expect('"');
    while (bytes[at] !== QUOTE) {
      if (at >= bytes.length) fail("HeaderNotJson", "a string is not closed", start);
      at += bytes[at] === BACKSLASH ? 2 : 1;
    }
    at++;
    // JSON.parse of one string token checks its escapes and refuses control characters.
    let source = "";
    try {
      source = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(start, at));
    } catch {
      fail("HeaderNotUtf8", "a string is not valid UTF-8", start);
    }
    let parsed: string;
    try {
      parsed = JSON.parse(source) as string;
    } catch {
      return fail("HeaderNotJson", "a string holds a bad escape or a control character", start);
    }
    if (/\p{Surrogate}/u.test(parsed)) fail("HeaderNotJson", "a string holds half of a surrogate pair", start);
    return parsed;
  }

  function number(): number {
    const start = at;
    while (isDigit(bytes[at])) at++;
    const next = bytes[at];
    const digits = String.fromCharCode(...bytes.subarray(start, Math.min(at, start + 24)));
    if (next === 0x2e || next === 0x65 || next === 0x45)
      fail("NumberNotAnInteger", "a number is not an integer", start);
    if (digits.length > 1 && digits[0] === "0") fail("HeaderNotJson", "a number has a leading zero", start);
    const value = Number(digits);
    if (!Number.isSafeInteger(value)) fail("NumberOverflow", "a number exceeds 2^53 - 1", start);
    return value;
  }

  function object(depth: number): Map<string, StrictJson> {
    const result = new Map<string, StrictJson>();
    expect("{");
    skipSpace();
    if (take("}")) return result;
    do {
      skipSpace();
      const keyAt = at;
      const key = text();
      if (result.has(key)) fail("DuplicateKey", `the key ${JSON.stringify(key)} occurs twice`, keyAt);
      skipSpace();
      expect(":");
      result.set(key, value(depth + 1));
      skipSpace();
    } while (take(","));
    expect("}");
    return result;
  }

  function array(depth: number): StrictJson[] {
    const result: StrictJson[] = [];
    expect("[");
    skipSpace();
    if (take("]")) return result;
    do {
      result.push(value(depth + 1));
      skipSpace();
    } while (take(","));
    expect("]");
    return result;
  }

  function value(depth: number): StrictJson {
    if (depth > MAX_DEPTH) fail("HeaderNotJson", `nesting deeper than ${MAX_DEPTH}`);
    skipSpace();
    const c = bytes[at];
    if (c === QUOTE) return text();
    if (isDigit(c)) return number();
    if (c === 0x2d) fail("NumberNotAnInteger", "a number is negative");
    if (c === 0x7b) return object(depth);
    if (c === 0x5b) return array(depth);
    for (const [word, meaning] of [
      ["true", true],
      ["false", false],
      ["null", null],
    ] as const) {
      if ([...word].every((letter, i) => bytes[at + i] === letter.charCodeAt(0))) {
        at += word.length;
        return meaning;
      }
    }
    return fail("HeaderNotJson", `expected a value, found ${describe()}`);
  }

  const result = value(0);
  skipSpace();
  if (at < bytes.length) fail("HeaderNotJson", `unexpected ${describe()} behind the value`);
  return result;
}
