/**
 * PartiPrompts (Yu et al. 2022): prompts with a category and a challenge each, as the table that Google publishes:
 * tab-separated, a header `Prompt`, `Category`, `Challenge`, `Note`; cells at the end of a line may be absent.
 */
import { InvalidInputError } from "../../errors.js";
import { filledLines } from "../../files/table-file.js";
import { readTextFile } from "../../files/text-file.js";

/** A prompt, as `metadata.jsonl` holds it. */
export interface PartiPrompt {
  prompt: string;
  category?: string;
  challenge?: string;
  note?: string;
}

const COLUMNS = ["Prompt", "Category", "Challenge", "Note"] as const;

/**
 * The prompts of a table, in its order.
 * @throws InvalidInputError naming the line of what is wrong; MiroError when the file cannot be read
 */
export function readPartiPrompts(path: string): PartiPrompt[] {
  const [header, ...lines] = filledLines(readTextFile(path));
  const names = (header?.text ?? "").split("\t").map((name) => name.trim());
  const places = COLUMNS.map((name) => names.indexOf(name));
  if (places[0]! < 0)
    throw new InvalidInputError(
      `${path}: line ${header?.number ?? 1}: expected a tab-separated table with the column Prompt, found the columns ` +
        `${names.filter((name) => name !== "").join(", ") || "none"}`,
    );
  const prompts = lines.map(({ text, number }): PartiPrompt => {
    const cells = text.split("\t").map((cell) => cell.trim());
    if (cells.length > names.length)
      throw new InvalidInputError(
        `${path}: line ${number}: expected at most ${names.length} cells as in the header, found ${cells.length}`,
      );
    const [prompt, ...others] = places.map((place) => cells[place] ?? "");
    if (prompt === "") throw new InvalidInputError(`${path}: line ${number}: has no prompt`);
    const named = others.flatMap((cell, i) => (cell === "" ? [] : [[COLUMNS[i + 1]!.toLowerCase(), cell]]));
    return { prompt: prompt!, ...Object.fromEntries(named) };
  });
  if (prompts.length === 0) throw new InvalidInputError(`${path}: holds no prompts`);
  return prompts;
}
