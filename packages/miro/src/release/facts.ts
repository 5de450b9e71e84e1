/**
 * What a release says of itself beside its configuration, `release.json`: where its weights come from, their dtype, and
 * what one forward pass gave. Cards are rendered from it, so that they can be rendered again.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { parseJsonFile } from "../files/json-file.js";
import { RELEASE_DTYPES } from "./write-weights.js";

const FILE = "release.json";

const factsSchema = z.object({
  dtype: z.enum(RELEASE_DTYPES),
  /** Which weights, in words. */
  average: z.string(),
  step: z.int().nullable(),
  /** Elements below `network.` that are floating values, buffers included. */
  parameters: z.int(),
  check: z.object({ sha256: z.string(), mean: z.number(), std: z.number(), values: z.array(z.number()) }),
  /** Optimizer steps, batch, precision, where the run says them. */
  training: z
    .object({
      batchSize: z.int(),
      maxSteps: z.int(),
      precision: z.string(),
      optimizer: z.string(),
      lr: z.number(),
    })
    .nullable(),
  versions: z.object({ miro: z.string(), torch: z.string() }),
  samples: z
    .object({ prompts: z.array(z.string()), seed: z.int() })
    .nullable()
    .default(null),
});

/** See the top of the file. */
export type ReleaseFacts = z.output<typeof factsSchema>;

/** The name of the file, and its text. */
export function factsFile(facts: ReleaseFacts): { name: string; text: string } {
  return { name: FILE, text: `${JSON.stringify(facts, null, 2)}\n` };
}

/** Reads the facts of a folder; null where there are none. @throws InvalidInputError naming the file */
export function readFacts(folder: string): ReleaseFacts | null {
  const path = join(folder, FILE);
  return existsSync(path) ? parseJsonFile(path, factsSchema) : null;
}
