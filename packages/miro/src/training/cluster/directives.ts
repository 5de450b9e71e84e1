/** Texts for SLURM's `#SBATCH` lines, whatever is in them. */
import { invalid } from "../../errors.js";
import { hasControls, isPlain } from "../../shell-word.js";

/**
 * The value of an option in an `#SBATCH` line, which knows quotes and backslashes, but no way to write a line break.
 * @param option what the user calls it
 */
export function directiveValue(text: string, option: string): string {
  if (hasControls(text)) throw invalid(option, "a text without control characters", text);
  return isPlain(text) ? text : `"${text.replace(/["\\]/g, "\\$&")}"`;
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
