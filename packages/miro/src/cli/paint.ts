/** Colours of the terminal. */
import type { WriteStream } from "node:tty";

const CODES = { bold: [1, 22], red: [31, 39], green: [32, 39], yellow: [33, 39], cyan: [36, 39] } as const;

/** A colour or a weight. */
export type Style = keyof typeof CODES;

/** A text with the codes that a terminal draws it by. */
export function paint(style: Style, text: string): string {
  const [on, off] = CODES[style];
  return `\x1b[${on}m${text}\x1b[${off}m`;
}

/**
 * Whether what goes to a stream may have colours: it is a terminal that has some, or FORCE_COLOR asks for them, and
 * neither NO_COLOR nor TERM=dumb is set.
 */
export function hasColours(stream: WriteStream, env: NodeJS.ProcessEnv = process.env): boolean {
  if (env.NO_COLOR) return false;
  if (env.FORCE_COLOR !== undefined) return env.FORCE_COLOR !== "0" && env.FORCE_COLOR !== "false";
  return Boolean(stream.isTTY) && stream.hasColors(16, env as object);
}

/** The word that a message for people begins with, in its colour. */
export function paintHead(text: string): string {
  return text
    .replace(/^error:/gm, (head) => paint("red", head))
    .replace(/^(?:warning:|Interrupted)/gm, (head) => paint("yellow", head));
}
