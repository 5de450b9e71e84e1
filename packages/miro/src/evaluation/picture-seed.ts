/** Seeds of the pictures of an evaluation. */
import { createHash } from "node:crypto";
import { seedAt } from "../random/philox.js";

/** Numbers below it are pictures of a prompt; above it stands how often the prompt came before in the list. */
const MOST_SAMPLES = 2 ** 16;

/**
 * The seed of a picture, which follows from the seed of the evaluation, the text of the prompt and the picture's number
 * alone: any part of the prompts, in any order, drawn by any number of processes, gives the same pictures.
 *
 * @param occurrence how many prompts before it have the same text
 */
export function pictureSeed(seed: number, prompt: string, occurrence: number, sample: number): number {
  const text = createHash("sha256").update(prompt).digest().readUIntBE(0, 6);
  return seedAt({ seed, epoch: occurrence * MOST_SAMPLES + sample, sample: text, purpose: "evaluation" });
}

/** How many prompts before each have the same text. */
export function occurrences(prompts: readonly string[]): number[] {
  const before = new Map<string, number>();
  return prompts.map((prompt) => {
    const count = before.get(prompt) ?? 0;
    before.set(prompt, count + 1);
    return count;
  });
}
