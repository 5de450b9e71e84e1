/** The list of names beside the bundled model, for people. */
import { GROUPS } from "../evaluation/retrieval.js";
import { loadVocabulary } from "../scenes/vocabulary.js";

const WIDTH = 119;

/** The text of `NAMES.md`: the names of the core vocabulary by their groups. */
export function namesFile(model: string): string {
  const entries = loadVocabulary("core");
  const sections = Object.entries(GROUPS).map(([group, title]) => {
    const names = entries.filter((entry) => entry.group === Number(group)).map(({ label }) => label);
    return `## ${title[0]!.toUpperCase()}${title.slice(1)} (${names.length})\n${inLines(names)}\n`;
  });
  return `# The names that ${model} knows\n\nCLDR's English names, by its groups.\n\n${sections.join("\n")}`;
}

/** Names with commas between them, broken only between names. */
function inLines(names: readonly string[]): string {
  const lines = [""];
  for (const [i, name] of names.entries()) {
    const piece = i === names.length - 1 ? name : `${name},`;
    const line = lines.at(-1)!;
    if (line === "") lines[lines.length - 1] = piece;
    else if (line.length + 1 + piece.length > WIDTH) lines.push(piece);
    else lines[lines.length - 1] = `${line} ${piece}`;
  }
  return lines.join("\n");
}
