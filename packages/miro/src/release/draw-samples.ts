/** Pictures for a card, drawn by the release itself. */
import { join } from "node:path";
import { InvalidInputError } from "../errors.js";
import { writeFileAtomic } from "../files/whole-files.js";
import { contactSheet, type RgbImage } from "../pictures/rgb.js";
import { MiroPipeline } from "../pipeline/pipeline.js";
import { sheetPng } from "../pipeline/settings.js";
import { SAMPLES_FILE } from "./card.js";
import { factsFile, readFacts } from "./facts.js";

/** What is drawn where nobody says what. */
const PROMPTS = [
  "a red fox in the snow",
  "a bowl of fruit on a wooden table",
  "a lighthouse at dawn, oil painting",
  "a portrait of an old man with a white beard",
];

/** Options of {@link drawSamples}. */
export interface SampleOptions {
  folder: string;
  count: number;
  /** Taken in turn. */
  prompts: readonly string[];
  seed: number;
  steps?: number | undefined;
  /** Where the models are that the folder does not hold. */
  textEncoder?: string | undefined;
  vae?: string | undefined;
  signal?: AbortSignal | undefined;
  onMessage?: ((message: string) => void) | undefined;
}

/** Draws the sheet `samples.png` and notes it in the folder's facts. */
export async function drawSamples(options: SampleOptions): Promise<void> {
  const { folder, count, seed, signal, textEncoder, vae, steps, onMessage } = options;
  const facts = readFacts(folder);
  if (facts === null) throw new InvalidInputError(`${folder}: holds no release.json, which miro convert writes`);
  const given = options.prompts.length > 0 ? options.prompts : PROMPTS;
  const prompts = Array.from({ length: count }, (_, i) => given[i % given.length]!);
  const images: RgbImage[] = [];
  const pipe = await MiroPipeline.fromPretrained(folder, { textEncoder, vae, signal, onMessage });
  try {
    for (const [i, prompt] of prompts.entries()) {
      const drawn = await pipe.generate(prompt, { seed: seed + i, steps, signal });
      images.push(drawn.images[0]!);
    }
  } finally {
    await pipe.dispose();
  }
  writeFileAtomic(join(folder, SAMPLES_FILE), sheetPng(contactSheet(images), prompts), { overwrite: true });
  const file = factsFile({ ...facts, samples: { prompts: [...new Set(prompts)], seed } });
  writeFileAtomic(join(folder, file.name), file.text, { overwrite: true });
}
