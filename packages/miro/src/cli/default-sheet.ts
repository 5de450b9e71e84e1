/** What `miro generate` draws when it is given no prompt. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { filledLines } from "../files/table-file.js";
import { readTextFile } from "../files/text-file.js";

/** For checkpoints that bring no examples of their own. */
const PROMPTS = [
  "a red apple on a light blue background",
  "a fox",
  "a tulip on a white background",
  "a penguin on a yellow background",
  "a cactus",
  "a whale on a light blue background",
  "a butterfly on a pink background",
  "a mushroom on a green background",
  "a cat",
];

/** The prompts of the default sheet: `examples.txt` beside the checkpoint, one a line, else a list of simple things. */
export function sheetPrompts(model: string): string[] {
  const file = join(model, "examples.txt");
  if (!existsSync(file)) return PROMPTS;
  const lines = filledLines(readTextFile(file)).map(({ text }) => text.trim());
  return lines.length > 0 ? lines.slice(0, 64) : PROMPTS;
}
