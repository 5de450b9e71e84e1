/**
 * HTML character references in text, decoded as Python's `html.unescape` does it: the rules of the HTML standard,
 * section 13.5, with the names that may stand without a semicolon, and the characters of Windows-1252 for the numbers
 * 128 to 159.
 */
import { characterEntities } from "character-entities";
import { characterEntitiesLegacy } from "character-entities-legacy";
import { SINGLE_BYTE_ENCODINGS } from "./mojibake.generated.js";

const NAMES: ReadonlyMap<string, string> = new Map(Object.entries(characterEntities));
const WITHOUT_SEMICOLON: ReadonlySet<string> = new Set(characterEntitiesLegacy);

const REFERENCE = /&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/gu;
/** From the byte 0x80 on; the decoder of some releases of Node takes these for control characters. */
const WINDOWS_1252 = SINGLE_BYTE_ENCODINGS.find(([name]) => name === "sloppy-windows-1252")![1];

/** The text with its character references replaced; what is none stays. */
export function unescapeHtml(text: string): string {
  if (!text.includes("&")) return text;
  return text.replace(REFERENCE, (whole, body: string) => {
    if (body.startsWith("#")) return numbered(body.slice(1).replace(";", ""));
    return named(body) ?? whole;
  });
}

/** The character of `name;`, or undefined. */
export function namedEntity(name: string): string | undefined {
  return NAMES.get(name);
}

/** Names that are in lower case and have a semicolon. */
export function lowerCaseNames(): string[] {
  return [...NAMES.keys()].filter((name) => name === name.toLowerCase());
}

function named(body: string): string | null {
  if (body.endsWith(";")) {
    const found = NAMES.get(body.slice(0, -1));
    if (found !== undefined) return found;
  }
  // The longest name that may do without a semicolon; no such name has one letter.
  for (let end = body.length; end > 1; end--) {
    const name = body.slice(0, end);
    if (WITHOUT_SEMICOLON.has(name)) return NAMES.get(name)! + body.slice(end);
  }
  return null;
}

function numbered(digits: string): string {
  const code = /^[xX]/.test(digits) ? Number.parseInt(digits.slice(1), 16) : Number.parseInt(digits, 10);
  if (code === 0 || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) return "\ufffd";
  if (code === 0x0d) return "\r";
  if (code >= 0x80 && code <= 0x9f) return WINDOWS_1252[code - 0x80]!;
  return isDropped(code) ? "" : String.fromCodePoint(code);
}

/** Control characters and code points that are no characters. */
function isDropped(code: number): boolean {
  const control = (code < 0x20 && ![0x09, 0x0a, 0x0c].includes(code)) || code === 0x7f;
  return control || (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffe) === 0xfffe;
}
