/** Command lines of the scripts: `--help` prints the comment at the top of the script and does nothing else. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

/** The comment at the top of a script, without its marks. */
export function topComment(url) {
  const [, text] = readFileSync(fileURLToPath(url), "utf8").match(/^\/\*\*\n([\s\S]*?)^ \*\//m);
  return text.replace(/^ \*( |$)/gm, "");
}

/**
 * The arguments of a script, as `parseArgs` gives them. Ends the process after `--help`, and, with one line and exit
 * code 2, when an argument is wrong: a script calls this before it does anything.
 */
export function argumentsOf(url, options = {}, allowPositionals = false) {
  const help = { type: "boolean", short: "h" };
  try {
    const parsed = parseArgs({ options: { ...options, help }, allowPositionals });
    if (!parsed.values.help) return parsed;
  } catch (error) {
    console.error(`${path.basename(fileURLToPath(url), ".mjs")}: ${error.message}`);
    process.exit(2);
  }
  process.stdout.write(topComment(url));
  process.exit(0);
}
