/**
 * What a GenEval prompt asks for: a record of `evaluation_metadata.jsonl`, which the folder of its pictures repeats.
 * Keys that are not known here are kept, since result files carry the record whole.
 */

import { z } from "zod";
import { isObject } from "../../arguments.js";
import { describe, InvalidInputError } from "../../errors.js";
import { expectation } from "../../expectations.js";
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
  if (!isObject(value)) throw new InvalidInputError(`${where}: expected an object, received ${describe(value)}`);
  checkPlainData(value, (place) => `${where}, ${place}`);
  const result = metadataSchema.safeParse(value, { error: expectation });
  if (!result.success) {
    const { path, message } = result.error.issues[0]!;
    const place = path.map(String);
    const received = place.reduce<unknown>((part, key) => (part as Record<string, unknown> | undefined)?.[key], value);
    throw new InvalidInputError(`${where}, ${place.join(".")}: ${message}; received ${describe(received)}`);
  }
  result.data.include.forEach(({ position }, i) => {
    if (position !== undefined && position[1] >= i) {
      throw new InvalidInputError(
        `${where}, include.${i}.position: the target must stand before the object, as one of include.0 to ` +
          `include.${i - 1}; received ${position[1]}`,
      );
    }
  });
  return result.data;
}
