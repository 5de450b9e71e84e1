/**
 * Text for people, on a terminal. File names, captions, keys and columns come from strangers: what a terminal would
 * take for a command, or what would show a line in another order than it has, is written as its number. JSON for
 * programs does not go through here.
 */

/**
 * What empties the terminal's line. As the whole of a write it reaches the terminal; within a text it is shown like any
 * other.
 */
export const ERASE_LINE = "\r\x1b[K";

/**
 * Control characters but tab and line feed, and the marks, embeddings, overrides and isolates of bidirectional text.
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not reach the terminal
const COMMANDS = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** A text in which nothing is a command to the terminal. */
export function printable(text: string): string {
  return text.replace(COMMANDS, (character) => {
    const code = character.charCodeAt(0);
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

/** The beginning of a long text, for messages: whole characters, and `…` for the rest. */
export function shortened(text: string, most = 60): string {
  const characters = [...text.slice(0, 2 * most + 2)];
  return characters.length <= most ? text : `${characters.slice(0, most - 1).join("")}…`;
}

/** The first of some names, for messages: `a, b, c`, and `, …` for the rest. */
export function listed(names: readonly (string | number)[], most: number): string {
  return names.slice(0, most).join(", ") + (names.length > most ? ", …" : "");
}

/** A message on one line; what follows a colon belongs to it. */
export function oneLine(message: string, separator = "; "): string {
  const lines = message
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
  return lines.map((line, i) => (i === 0 ? line : (lines[i - 1]!.endsWith(":") ? " " : separator) + line)).join("");
}
