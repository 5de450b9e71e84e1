/**
 * `evaluation.json` beside the bundled model: what the evaluation found, from which the card takes its numbers, with
 * the digest of the weights that it is of.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { parseJsonFile } from "../../files/json-file.js";
import { weightFiles } from "../../pipeline/loading/checkpoint.js";

/** Name of the file. */
export const FIGURES_FILE = "evaluation.json";

const share = z.number().min(0).max(1);
const named = z.looseObject({ pictures: z.int(), top1: share, top5: share });
const retrieval = z.looseObject({
  ...named.shape,
  background: share,
  backgroundDistance: z.number(),
  groups: z.record(z.string(), named),
});
const both = z.object({ plain: retrieval, coloured: retrieval });
const counted = z.looseObject({ pictures: z.int(), right: share, counted: share });
const counts = z.looseObject({ ...counted.shape, counts: z.record(z.string(), counted) });
const placed = z.looseObject({ pictures: z.int(), right: share, placed: share, both: share });
const relations = z.looseObject({ ...placed.shape, relations: z.record(z.string(), placed) });
const edges = z.looseObject({
  borders: z.record(z.string(), z.number()),
  coherence: z.number(),
  sharpness: z.number(),
});

/** What is measured for the card, by name; see `measure.ts` for how much of each. */
const partsSchema = z.object({
  everyThird: both,
  everyday: both,
  hundred: both,
  counts,
  relations,
  aliases: z.object({ aliases: retrieval, sentences: retrieval }),
  rewards: z.record(
    z.string(),
    z.looseObject({
      measure: z.string(),
      targets: z.array(z.number()),
      values: z.array(z.number()),
      monotone: z.boolean(),
      rises: z.boolean(),
      largestFall: z.number(),
    }),
  ),
  edges: z.object({ drawn: edges, renders: edges }),
  samples: z.object({ prompts: z.array(z.string()) }),
  detector: z.looseObject({ counts: counted, relations }),
});

/** The few figures of an earlier edition that a card compares with. */
const earlierSchema = z.object({
  plain: z.object({ top1: share, top5: share }),
  coloured: z.object({ top1: share, top5: share }),
  counts: z.object({ right: share }),
  relations: z.object({ both: share }),
});

const schema = z.object({
  edition: z.int().min(1),
  /** SHA-256 of the weights of the model and of the classifier. */
  digest: z.string(),
  settings: z.object({ steps: z.int(), guidanceScale: z.number(), shift: z.number(), seed: z.int() }),
  /** The edition before this one. */
  earlier: earlierSchema.nullable(),
  parts: partsSchema.partial(),
});

/** Names of what is measured. */
export type CardPart = keyof typeof partsSchema.shape;
/** What {@link FIGURES_FILE} holds; the parts that are done. */
export type Figures = z.output<typeof schema>;
/** The same with every part. */
export type WholeFigures = Figures & { parts: z.output<typeof partsSchema> };

export const CARD_PARTS = Object.keys(partsSchema.shape) as CardPart[];

/** The figures of a folder; null where there are none. @throws InvalidInputError naming the file and the field */
export function readFigures(folder: string): Figures | null {
  const path = join(folder, FIGURES_FILE);
  return existsSync(path) ? parseJsonFile(path, schema) : null;
}

/** What a later edition's card says of this one. */
export function asEarlier({ parts: { everyThird, counts, relations } }: WholeFigures): Figures["earlier"] {
  const { plain, coloured } = everyThird;
  return earlierSchema.parse({ plain, coloured, counts, relations });
}

/** Whether every part is measured. */
export function isWhole(figures: Figures): figures is WholeFigures {
  return CARD_PARTS.every((part) => figures.parts[part] !== undefined);
}

/** SHA-256 over the weights of a model's parts and of the classifier that judges it. */
export function digestOf(model: string, classifier: string): string {
  const hash = createHash("sha256");
  const files = [
    ...weightFiles(model).map((name) => join(model, name)),
    join(model, "uncond_embedding.npy"),
    join(model, "text_encoder", "model.safetensors"),
    join(model, "vae", "diffusion_pytorch_model.safetensors"),
    join(classifier, "model.safetensors"),
  ];
  for (const file of files) hash.update(readFileSync(file));
  return hash.digest("hex");
}
