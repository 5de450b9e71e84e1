/**
 * JSON as Python's `json` module reads and writes it: numbers keep their kind and their digits (1.0 stays 1.0, large
 * integers stay exact), the order of fields is kept, `NaN` and `Infinity` are read. Written is what `json.dumps` gives
 * by default (ASCII, `, ` and `: `), except that a number that is not finite becomes null, which every reader
 * understands.
 *
 * `JSON.parse` cannot serve: it refuses `NaN`, makes 1 of 1.0, and moves fields with numeric names to the front.
 */
import { pythonFloat } from "./python-number.js";

/** An integer of any size, as it was written. */
export class JsonInteger {
  constructor(readonly digits: string) {}
}

export type PythonJson = null | boolean | number | string | JsonInteger | PythonJson[] | Map<string, PythonJson>;

/** Text that is not JSON, with the character at which it ceases to be. */
class JsonSyntaxError extends Error {
  constructor(message: string, at: number) {
    super(`${message} at character ${at}`);
  }
}

/** Python gives up at a similar depth. */
export const MAX_DEPTH = 900;
const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?/y;
// biome-ignore lint/suspicious/noControlCharactersInRegex: JSON forbids them in texts
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const WORDS: Record<string, null | boolean | number> = {
  null: null,
  true: true,
  false: false,
  NaN: Number.NaN,
  Infinity: Number.POSITIVE_INFINITY,
  "-Infinity": Number.NEGATIVE_INFINITY,
};
const ESCAPES: Record<string, string> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

/** Parses one value. Of two fields with one name the last counts, in the place of the first. @throws JsonSyntaxError */
export function parsePythonJson(text: string): PythonJson {
  let at = 0;
  const match = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at += found[0].length;
    return found;
  };
  const fail = (message: string): never => {
    throw new JsonSyntaxError(message, at);
  };

  const string = (): string => {
    at++;
    let result = "";
    for (;;) {
      result += match(PLAIN)![0];
      const character = text[at];
      if (character === '"') {
        at++;
        return result;
      }
      if (character !== "\\") return fail("a text without its end, or a control character in it");
      const letter = text[at + 1] ?? "";
      if (letter === "u") {
        const digits = text.slice(at + 2, at + 6);
        if (!/^[0-9a-fA-F]{4}$/.test(digits)) return fail("expected four hexadecimal digits behind \\u");
        result += String.fromCharCode(Number.parseInt(digits, 16));
        at += 6;
      } else {
        if (!Object.hasOwn(ESCAPES, letter)) return fail("an unknown escape");
        result += ESCAPES[letter];
        at += 2;
      }
    }
  };

  const take = (character: string): boolean => {
    if (text[at] !== character) return false;
    at++;
    return true;
  };

  const object = (depth: number): Map<string, PythonJson> => {
    const fields = new Map<string, PythonJson>();
    match(SPACE);
    if (take("}")) return fields;
    do {
      match(SPACE);
      if (text[at] !== '"') return fail("expected the name of a field in double quotes");
      const name = string();
      match(SPACE);
      if (!take(":")) return fail("expected ':'");
      fields.set(name, value(depth + 1));
      match(SPACE);
    } while (take(","));
    return take("}") ? fields : fail("expected ',' or '}'");
  };

  const array = (depth: number): PythonJson[] => {
    const items: PythonJson[] = [];
    match(SPACE);
    if (take("]")) return items;
    do {
      items.push(value(depth + 1));
      match(SPACE);
    } while (take(","));
    return take("]") ? items : fail("expected ',' or ']'");
  };

  const value = (depth: number): PythonJson => {
    if (depth > MAX_DEPTH) return fail("nested too deep");
    match(SPACE);
    if (text[at] === '"') return string();
    if (take("{")) return object(depth);
    if (take("[")) return array(depth);
    for (const [word, meaning] of Object.entries(WORDS)) {
      if (!text.startsWith(word, at)) continue;
      at += word.length;
      return meaning;
    }
    const number = match(NUMBER);
    if (number === null || number[0] === "") return fail("expected a value");
    return number[1] === undefined && number[2] === undefined ? new JsonInteger(number[0]) : Number(number[0]);
  };

  const result = value(0);
  match(SPACE);
  if (at < text.length) fail("expected the end");
  return result;
}

/**
 * Writes a value.
 * @param onNotFinite called for each number that is written as null
 */
export function writePythonJson(value: PythonJson, onNotFinite: () => void = () => undefined): string {
  if (value === null) return "null";
  if (typeof value === "boolean") return value ? "true" : "false";
  if (typeof value === "string") return asciiText(value);
  if (typeof value === "number") {
    if (Number.isFinite(value)) return pythonFloat(value);
    onNotFinite();
    return "null";
  }
  if (value instanceof JsonInteger) return value.digits === "-0" ? "0" : value.digits;
  if (Array.isArray(value)) return `[${value.map((item) => writePythonJson(item, onNotFinite)).join(", ")}]`;
  const fields = [...value].map(([name, item]) => `${asciiText(name)}: ${writePythonJson(item, onNotFinite)}`);
  return `{${fields.join(", ")}}`;
}

/**
 * Plain values on one line, as `json.dumps` gives them: whole numbers count as Python's integers, all others as floats;
 * what is undefined is left out.
 */
export function pythonJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(", ")}]`;
  if (typeof value === "object" && value !== null) {
    const members = Object.entries(value).filter(([, member]) => member !== undefined);
    return `{${members.map(([key, member]) => `${asciiText(key)}: ${pythonJson(member)}`).join(", ")}}`;
  }
  if (typeof value === "string") return asciiText(value);
  if (typeof value === "number" && Number.isFinite(value) && !Number.isInteger(value)) return pythonFloat(value);
  return JSON.stringify(value);
}

/** What is not printable ASCII is an escape. `JSON.stringify` makes those below the blank, and of lone surrogates. */
function asciiText(text: string): string {
  return JSON.stringify(text).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
