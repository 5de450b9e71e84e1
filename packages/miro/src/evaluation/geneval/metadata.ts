/**
 * What a GenEval prompt asks for: a record of `evaluation_metadata.jsonl`, which the folder of its pictures repeats.
 * Keys that are not known here are kept, since result files carry the record whole.
 */
import { z } from "zod";
import { InvalidInputError } from "../../errors.js";
import { checkContent } from "../../expectations.js";
import { checkPlainData } from "../../files/plain-data.js";

/** The colours that an object may have, in the order in which reasons name them. */
export const COLOURS = [
  "red",
  "orange",
  "yellow",
  "green",
  "blue",
  "purple",
  "pink",
  "brown",
  "black",
  "white",
] as const;
export type Colour = (typeof COLOURS)[number];

/** Where an object is, seen from another one. */
export const RELATIONS = ["left of", "right of", "above", "below"] as const;
export type Relation = (typeof RELATIONS)[number];

/** The tasks of the published prompts, in the order of the file. */
export const TASKS = ["single_object", "two_object", "counting", "colors", "position", "color_attr"] as const;

const requirementSchema = z.looseObject({
  class: z.string().min(1),
  count: z.int().min(1).max(1000),
  color: z.enum(COLOURS).optional(),
  position: z.tuple([z.enum(RELATIONS), z.int().min(0)]).optional(),
});

const metadataSchema = z.looseObject({
  tag: z.string().min(1),
  include: z.array(requirementSchema).max(1000).default([]),
  exclude: z
    .array(z.looseObject({ class: z.string().min(1), count: z.int().min(1) }))
    .max(1000)
    .optional(),
  prompt: z.string(),
});

/** An object that has to be found. */
export type Requirement = z.output<typeof requirementSchema>;

/** A prompt and what has to be found in its pictures. */
export type PromptMetadata = z.output<typeof metadataSchema>;

/**
 * Checks a record.
 * @param where of the record, for errors: file, line
 * @throws InvalidInputError naming the place, what is accepted and what came
 */
export function checkMetadata(value: unknown, where: string): PromptMetadata {
  checkPlainData(value, (place) => `${where}: ${place}`);
  const metadata = checkContent(metadataSchema, value, where);
  metadata.include.forEach(({ position }, i) => {
    const target = position?.[1];
    const wanted = "an object that stands before this one in include";
    if (target !== undefined && target >= i)
      throw new InvalidInputError(`${where}: include.${i}.position.1: expected ${wanted}, received ${target}`);
  });
  return metadata;
}
