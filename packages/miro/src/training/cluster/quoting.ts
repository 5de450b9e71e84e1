/** Texts for bash and for SLURM's `#SBATCH` lines, whatever is in them. */
import { invalid } from "../../errors.js";

const plain = /^[\w.,:/+@%=-]+$/;

/** One word of bash that means the text; control characters are written out, so that the word stays on its line. */
export function shellWord(text: string): string {
  if (plain.test(text)) return text;
  if (!hasControls(text)) return `'${text.replaceAll("'", "'\\''")}'`;
  const escaped = [...text].map((letter) => {
    if (letter === "'" || letter === "\\") return `\\${letter}`;
    return hasControls(letter) ? `\\x${letter.charCodeAt(0).toString(16).padStart(2, "0")}` : letter;
  });
  return `$'${escaped.join("")}'`;
}

/**
 * The value of an option in an `#SBATCH` line, which knows quotes and backslashes, but no way to write a line break.
 * @param option what the user calls it
 */
export function directiveValue(text: string, option: string): string {
  if (hasControls(text)) throw invalid(option, "a text without control characters", text);
  return plain.test(text) ? text : `"${text.replace(/["\\]/g, "\\$&")}"`;
}

/**
 * A path inside of a SLURM file name pattern: `%` begins a placeholder there, and a backslash turns all placeholders
 * off.
 */
export function patternPath(path: string, option: string): string {
  if (path.includes("\\"))
    throw invalid(option, "a path without a backslash, which SLURM does not take in names of logs", path);
  return path.replaceAll("%", "%%");
}

/** Whether a text has characters that are no text: line breaks, tabs, escapes. */
export function hasControls(text: string): boolean {
  return [...text].some((letter) => letter < " " || letter === "\x7f");
}
