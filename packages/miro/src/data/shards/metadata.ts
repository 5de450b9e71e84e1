/**
 * A sample's metadata, the `.json` member: an object as Python's `json` module writes it, which may hold the bare words
 * `NaN` and `Infinity` (the published preparation writes them for scores that are not finite).
 */

/** Where strings begin and end, escapes, and the three words that JSON does not know. */
const TOKENS = /\\[\s\S]|"|-?\bInfinity\b|\bNaN\b/g;

/**
 * The fields of a metadata member; a bare `NaN` or `Infinity` reads as null.
 * @throws SyntaxError when it is not UTF-8, no JSON or no object
 */
export function parseMetadata(bytes: Uint8Array): Record<string, unknown> {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new SyntaxError("it is not UTF-8");
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    let isInString = false;
    const strict = text.replace(TOKENS, (token) => {
      if (token === '"') isInString = !isInString;
      return isInString || token === '"' || token.startsWith("\\") ? token : "null";
    });
    if (strict === text) throw error;
    value = JSON.parse(strict);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new SyntaxError("it is not an object");
  return value as Record<string, unknown>;
}

/** A field as a number; NaN where it is missing, null or no number. */
export function numberField(metadata: Record<string, unknown>, name: string): number {
  const value = metadata[name];
  return typeof value === "number" && Number.isFinite(value) ? value : Number.NaN;
}
