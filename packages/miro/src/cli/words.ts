/** What the words of a command line mean where they need not be written in full. */
import { printable } from "../printable.js";

/** How a terminal is told to show a picture; `auto` finds out what it understands. */
export const SHOW_PROTOCOLS = ["auto", "kitty", "iterm", "sixel"] as const;
export type ShowProtocol = (typeof SHOW_PROTOCOLS)[number];

/**
 * The words in full: a text in the place of a command is a prompt of `generate`; `help` knows commands within commands;
 * behind `--show` stands a protocol or something else, such as a prompt.
 */
export function meantWords(args: readonly string[]): string[] {
  if (args[0] === "help" && args.length > 2) return [...args.slice(1), "--help"];
  const words = isPrompt(args[0]) ? ["generate", ...args] : [...args];
  const end = words.includes("--") ? words.indexOf("--") : words.length;
  return words.flatMap((word, i) => {
    const isProtocol = (at: number) => at < end && SHOW_PROTOCOLS.includes(words[at] as ShowProtocol);
    if (i < end && word === "--show") return [`--show=${isProtocol(i + 1) ? words[i + 1] : "auto"}`];
    return isProtocol(i) && words[i - 1] === "--show" ? [] : [word];
  });
}

/**
 * Whether the first word is no command but a text: `miro "a fox"` means `miro generate "a fox"`. What a terminal obeys
 * is none.
 */
function isPrompt(word: string | undefined): boolean {
  if (word === undefined || word.startsWith("-") || printable(word) !== word) return false;
  return /\s|\p{Extended_Pictographic}/u.test(word.trim());
}
